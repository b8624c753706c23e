"""The main job, end to end, by the commands of the README: train, evaluate, export, run, verify."""

from __future__ import annotations

import json
import subprocess
import sysconfig
import tarfile
from pathlib import Path

import pytest
from models_for_tests import classifier
from PIL import Image

import convship
from convship.data import load_data

CIFAR = Path(__file__).parents[3] / "shared/data/cifar10-imagefolder.tar.gz"
CLASSES = ["airplane", "automobile", "bird", "cat", "deer"]


def command(program: str, *arguments: object) -> str:
    path = Path(sysconfig.get_path("scripts")) / program
    result = subprocess.run(
        [path, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_native_accuracy_on_all_test_digits_equals_pythons(tmp_path):
    run, model, folder = tmp_path / "run", tmp_path / "digits.pt", tmp_path / "digits"
    command("convship", "train", "--data", "digits", "--epochs", "3", "--out", run)
    measured = json.loads(command("convship", "eval", run, "--json"))
    command("convship", "export", run, "--out", model)
    command("convship-run", "selftest", model)

    digits = load_data("digits")
    for index, target in enumerate(digits.test.targets.tolist()):
        path = folder / digits.labels[target] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.test.read(index)[0].numpy()).save(path)
    lines = command("convship-run", "predict", model, folder, "--json").splitlines()
    answers = [json.loads(line) for line in lines]
    right = [a["predictions"][0]["label"] == Path(a["path"]).parent.name for a in answers]
    assert len(right) == measured["images"] == len(digits.test)
    assert sum(right) == round(measured["top1"] * measured["images"])
    assert measured["top1"] > 0.5, "three epochs teach more than guessing"
    report = json.loads(command("convship", "verify", model, folder / "3", "--json"))
    assert report["top1_agreement"] == 1


@pytest.mark.skipif(not CIFAR.exists(), reason=f"the CIFAR-10 images are not at {CIFAR}")
@pytest.mark.parametrize("backend", ["convship", "libtorch"])
def test_real_photographs_verify(tmp_path, backend):
    with tarfile.open(CIFAR) as archive:
        members = [m for m in archive if m.isfile() and "/test/" in f"/{m.name}"][::50]
        archive.extractall(tmp_path, members, filter="data")
    network, preprocess = classifier()
    images = [tmp_path / member.name for member in members]
    path = tmp_path / "m.pt"
    convship.export_model(network, path, samples=images[:2], preprocess=preprocess, labels=CLASSES)
    report = convship.verify_model(path, images, backend=backend)
    assert report.inputs == len(images) + 2 > 200
    assert report.passed, report
