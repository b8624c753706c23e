"""Verify: it must notice what it is there for, and name the first stage that differs."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
from models_for_tests import LABELS, classifier, write_images
from PIL import Image

import convship
from convship.cli import main
from convship.verify import as_table


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def model(tmp_path_factory, images):
    network, preprocess = classifier()
    path = tmp_path_factory.mktemp("model") / "model.pt"
    convship.export_model(network, path, samples=images[:1], preprocess=preprocess, labels=LABELS)
    return path


def convship_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    program = Path(sysconfig.get_path("scripts")) / "convship"
    return subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_a_sound_file_verifies(model, images):
    result = convship_command("verify", model, *images, "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["inputs"] == 1 + len(images)
    assert report["top1_agreement"] == 1
    assert [stage["python_native"] for stage in report["stages"]] == [0] * 4


def test_a_wrong_decoder_is_named(model, images, monkeypatch):
    real = Image.Image.convert

    def swapped(self, mode):
        return Image.fromarray(np.asarray(real(self, mode))[:, :, ::-1].copy())

    monkeypatch.setattr(Image.Image, "convert", swapped)
    report = convship.verify_model(model, images)
    assert not report.passed
    assert report.first_difference.stage == "decode"
    assert report.first_difference.first_difference.endswith("golden 0")
    assert "first difference: decode" in as_table(report)
    assert main(["verify", str(model)]) == 1


@pytest.mark.parametrize(
    ("column", "stage", "scale"),
    [("reference", "output logits", 1 + 1e-3), ("python", "output logits", 1 + 1e-7)],
)
def test_a_wrong_network_is_named(model, monkeypatch, column, stage, scale):
    """R may differ by the tolerance only; P may not differ by one bit."""
    from convship import verify

    if column == "reference":
        real = verify._Columns._reference_image
        name = "_reference_image"
        owner = verify._Columns
    else:
        real = convship.Model.stages
        name = "stages"
        owner = convship.Model

    def off(self, image):
        stages = real(self, image)
        logits = stages["output.logits"].clone()
        logits[0, 0] = torch.nextafter(logits[0, 0] * scale, torch.tensor(torch.inf))
        return {**stages, "output.logits": logits}

    monkeypatch.setattr(owner, name, off)
    report = convship.verify_model(model)
    assert report.first_difference.stage == stage


def test_interruption_is_one_line(monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("convship.plots.plot_samples", interrupt)
    assert main(["data", "show", "--out", "unused.png"]) == 130
    assert capsys.readouterr().err == "convship: interrupted; a training goes on with --resume\n"


def test_bad_input_on_the_command_line(model, tmp_path):
    for arguments, code, message in [
        (("verify", tmp_path / "none.pt"), 3, "no such model file"),
        (("verify", model, tmp_path / "none.jpg"), 4, "no such image"),
        (("verify", model, "--backend", "fast"), 2, "backend must be"),
        (("inspect", __file__), 3, "not a convship model"),
        (("export", tmp_path / "no-run", "--out", tmp_path / "m.pt"), 3, "no run here"),
    ]:
        result = convship_command(*arguments)
        assert result.returncode == code, (arguments, result.stderr)
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "m.pt").exists()
