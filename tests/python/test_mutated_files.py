"""Damaged and hostile model files, by the hundred thousand: refused before LibTorch reads them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch
from models_for_tests import write_images
from torch import nn

import convship

PROGRAMS = Path(__file__).parents[2] / "build/native/tests/cpp"
# scripts/test --full sets larger ones.
RANDOM_BITS = os.environ.get("CONVSHIP_MUTATED_BITS", "30000")
HOSTILE_PROGRAMS = os.environ.get("CONVSHIP_HOSTILE_PROGRAMS", "300")
SEED = os.environ.get("CONVSHIP_SEED", "1")

pytestmark = pytest.mark.skipif(not PROGRAMS.exists(), reason="scripts/test makes the native build")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    """A small classifier as it is shipped, and the same as a plain TorchScript file."""
    folder = tmp_path_factory.mktemp("mutated")
    network = nn.Sequential(convship.ConvPool2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 7 * 7, 3))
    preprocess = convship.Preprocess(16, mean=[0.5] * 3, std=[0.25] * 3)
    shipped, plain = folder / "shipped.pt", folder / "plain.pt"
    convship.export_model(
        network,
        shipped,
        samples=write_images(folder)[:2],
        preprocess=preprocess,
        labels=["red", "green", "blue"],
    )
    torch.jit.save(torch.jit.load(shipped), plain)
    return shipped, plain


def output_of(program: str, *arguments: str | Path) -> str:
    result = subprocess.run(
        [PROGRAMS / program, *arguments, "--seed", SEED],
        capture_output=True,
        text=True,
        check=False,
    )
    print(result.stdout)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_every_mutated_file_is_refused(files):
    assert "0 reached LibTorch" in output_of("mutated_files", *files, "--random", RANDOM_BITS)


def test_a_program_that_harms_its_process_harms_no_other(files):
    """Behind a digest that fits, which anybody can write: LibTorch reads these, in a child."""
    output = output_of("hostile_programs", files[0], "--count", HOSTILE_PROGRAMS)
    assert "the parent lives" in output
