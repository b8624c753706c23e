"""Kills and failing disks at every step of a save: the old file or the new one, never less."""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from faults_for_tests import (
    FULL,
    Strace,
    command,
    export_to_the_end,
    short_writes,
    train_to_the_end,
)

import convship
from convship.atomic import remove_leftovers, write_atomically
from convship.checkpoint import load_checkpoint, save_checkpoint
from convship.errors import ModelFileError
from convship.models import LeNet5

# Large files, in fewer pieces where little time is given.
CHUNK = 4096 if FULL else 65536
TRAINING_KILLS = 500 if FULL else 24
EXPORT_KILLS = 200 if FULL else 8
FILE_LIMITS = 100 if FULL else 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def saved(folder) -> dict[str, tuple[bytes, Path]]:
    """An older file's bytes, and a newer file, of each kind that is saved."""

    def checkpoint(name: str, epoch: int) -> Path:
        torch.manual_seed(epoch)
        save_checkpoint(folder / name, {"epoch": epoch, "model": LeNet5(10).state_dict()})
        return folder / name

    def export(name: str) -> Path:
        network = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.Linear(256, 2))
        convship.export_model(network, folder / name, samples=[torch.rand(1, 64)])
        return folder / name

    return {
        "checkpoint": (checkpoint("old.ckpt", 1).read_bytes(), checkpoint("new.ckpt", 2)),
        "export": (export("old.pt").read_bytes(), export("new.pt")),
    }


def opens(kind: str, path: Path) -> bool:
    return bool(load_checkpoint(path) if kind == "checkpoint" else convship.load(path).manifest)


class TestEveryStepOfASave:
    @pytest.mark.parametrize("exists", [True, False], ids=["replace", "create"])
    @pytest.mark.parametrize("kind", ["checkpoint", "export"])
    @pytest.mark.parametrize(
        "fault", ["signal=SIGKILL", "error=ENOSPC", "error=EIO", "error=EINTR"]
    )
    def test_leaves_the_old_file_or_the_new_one(self, saved, folder, tmp_path, kind, fault, exists):
        before, content = saved[kind]
        after = content.read_bytes()
        target = tmp_path / "there" / "file"
        target.parent.mkdir()
        chunk = short_writes(tmp_path, CHUNK)
        strace = Strace(content, target, tmp_path / "log", chunk)
        calls = strace.calls()
        names = [call.name for call in calls]
        assert names.count("write") >= len(after) // CHUNK
        assert {"openat", "write", "fsync", "close"} < set(names)
        for call in calls:
            if exists:
                target.write_bytes(before)
            else:
                target.unlink(missing_ok=True)
            result = strace.save_with(call, fault)
            found = target.read_bytes() if target.exists() else None
            assert found in ((before if exists else None), after), call
            if result.returncode == 0:
                assert found == after, call
            elif fault != "signal=SIGKILL":  # an error that says what and where
                assert "cannot be written: " in result.stderr, result.stderr
                assert str(target) in result.stderr
                assert list(target.parent.iterdir()) == ([] if found is None else [target]), call
            write_atomically(target, after)  # the next start
            assert list(target.parent.iterdir()) == [target], call
        assert opens(kind, target)


