"""Training: what a run leaves, exact continuation, and what stops it."""

from __future__ import annotations

import csv
import json
import resource
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from convship.checkpoint import FORMAT, load_checkpoint, save_checkpoint
from convship.config import TrainConfig, read_config, resolve, write_config
from convship.data import from_datasets, load_data
from convship.errors import ModelFileError, ModelFileNotFoundError
from convship.loop import _schedule
from convship.train import load_run, overfitting, train


def config(out, **settings) -> TrainConfig:
    base = {"data": "fake", "model": "lenet5", "epochs": 2, "threads": 1, "batch_size": 16}
    return TrainConfig(out=out, **(base | settings))


class TestTrain:
    def test_run_folder_is_complete(self, tmp_path):
        run = train(config(tmp_path / "a"), verbose=False)
        names = {path.name for path in (tmp_path / "a").iterdir()}
        assert names == {
            "best.ckpt", "last.ckpt", "config.toml", "curves.png", "metrics.csv", "summary.json",
            "samples",
        }  # fmt: skip
        assert epochs_in(tmp_path / "a") == ["1", "2"]
        assert len(run.samples) == 8
        assert not run.model.training
        assert run.labels == ["black", "dark", "light", "white"]
        json.dumps(run.summary)
        full = tomllib.loads((tmp_path / "a" / "config.toml").read_text())
        assert full["lr"] > 0
        assert full["mean"] == run.config.mean

    def test_config_beside_the_run_reproduces_it(self, tmp_path):
        first = train(config(tmp_path / "a"), verbose=False)
        stored = read_config(tmp_path / "a" / "config.toml", {"out": tmp_path / "b"})
        second = train(stored, verbose=False)
        assert_same(first.model.state_dict(), second.model.state_dict())

    def test_digits_are_learned(self, tmp_path):
        run = train(config(tmp_path / "a", data="digits", epochs=8), verbose=False)
        assert run.summary["last_test_accuracy"] >= 0.97

    def test_own_network_and_data(self, tmp_path):
        pairs = [(torch.full((3, 8, 8), 250 * (i % 2)).byte(), i % 2) for i in range(64)]
        data = from_datasets(pairs, pairs, ["dark", "light"])
        model = nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
        model(torch.zeros(1, 3, 8, 8))
        run = train(config(tmp_path / "a", lr=0.01), model=model, data=data, verbose=False)
        assert run.summary["test_accuracy"] == 1.0
        again = load_run(tmp_path / "a", model=nn.Sequential(nn.Flatten(), nn.Linear(192, 2)))
        assert_same(again.model.state_dict(), run.model.state_dict())
        with pytest.raises(ValueError, match="network of your own"):
            load_run(tmp_path / "a")

    def test_outputs_that_do_not_match_the_labels_fail(self, tmp_path):
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 7))
        with pytest.raises(ValueError, match=r"logits \[N, 4\], one per label, got \[2, 7\]"):
            train(config(tmp_path / "a"), model=model, verbose=False)
        assert not (tmp_path / "a").exists()

    def test_existing_run_is_not_overwritten_fails(self, tmp_path):
        train(config(tmp_path / "a", epochs=1), verbose=False)
        with pytest.raises(ValueError, match="already holds a run; resume it"):
            train(config(tmp_path / "a", epochs=1), verbose=False)
        with pytest.raises(ValueError, match="epochs must stay 1, got 2"):
            train(config(tmp_path / "a", epochs=2), resume=True, verbose=False)

    def test_loss_that_explodes_fails(self, tmp_path):
        settings = {"lr": 1e6, "optimizer": "sgd", "schedule": "constant"}
        with pytest.raises(ValueError, match="lower lr"):
            train(config(tmp_path / "a", **settings), verbose=False)

    def test_early_stopping_ends_a_run_that_no_longer_improves(self, tmp_path):
        settings = {"lr": 1e-9, "epochs": 20, "early_stopping": 2, "schedule": "constant"}
        run = train(config(tmp_path / "a", **settings), verbose=False)
        assert run.summary["epochs"] < 20

    @pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
    def test_cifarnet_grows_and_trains_in(self, tmp_path, precision):
        settings = {"model": "cifarnet", "start_size": 0.5, "precision": precision}
        run = train(config(tmp_path / "a", **settings), verbose=False)
        assert run.preprocess.height == 32
        assert next(run.model.parameters()).dtype == torch.float32


