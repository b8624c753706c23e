"""The wheel as an SDK: what CMake and pkg-config find, and what they say when they cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib import util
from pathlib import Path

import pytest
import torch

import convship

PACKAGE = Path(convship.__file__).parent

USE_OPS = """
#include <ATen/Functions.h>
#include <convship/ops.h>

#include <iostream>

int main() {
  const auto y = convship::ops::conv_pool2d(at::ones({1, 1, 4, 4}), at::ones({1, 1, 3, 3}));
  std::cout << y.item<float>() << '\\n';
}
"""

CMAKE = """
cmake_minimum_required(VERSION 3.25)
project(app {language})
find_package(convship CONFIG REQUIRED COMPONENTS {components})
{rest}
"""


def cmake(folder: Path, package: Path, components: str, rest: str = "", language: str = "CXX"):
    folder.mkdir(exist_ok=True)
    (folder / "CMakeLists.txt").write_text(
        CMAKE.format(components=components, rest=rest, language=language)
    )
    return subprocess.run(
        [
            *("cmake", "-B", folder / "build", "-S", folder),
            f"-Dconvship_DIR={package / 'lib/cmake/convship'}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def message_of(result: subprocess.CompletedProcess[str]) -> str:
    return " ".join(result.stderr.split())


@pytest.fixture
def moved(tmp_path):
    """A copy of the package with no torch beside it."""
    copy = tmp_path / "site/convship"
    shutil.copytree(PACKAGE / "lib", copy / "lib")
    shutil.copytree(PACKAGE / "include", copy / "include")
    return copy


def fake_torch(beside: Path, version: str) -> None:
    names = ("MAJOR", "MINOR", "PATCH")
    lines = [
        f"#define TORCH_VERSION_{name} {number}\n"
        for name, number in zip(names, version.split("."), strict=True)
    ]
    header = beside.parent / "torch/include/torch/headeronly/version.h"
    header.parent.mkdir(parents=True)
    header.write_text("".join(lines))
    (beside.parent / "torch/lib").mkdir()
    (beside.parent / "torch/lib/libtorch_cpu.so").touch()


def test_ops_component_compiles_against_libtorch_and_runs(tmp_path):
    rest = (
        "add_executable(app app.cpp)\n"
        "target_link_libraries(app PRIVATE convship::ops)\n"
        'message(STATUS "torch ${convship_LIBTORCH_VERSION}")\n'
    )
    (tmp_path / "app.cpp").write_text(USE_OPS)
    configured = cmake(tmp_path, PACKAGE, "ops", rest)
    assert configured.returncode == 0, configured.stderr
    assert f"torch {torch.__version__.split('+')[0]}" in configured.stdout
    subprocess.run(["cmake", "--build", tmp_path / "build"], check=True, capture_output=True)
    result = subprocess.run([tmp_path / "build/app"], check=True, capture_output=True, text=True)
    assert result.stdout == "9\n"


def test_program_in_c_needs_no_cpp_compiler(tmp_path):
    (tmp_path / "app.c").write_text(
        "#include <convship/convship.h>\nint main(void) { return convship_threads() < 1; }\n"
    )
    rest = "add_executable(app app.c)\ntarget_link_libraries(app PRIVATE convship::runtime)\n"
    configured = cmake(tmp_path, PACKAGE, "runtime", rest, language="C")
    assert configured.returncode == 0, configured.stderr
    subprocess.run(["cmake", "--build", tmp_path / "build"], check=True, capture_output=True)
    subprocess.run([tmp_path / "build/app"], check=True)


def test_missing_libtorch_is_explained(tmp_path, moved):
    result = cmake(tmp_path / "app", moved, "runtime")
    assert result.returncode != 0
    assert "LibTorch is missing: libtorch_cpu.so is in none of" in message_of(result)
    minor = ".".join(torch.__version__.split(".")[:2])
    assert f'pip install "torch=={minor}.*"' in message_of(result)


def test_other_libtorch_is_explained(tmp_path, moved):
    fake_torch(moved, "1.2.3")
    result = cmake(tmp_path / "app", moved, "runtime")
    assert result.returncode != 0
    assert "the versions of LibTorch differ: convship was built for" in message_of(result)
    assert "holds 1.2.3" in message_of(result)


def test_ops_without_headers_are_explained(tmp_path, moved):
    fake_torch(moved, torch.__version__.split("+")[0])
    assert cmake(tmp_path / "one", moved, "runtime").returncode == 0
    result = cmake(tmp_path / "two", moved, "ops")
    assert result.returncode != 0
    assert "the component ops needs LibTorch's headers" in message_of(result)


def test_unknown_component_fails(tmp_path):
    assert cmake(tmp_path, PACKAGE, "training").returncode != 0


def test_sdk_prints_folders(convship):
    cmake_dir = Path(convship("sdk", "--cmake-dir").stdout.strip())
    assert (cmake_dir / "convshipConfig.cmake").exists()
    pkg_config_dir = Path(convship("sdk", "--pkg-config-dir").stdout.strip())
    assert (pkg_config_dir / "convship.pc").exists()
    both = convship("sdk", "--cmake-dir", "--pkg-config-dir")
    assert both.returncode == 2
    assert "exclude each other" in both.stderr


def test_pkg_config_knows_the_version():
    result = subprocess.run(
        ["pkg-config", "--modversion", "convship"],
        env={**os.environ, "PKG_CONFIG_PATH": str(PACKAGE / "lib/pkgconfig")},
        check=True,
        capture_output=True,
        text=True,
    )
    assert result.stdout.strip() == convship.__version__


def test_installed_files_do_not_lead_out_of_the_environment():
    spec = util.find_spec("convship")
    assert spec is not None
    config = (PACKAGE / "lib/cmake/convship/convshipConfig.cmake").read_text()
    assert 'set(_convship_built_with "")' in config
