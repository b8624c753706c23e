"""What several test files need: small image folders, the command line as a process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image


@pytest.fixture(autouse=True)
def _same_randomness():
    """Tests neither depend on each other's random state nor on their number of threads."""
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder of classes told apart by colour; image sizes differ."""

    def make(
        name: str = "images", labels: tuple[str, ...] = ("blue", "red"), count: int = 6
    ) -> Path:
        root = tmp_path / name
        for number, label in enumerate(labels):
            (root / label).mkdir(parents=True)
            for index in range(count):
                color = (200 if number else 20 + index, 30, 20 if number else 200)
                image = Image.new("RGB", (20 + index, 24), color)
                image.save(root / label / f"{index}.{'png' if index % 2 else 'jpg'}")
        return root

    return make


@pytest.fixture(scope="session")
def convship() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in a process of its own; return its output and exit code."""

    def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "convship.cli", *map(str, arguments)]
        return subprocess.run(  # type: ignore[call-overload]
            command, capture_output=True, text=True, timeout=300, check=False, **options
        )

    return run