class TestResume:
    def test_after_kills_at_any_moment_ends_with_the_same_bits(self, tmp_path):
        arguments = ["train", "--data", "fake", "--epochs", "4", "--threads", "1"]
        run_to_its_end(arguments, tmp_path / "whole")
        kills = 0
        # Later and later: in start-up, within epochs, while checkpoints are written.
        for delay in (0.0, 0.15, 0.4):
            kills += kill_after(arguments, tmp_path / "killed", delay)
        assert kills >= 2, "the run ended before it could be killed"
        run_to_its_end(arguments, tmp_path / "killed")
        whole, killed = (
            load_checkpoint(tmp_path / name / "last.ckpt") for name in ("whole", "killed")
        )
        assert_same(whole["model"], killed["model"])
        assert str(whole["optimizer"]) == str(killed["optimizer"])
        assert epochs_in(tmp_path / "whole") == epochs_in(tmp_path / "killed") == list("1234")
        assert not list((tmp_path / "killed").glob(".*.tmp"))

    def test_with_dropout_and_batch_norm_ends_with_the_same_bits(self, tmp_path):
        def network() -> nn.Module:
            torch.manual_seed(5)
            return nn.Sequential(
                nn.Conv2d(3, 4, 3),
                nn.BatchNorm2d(4),
                nn.Flatten(),
                nn.Dropout(),
                nn.Linear(3600, 4),
            )

        whole = train(config(tmp_path / "a", epochs=3), model=network(), verbose=False)
        stop_after(tmp_path / "b", network(), epochs=1)
        torch.rand(100)  # another process would have another random state
        resumed = train(
            config(tmp_path / "b", epochs=3), model=network(), resume=True, verbose=False
        )
        last = [load_checkpoint(run.path / "last.ckpt")["model"] for run in (whole, resumed)]
        assert_same(*last)

    def test_nothing_to_resume_starts_at_the_beginning(self, tmp_path):
        assert train(config(tmp_path / "a"), resume=True, verbose=False).summary["epochs"] == 2


class TestCheckpoint:
    def test_full_disk_keeps_the_old_file_fails(self, tmp_path):
        path = tmp_path / "a.ckpt"
        save_checkpoint(path, {"epoch": 1})
        before = path.read_bytes()
        program = (
            "import resource, sys, torch\n"
            "from convship.checkpoint import save_checkpoint\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))\n"
            "save_checkpoint(sys.argv[1], {'x': torch.zeros(10000)})\n"
        )
        result = subprocess.run(
            [sys.executable, "-c", program, str(path)],
            capture_output=True, text=True, check=False,
            preexec_fn=lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
        )  # fmt: skip
        assert "cannot be written: no space left" in result.stderr
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]
        assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000

    @pytest.mark.parametrize("damage", ["truncated", "text", "other", "code"])
    def test_damaged_or_foreign_file_fails(self, tmp_path, damage):
        path = tmp_path / "a.ckpt"
        save_checkpoint(path, {"x": torch.zeros(1000)})
        if damage == "truncated":
            path.write_bytes(path.read_bytes()[:2000])
        elif damage == "text":
            path.write_text("hello")
        elif damage == "other":
            torch.save({"conv1.weight": torch.zeros(3)}, path)
        else:
            torch.save({"format": FORMAT, "x": nn.Linear(1, 1)}, path)
        with pytest.raises(ModelFileError, match=r"a\.ckpt") as caught:
            load_checkpoint(path)
        assert "\n" not in str(caught.value)

    def test_missing_run_fails(self, tmp_path):
        with pytest.raises(ModelFileNotFoundError, match="no run here"):
            load_run(tmp_path / "a")

    def test_checkpoint_with_other_classes_fails(self, tmp_path):
        train(config(tmp_path / "a", epochs=1), verbose=False)
        content = load_checkpoint(tmp_path / "a" / "best.ckpt")
        content["labels"] = content["labels"][:3]
        save_checkpoint(tmp_path / "a" / "best.ckpt", content)
        with pytest.raises(ModelFileError, match="does not fit lenet5 with 3 classes"):
            load_run(tmp_path / "a")


