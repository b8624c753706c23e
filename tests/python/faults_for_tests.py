"""One save as a process of its own, and strace, which makes its system calls fail or kill it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from convship import atomic

# scripts/test --full: the large numbers.
FULL = os.environ.get("CONVSHIP_TEST_FULL") == "1"

_DISK_CALLS = "openat,write,fsync,rename,renameat,renameat2,unlink,unlinkat,flock,close"

# Loads atomic.py alone: importing torch takes seconds, and every fault is a process. argv: the
# module, the content, where to write, bytes that a file may have (-1: any number).
_SAVE = """
import importlib.util, resource, sys
spec = importlib.util.spec_from_file_location("atomic", sys.argv[1])
atomic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(atomic)
content = open(sys.argv[2], "rb").read()
if int(sys.argv[4]) >= 0:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), resource.RLIM_INFINITY))
try:
    open("/nowhere/the save begins")
except OSError:
    pass
try:
    atomic.write_atomically(sys.argv[3], content)
except OSError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""

# Disks may take less than they are given, which they hardly ever do while one looks.
_SHORT_WRITES = """
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <unistd.h>
ssize_t write(int file, const void* bytes, size_t count) {
  return syscall(SYS_write, file, bytes, count < CHUNK ? count : CHUNK);
}
"""


def command(content: Path, target: Path, file_bytes: int = -1) -> list[str]:
    """The command that writes the bytes of `content` to `target` atomically."""
    # Isolated and without site: nothing but Python's own start before the save.
    return [
        *(sys.executable, "-I", "-S", "-B", "-c", _SAVE),
        *(atomic.__file__, str(content), str(target), str(file_bytes)),
    ]


def short_writes(folder: Path, chunk: int) -> Path:
    """Build a library that, preloaded, makes every write stop after `chunk` bytes."""
    library = folder / "short_writes.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", f"-DCHUNK={chunk}", "-x", "c", "-", "-o", library],
        input=_SHORT_WRITES, text=True, check=True,
    )  # fmt: skip
    return library


@dataclass(frozen=True)
class Call:
    """A system call of the save: the `count`-th of that name in its process."""

    name: str
    count: int


class Strace:
    """Runs saves of `content` to `target` under strace."""

    def __init__(self, content: Path, target: Path, log: Path, preload: Path) -> None:
        self._log = log
        # No --seccomp-bpf: with it the kernel ignores the signals that strace injects.
        self._strace = ["strace", "-f", "-q", "-o", str(log), "-E", f"LD_PRELOAD={preload}"]
        self._save = command(content, target)

    def calls(self) -> list[Call]:
        """Run one save and list what it does to the disk, in order."""
        trace = ["-e", f"trace={_DISK_CALLS}"]
        subprocess.run([*self._strace, *trace, *self._save], check=True)
        counts: dict[str, int] = {}
        found, begun = [], False
        for name, rest in re.findall(r"^\d+ +(\w+)\((.*)$", self._log.read_text(), re.MULTILINE):
            counts[name] = counts.get(name, 0) + 1
            if begun:
                found.append(Call(name, counts[name]))
            begun = begun or "the save begins" in rest
        # The last fsync is the folder's, and closing it ends the save; Python's exit follows.
        last = max(index for index, call in enumerate(found) if call.name == "fsync")
        end = next(index for index in range(last, len(found)) if found[index].name == "close")
        return found[: end + 1]

    def save_with(self, call: Call, fault: str) -> subprocess.CompletedProcess[str]:
        """Save while `fault` ("signal=SIGKILL", "error=EIO") is injected into `call`."""
        injection = f"inject={call.name}:{fault}:when={call.count}"
        arguments = ["-e", f"trace={call.name}", "-e", injection]
        result = subprocess.run(
            [*self._strace, *arguments, *self._save],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        log = self._log.read_text()
        assert re.search(r"\(INJECTED\)|killed by SIGKILL", log), f"no {fault} in {call}"
        return result


def train_to_the_end(out: Path, epochs: int, draw: bool = False) -> None:
    """Start or resume a small training; for processes that are killed while they do."""
    from convship import history
    from convship.train import TrainConfig, train

    if not draw:  # nine tenths of the time of such a small run; the file is written all the same
        history.plot_curves = lambda rows, path: atomic.write_atomically(path, b"curves")
    config = TrainConfig(data="fake", epochs=epochs, threads=1, out=out)
    train(config, resume=True, verbose=False)


def export_to_the_end(run: Path, path: Path) -> None:
    import torch

    from convship.export import export_run

    torch.set_num_threads(1)
    export_run(run, path)
