"""What a wheel requires, and what an installation says when something is missing."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def requirement():
    path = ROOT / "scripts/torch_requirement.py"
    spec = importlib.util.spec_from_file_location("torch_requirement", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def installed(version):
    def lookup(name):
        assert name == "torch"
        if version is None:
            raise PackageNotFoundError
        return version

    return lookup


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("2.13.0+cpu", "torch==2.13.*"),
        ("2.11.2", "torch==2.11.*"),
        ("3.0.0", "torch==3.0.*"),
        (None, "torch>=2.11"),
    ],
)
def test_wheel_requires_the_minor_version_it_was_built_for(
    requirement, monkeypatch, version, expected
):
    monkeypatch.setattr(requirement, "version", installed(version))
    assert requirement.dynamic_metadata({}, {}) == {"dependencies": [expected]}


def test_older_torch_fails(requirement, monkeypatch):
    monkeypatch.setattr(requirement, "version", installed("2.10.1"))
    with pytest.raises(SystemExit, match=r"needs torch 2\.11 or newer to build, found 2\.10\.1"):
        requirement.dynamic_metadata({}, {})


def test_cmake_names_all_missing_libraries_in_one_line(tmp_path):
    result = subprocess.run(
        [
            *("cmake", "-S", ROOT, "-B", tmp_path),
            *(f"-DCMAKE_DISABLE_FIND_PACKAGE_{name}=ON" for name in ("JPEG", "CLI11", "doctest")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert "apt-get install -y libjpeg-dev libcli11-dev doctest-dev" in result.stderr


def test_setup_says_in_one_line_what_is_too_old(tmp_path):
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2\nexit 1\n')
    old.chmod(0o755)
    result = subprocess.run(
        [ROOT / "scripts/setup"],
        env={**os.environ, "PYTHON": str(old)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 5
    assert result.stderr == "setup: convship needs Python 3.11 or newer, this is Python 3.9.2\n"