class TestConfig:
    def test_command_line_overrides_the_file(self, tmp_path):
        file = tmp_path / "c.toml"
        file.write_text('model = "cifarnet"\nepochs = 7\n')
        read = read_config(file, {"epochs": 3, "lr": None})
        assert (read.model, read.epochs, read.lr) == ("cifarnet", 3, None)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("epochs = 0", "epochs: input should be greater than or equal to 1, got 0"),
            ("epoch = 3", "unknown setting 'epoch'; known: data, model"),
            ("epochs = ", "not valid TOML"),
        ],
    )
    def test_wrong_file_fails(self, tmp_path, text, message):
        file = tmp_path / "c.toml"
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_config(file, {})

    def test_toml_keeps_odd_characters(self, tmp_path):
        odd = TrainConfig(data='folder:/a "b"\\\x7f/é', out=tmp_path)
        (tmp_path / "c.toml").write_text(write_config(odd))
        assert read_config(tmp_path / "c.toml", {}) == odd

    def test_tutorial_recipe_is_the_tutorials(self):
        full = resolve(TrainConfig(recipe="tutorial"), load_data("fake"))
        picked = (full.lr, full.momentum, full.batch_size, full.epochs, full.mean, full.flip)
        assert picked == (0.001, 0.9, 4, 2, [0.5] * 3, False)
        assert (full.weight_decay, full.schedule, full.precision) == (0, "constant", "32")

    @pytest.mark.parametrize("name", ["one-cycle", "cosine", "step"])
    def test_schedules_stay_within_the_peak_and_end_low(self, name):
        rate = _schedule(TrainConfig(schedule=name, lr=2.0, epochs=4), 25)
        rates = [rate(step) for step in range(100)]
        assert 1.9 <= max(rates) <= 2.0
        assert 0 < rates[-1] < 0.1
        assert min(rates) > 0


def test_overfitting_is_said_in_words():
    rows = [
        {"train_loss": t, "test_loss": v, "train_accuracy": 0.9, "test_accuracy": 0.85}
        for t, v in ((1.0, 1.1), (0.5, 0.8), (0.1, 1.2))
    ]
    assert "lowest in epoch 2" in overfitting(rows)
    assert overfitting(rows[:2]).startswith("no over-fitting")


def epochs_in(out) -> list[str]:
    with (out / "metrics.csv").open(newline="") as file:
        return [row["epoch"] for row in csv.DictReader(file)]


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


def stop_after(out, model: nn.Module, epochs: int) -> None:
    """Train only the first `epochs` of 3: the third save stands in for a kill."""
    from convship import train as module

    saved = module._save_epoch

    def save(session) -> None:
        saved(session)
        if len(session.history) == epochs:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_save_epoch", save)
        with pytest.raises(KeyboardInterrupt):
            train(config(out, epochs=3), model=model, verbose=False)


def run_to_its_end(arguments: list[str], out) -> None:
    command = [sys.executable, "-m", "convship.cli", *arguments, "--out", str(out), "--resume"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr


def kill_after(arguments: list[str], out, delay: float) -> bool:
    """Start or resume the run and kill it `delay` seconds after it wrote something."""
    command = [sys.executable, "-m", "convship.cli", *arguments, "--out", str(out), "--resume"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    file = out / "config.toml"
    before = file.stat().st_mtime_ns if file.exists() else 0
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if file.exists() and file.stat().st_mtime_ns != before:
            break
        time.sleep(0.005)
    time.sleep(delay)
    killed = process.poll() is None
    process.kill()
    process.wait()
    return killed


def test_resume_on_other_images_fails(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)

    def add(label: str, name: str) -> None:
        folder = tmp_path / "images" / label
        folder.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8, generator=generator)
        Image.fromarray(pixels.numpy()).save(folder / f"{name}.png")

    for label in ("a", "b"):
        for number in range(5):
            add(label, str(number))
    config = TrainConfig(data=f"folder:{tmp_path / 'images'}", epochs=1, out=tmp_path / "run")
    train(config, verbose=False)
    train(config, resume=True, verbose=False)
    add("a", "one more")
    with pytest.raises(ValueError, match="the images must stay as they were"):
        train(config, resume=True, verbose=False)
