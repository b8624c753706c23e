"""A library must not change how its caller's numbers round, or what it takes for zero."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from models_for_tests import LABELS, classifier, write_images

import convship

ROOT = Path(__file__).parents[2]
LIBRARY = Path(convship.__file__).parent / "lib/libconvship.so.0"

# Of MXCSR all but the flags of what happened since.
_READER = """
#include <fenv.h>
#include <xmmintrin.h>
unsigned settings(void) { return (_mm_getcsr() & ~0x3fu) | (unsigned)fegetround() << 16; }
"""

_START = """
import ctypes, sys, threading
settings = ctypes.CDLL(sys.argv[1]).settings
settings.restype = ctypes.c_uint
before = settings()
def check(what):
    assert settings() == before, what
    in_thread = []
    thread = threading.Thread(target=lambda: in_thread.append(settings()))
    thread.start()
    thread.join()
    assert in_thread == [before], what + ", in a new thread"
"""


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> Path:
    library = tmp_path_factory.mktemp("settings") / "settings.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", library, "-lm"],
        input=_READER, text=True, check=True,
    )  # fmt: skip
    return library


def run(program: str, *arguments: object) -> None:
    command = [sys.executable, "-c", _START + program, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads a register of x86-64")
class TestStaysAsItWas:
    def test_by_import_load_and_every_call_from_python(self, reader, tmp_path):
        network, preprocess = classifier()
        images = write_images(tmp_path)
        path = tmp_path / "model.pt"
        convship.export_model(
            network, path, samples=images[:2], preprocess=preprocess, labels=LABELS
        )
        program = """
import torch; check("import torch")
import convship; check("import convship")
model = convship.load(sys.argv[2]); check("load")
model.predict(sys.argv[3]); check("predict")
model.selftest(); check("selftest")
x, w = torch.rand(2, 3, 9, 9, requires_grad=True), torch.rand(4, 3, 3, 3)
convship.conv_pool2d(x, w).sum().backward(); check("conv_pool2d")
"""
        run(program, reader, path, images[0])

    def test_by_dlopen(self, reader):
        torch_libraries = Path(torch.__file__).parent / "lib"
        assert torch_libraries.is_dir()
        program = """
library = ctypes.CDLL(sys.argv[2]); check("dlopen")
library.convship_threads(); check("a call")
"""
        run(program, reader, LIBRARY)


def test_no_compiler_may_take_liberties_with_numbers():
    """-ffast-math sets the register for the whole process when a library is loaded."""
    builds = sorted(ROOT.glob("build/*/compile_commands.json"))
    assert builds, "build first: scripts/setup"
    for build in builds:
        commands = json.loads(build.read_text(encoding="utf-8"))
        assert commands
        for each in commands:
            liberties = re.findall(
                r"-Ofast|-f(?:fast|unsafe|finite|associative|reciprocal)-math\S*|-mdaz-ftz",
                each["command"],
            )
            assert not liberties, each["file"]
