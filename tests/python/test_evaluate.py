"""Evaluation: figures against plain arithmetic, classes by name."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from torch import nn

from convship.batches import CachedImages
from convship.config import TrainConfig
from convship.data import load_data
from convship.evaluate import evaluate, evaluate_run
from convship.models import LeNet5
from convship.preprocess import Preprocess
from convship.train import train


@pytest.fixture(scope="module")
def folder_run(tmp_path_factory):
    """A run on the folder of two colours; the colours are easy to tell apart."""
    root = tmp_path_factory.mktemp("colours")
    for label, color in (("blue", (20, 30, 200)), ("red", (200, 30, 20))):
        (root / label).mkdir()
        for index in range(20):
            Image.new("RGB", (32, 32), color).save(root / label / f"{index}.png")
    config = TrainConfig(
        data=f"folder:{root}", epochs=3, threads=1, batch_size=8, out=root.parent / "run-a"
    )
    return train(config, verbose=False), root


def test_figures_equal_plain_arithmetic():
    digits = load_data("digits")
    preprocess = Preprocess(32, channels=1, mean=[0.5], std=[0.5])
    model = LeNet5().eval()
    result = evaluate(model, digits.test, preprocess, digits.labels)
    inputs = preprocess.normalize(CachedImages(digits.test, preprocess).images)
    with torch.inference_mode():
        outputs = model(inputs)
    targets = digits.test.targets
    best5 = outputs.topk(5).indices == targets.unsqueeze(1)
    assert result.top1 == pytest.approx((outputs.argmax(1) == targets).float().mean().item())
    assert result.top5 == pytest.approx(best5.any(1).float().mean().item())
    assert result.loss == pytest.approx(nn.functional.cross_entropy(outputs, targets).item())
    assert result.confusion.sum(1).tolist() == torch.bincount(targets).tolist()
    assert result.count == 359


def test_table_json_and_picture(tmp_path):
    digits = load_data("digits")
    preprocess = Preprocess(32, channels=1, mean=[0.5], std=[0.5])
    result = evaluate(LeNet5(), digits.test, preprocess, digits.labels)
    assert "359 images: top-1" in result.table()
    assert len(json.loads(result.to_json())["classes"]) == 10
    result.plot(tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_run_is_measured_on_its_held_out_images(folder_run):
    run, root = folder_run
    assert evaluate_run(run).count == 8
    assert evaluate_run(run, f"folder:{root}").count == 8
    assert run.summary["test_accuracy"] == evaluate_run(run).top1 == 1.0


def test_samples_are_the_original_bytes(folder_run):
    run, root = folder_run
    originals = {path.read_bytes() for path in root.glob("*/*.png")}
    assert len(run.samples) == 8
    assert all(sample.read_bytes() in originals for sample in run.samples)


def test_other_folder_is_used_whole(folder_run, image_folder):
    run, _ = folder_run
    assert evaluate_run(run, f"folder:{image_folder(count=5)}").count == 10


def test_unknown_classes_fail(folder_run, image_folder):
    run, _ = folder_run
    root = image_folder(labels=("blue", "green"))
    with pytest.raises(ValueError, match="does not know: green; it knows blue, red"):
        evaluate_run(run, f"folder:{root}")


def test_outputs_that_do_not_match_the_labels_fail():
    digits = load_data("digits")
    preprocess = Preprocess(32, channels=1, mean=[0.5], std=[0.5])
    with pytest.raises(ValueError, match=r"one per label, got \[256, 7\]"):
        evaluate(LeNet5(7), digits.test, preprocess, digits.labels)