@pytest.fixture(scope="module")
def start() -> Callable[..., multiprocessing.process.BaseProcess]:
    """Start processes that have imported everything already, so that many can be killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["convship.train", "convship.export", "lightning_fabric", "torchmetrics.classification"]
    )

    def started(work, *arguments: object) -> multiprocessing.process.BaseProcess:
        process = context.Process(target=work, args=arguments)
        process.start()
        return process

    return started


class TestKilledAtAnyMoment:
    def test_training_resumes_to_the_same_bits(self, start, tmp_path):
        seed = random.randrange(2**32)
        print("seed", seed)  # to repeat a failure
        moments = random.Random(seed)
        whole = tmp_path / "whole"
        finish(start(train_to_the_end, whole, 4))
        seconds = duration(start(train_to_the_end, tmp_path / "again", 4))
        expected = load_checkpoint(whole / "last.ckpt")
        kills, number, was_killed = 0, 0, True
        while kills < TRAINING_KILLS or was_killed:
            out = tmp_path / str(number)
            process = start(train_to_the_end, out, 4)
            was_killed = kills < TRAINING_KILLS and kill(process, out, seconds, moments)
            kills += was_killed
            for file in out.glob("*.ckpt"):
                assert load_checkpoint(file)["epoch"] <= 4
            if was_killed:
                continue
            finish(process)
            last = load_checkpoint(out / "last.ckpt")
            for name, value in expected["model"].items():
                assert torch.equal(value, last["model"][name]), name
            assert str(expected["optimizer"]) == str(last["optimizer"])
            assert not list(out.rglob("*.tmp"))
            number += 1

    def test_export_keeps_the_older_file_or_has_written_the_new_one(self, start, tmp_path):
        moments = random.Random(7)
        run, path = tmp_path / "run", tmp_path / "there" / "model.pt"
        path.parent.mkdir()
        finish(start(train_to_the_end, run, 1))
        seconds = duration(start(export_to_the_end, run, path))
        for _ in range(EXPORT_KILLS):
            process = start(export_to_the_end, run, path)
            kill(process, path.parent, seconds, moments)
            assert all(check.passed for check in convship.load(path).selftest())
        finish(start(export_to_the_end, run, path))
        assert list(path.parent.iterdir()) == [path]


def kill(process, folder: Path, seconds: float, moments: random.Random) -> bool:
    """Kill somewhere within `seconds`, every second time just when a file is being written."""
    deadline = time.monotonic() + seconds * moments.random()
    waits_for_a_write = moments.random() < 0.5
    while time.monotonic() < deadline and process.is_alive():
        time.sleep(0.001)
    while waits_for_a_write and process.is_alive() and not list(folder.glob(".*.tmp")):
        pass
    process.kill()
    process.join()
    return process.exitcode != 0


def finish(process) -> None:
    process.join(300)
    assert process.exitcode == 0


def duration(process) -> float:
    begin = time.monotonic()
    finish(process)
    return time.monotonic() - begin


class TestFullDisk:
    def test_limit_of_a_files_size_keeps_the_old_file_fails(self, saved, tmp_path):
        before, content = saved["checkpoint"]
        size = content.stat().st_size
        target = tmp_path / "file"
        target.write_bytes(before)
        for step in range(FILE_LIMITS):
            limit = size * step // FILE_LIMITS  # all but the whole
            result = subprocess.run(
                command(content, target, limit), capture_output=True, text=True, check=False
            )
            assert "no space left (File too large)" in result.stderr
            assert target.read_bytes() == before
            assert list(tmp_path.iterdir()) == [target]

    @pytest.mark.parametrize(
        ("options", "message"),
        [("size=64k", "no space left"), ("ro", "Read-only file system")],
        ids=["full", "read-only"],
    )
    def test_small_or_read_only_disk_fails(self, saved, tmp_path, options, message):
        before, content = b"the old file", saved["checkpoint"][1]
        disk = tmp_path / "disk"
        disk.mkdir()
        script = (
            f"mount -t tmpfs -o size=1m convship {disk}"
            f" && printf %s '{before.decode()}' >{disk}/file"
            f' && mount -o remount,{options} {disk} && ! "$@" && cat {disk}/file && ls -A {disk}'
        )
        result = subprocess.run(
            ["unshare", "-rm", "sh", "-c", script, "sh", *command(content, disk / "file")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if "unshare failed" in result.stderr:
            pytest.skip("this machine does not let users mount")
        assert result.stdout == "the old filefile\n", result.stderr
        assert message in result.stderr

    def test_folder_that_cannot_be_written_fails(self, saved, tmp_path):
        if os.geteuid() == 0:
            pytest.skip("root writes everywhere; the read-only disk is its test")
        tmp_path.chmod(0o500)
        with pytest.raises(PermissionError, match="cannot be written: Permission denied"):
            write_atomically(tmp_path / "file", b"new")

    def test_device_that_is_full_fails(self):
        with pytest.raises(OSError, match="no space left"):
            save_checkpoint("/dev/full", {"epoch": 1})
        assert Path("/dev/full").is_char_device()


class TestLeftovers:
    def test_of_the_dead_go_and_of_the_living_stay(self, tmp_path):
        names = [".a.0123456789abcdef.tmp", ".b.0123456789abcdef.tmp", ".a.tmp", "a.tmp"]
        for name in names:
            (tmp_path / name).touch()
        held = tmp_path / ".a.aaaaaaaaaaaaaaaa.tmp"
        program = (
            "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX);"
            "print(flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, held], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as writer:
            writer.stdout.readline()
            write_atomically(tmp_path / "a", b"new")
            left = {file.name for file in tmp_path.iterdir()}
            assert left == {"a", held.name, *names[1:]}
            writer.kill()
        remove_leftovers(tmp_path)
        assert {file.name for file in tmp_path.iterdir()} == {"a", ".a.tmp", "a.tmp"}


def test_training_and_export_write_in_no_other_way(tmp_path):
    """What holds for one save holds for all that they write: traced, file by file."""
    there, log = tmp_path / "there", tmp_path / "log"
    program = (
        "import pathlib, sys; from faults_for_tests import *; out = pathlib.Path(sys.argv[1]);"
        "train_to_the_end(out / 'run', 2, draw=True);"
        "export_to_the_end(out / 'run', out / 'model.pt')"
    )
    subprocess.run(
        [
            *("strace", "-f", "--seccomp-bpf", "-y", "-qq", "-s", "4096", "-o", log),
            *("-e", "trace=openat,open,creat,write,pwrite64,fsync,rename,renameat,renameat2,close"),
            *(sys.executable, "-c", program, there),
        ],
        check=True,
        cwd=Path(__file__).parent,
    )
    lines = [line for line in log.read_text().splitlines() if str(there) in line]
    written, flushed, renamed = set(), set(), []
    for line in lines:
        if re.search(r"open\w*\(.*(O_WRONLY|O_RDWR|O_CREAT)", line):
            path = re.search(rf'"({there}/[^"]*)"', line).group(1)
            assert re.search(r"/\.[^/]+\.[0-9a-f]{16}\.tmp$", path), line
        elif moved := re.search(r'rename\w*\([^"]*"([^"]+)", [^"]*"([^"]+)"', line):
            assert moved[1] in flushed, f"renamed before it was flushed: {line}"
            renamed.append(moved[2])
        elif found := re.search(r" (\w+)\(\d+<([^>]+)>", line):
            if found[1] == "fsync" and (there / found[2]).is_dir():
                assert all(Path(path).parent == Path(found[2]) for path in renamed), line
                renamed = []
            elif found[1] == "fsync":
                flushed.add(found[2])
            elif "write" in found[1]:
                written.add(found[2])
                flushed.discard(found[2])
    assert not renamed, "the folder was not flushed"
    assert len(written) >= 10  # checkpoints, metrics, curves, samples, config, summary, model.pt


def test_checkpoint_with_a_flipped_bit_fails(tmp_path):
    """torch.load does not compare the checksums that torch.save wrote."""
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, {"x": torch.zeros(1000)})
    content = bytearray(path.read_bytes())
    content[content.index(bytes(2000)) + 1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="damaged"):
        load_checkpoint(path)


def test_tools_are_there():
    """Without them the tests above would say something else than that a save is safe."""
    assert shutil.which("strace"), "apt-get install strace"
