"""train, eval and data show as processes: output, exit codes, one line per error."""

from __future__ import annotations

import json
from subprocess import CompletedProcess

import pytest

from convship.cli import main


def assert_fails(result, code: int, message: str) -> None:
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.startswith("convship: ")]
    assert len(lines) == 1, result.stderr
    assert message in lines[0]
    assert "Traceback" not in result.stderr


def test_train_eval_and_show(convship, tmp_path):
    out = tmp_path / "a"
    result = convship("train", "--data", "fake", "--epochs", 1, "--out", out)
    assert result.returncode == 0, result.stderr
    assert "test accuracy" in result.stdout
    assert "epoch 1/1: train loss" in result.stderr
    assert "over-fitting" in result.stderr

    result = convship("eval", out, "--json")
    assert json.loads(result.stdout)["images"] == 64
    assert (out / "confusion.png").exists()

    result = convship("data", "show", "--out", tmp_path / "strip.png")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "strip.png").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "--data", "x"], 2, "unknown name 'x'; known: digits, mnist"),
        (["train", "--model", "x"], 2, "unknown name 'x'; known: lenet5, cifarnet, alexnet"),
        (["train", "--recipe", "x"], 2, "recipe: input should be 'default' or 'tutorial'"),
        (["train", "--bogus"], 2, "No such option: --bogus"),
        (["train", "--config", "none.toml"], 2, "none.toml does not exist"),
        (["train", "--data", "folder:none"], 2, "folder none does not exist"),
        (["eval", "none"], 3, "none: no run here"),
        (["data", "show", "--out", "none/strip.png"], 2, "none/strip.png: cannot be written"),
        (["train", "--data", "fake", "--out", "/proc/a"], 5, "/proc/a: cannot be created"),
    ],
)
def test_wrong_arguments_fail(tmp_path, monkeypatch, capsys, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "train" and "--out" not in arguments:
        arguments = [*arguments, "--out", str(tmp_path / "a")]
    # In this process: starting one for each would take most of a minute.
    returned = main(arguments)
    printed = capsys.readouterr()
    assert_fails(CompletedProcess(arguments, returned, printed.out, printed.err), code, message)
    assert list(tmp_path.iterdir()) == []


def test_folder_with_one_class_fails(convship, image_folder, tmp_path):
    root = image_folder(labels=("cat",))
    result = convship("train", "--data", f"folder:{root}", "--out", tmp_path / "a")
    assert_fails(result, 2, "at least 2 class folders")


def test_truncated_image_fails(convship, image_folder, tmp_path):
    root = image_folder()
    file = root / "red" / "0.jpg"
    file.write_bytes(file.read_bytes()[:-30])
    result = convship("train", "--data", f"folder:{root}", "--out", tmp_path / "a")
    assert_fails(result, 4, "red/0.jpg: cannot be read as an image")
    assert not (tmp_path / "a").exists()


def test_damaged_checkpoint_fails(convship, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "best.ckpt").write_bytes(b"no checkpoint")
    assert_fails(convship("eval", tmp_path / "a"), 3, "best.ckpt: damaged")


def test_help_does_not_wait_for_torch(convship):
    result = convship("--help")
    assert result.returncode == 0
    assert "train" in result.stdout
