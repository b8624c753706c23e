"""The repository keeps its own rules: layers, headers, versions, examples, checkers."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import metadata, util
from pathlib import Path

import pytest

import convship
from convship.verify import native_program

ROOT = Path(__file__).parents[2]
PACKAGE = Path(convship.__file__).parent
CPP_FILES = sorted(
    path
    for folder in ("cpp", "tests/cpp", "tests/fuzz")
    for path in (ROOT / folder).rglob("*.[ch]*")
    if path.suffix in (".c", ".cpp", ".h")
)
LIBRARIES = [*sorted((PACKAGE / "lib").glob("*.so*")), native_program()]


def output_of(*command: object) -> str:
    return subprocess.run(
        list(map(str, command)), check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout


def included(path: Path) -> list[str]:
    return re.findall(r'#include [<"]([^>"]+)[>"]', path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("cpp/kernels", r"ATen|torch|c10|Python|pybind11"),
        ("cpp/images", r"ATen|torch|c10|Python|pybind11"),
        ("cpp/ops", r"torch/csrc/(autograd/python|utils/pybind)|Python|pybind11|runtime"),
        ("cpp/runtime", r"Python|pybind11"),
        ("cpp/serve", r"ATen|torch|c10|Python|pybind11|runtime/|images/|apps/|CLI"),
        ("cpp/apps", r"ATen|torch|c10|Python|pybind11|runtime/|images/"),
        ("cpp/examples", r"ATen|torch|c10|Python|pybind11|runtime/|images/"),
    ],
)
def test_includes_point_down_only(folder, forbidden):
    files = [path for path in CPP_FILES if path.is_relative_to(ROOT / folder)]
    assert files
    wrong = [
        (path.name, header)
        for path in files
        for header in included(path)
        if re.match(forbidden, header)
    ]
    assert not wrong


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name)
def test_native_files_need_no_python_and_find_their_neighbours(library):
    dynamic = output_of("readelf", "-d", library)
    needed = re.findall(r"NEEDED.*\[(.*)\]", dynamic)
    assert not [name for name in needed if "python" in name]
    (runpath,) = re.findall(r"RUNPATH.*\[(.*)\]", dynamic)
    assert all(part.startswith("$ORIGIN") for part in runpath.split(":"))


def exported(library: Path) -> list[str]:
    """Demangled names, without what depends on the compiler's inline namespaces."""
    symbols = output_of("nm", "-DC", "--defined-only", library)
    names = {line.split(" ", 2)[2] for line in symbols.splitlines()}
    return sorted(re.sub(r"\[abi:cxx11\]|(?<=::)__cxx11::", "", name) for name in names)


def test_runtime_exports_what_the_list_allows():
    """A symbol more is a promise nobody meant to give; one less breaks programs."""
    allowed = (Path(__file__).parent / "exported_symbols.txt").read_text(encoding="utf-8")
    assert exported(PACKAGE / "lib/libconvship.so.0") == sorted(allowed.splitlines())


def test_c_header_declares_what_is_exported():
    header = (ROOT / "cpp/include/convship/convship.h").read_text(encoding="utf-8")
    declared = re.findall(r"CONVSHIP_API [\w* ]+?[ *](convship_\w+)\(", header)
    names = exported(PACKAGE / "lib/libconvship.so.0")
    assert sorted(declared) == [name for name in names if name.startswith("convship_")]


@pytest.mark.parametrize("library", ["libconvship.so.0", "libconvship_ops.so.0"])
def test_libraries_have_a_versioned_soname(library):
    dynamic = output_of("readelf", "-d", PACKAGE / "lib" / library)
    assert re.findall(r"SONAME.*\[(.*)\]", dynamic) == [library]


@pytest.mark.parametrize("header", sorted((ROOT / "cpp/include/convship").glob("*.h")))
def test_public_header_compiles_alone(header, tmp_path):
    source = tmp_path / "alone.cpp"
    source.write_text(f'#include "convship/{header.name}"\n')
    torch_dir = Path(util.find_spec("torch").origin).parent / "include"
    uses_torch = any(name.startswith(("ATen", "torch", "c10")) for name in included(header))
    output_of(
        "g++",
        "-std=c++20",
        "-fsyntax-only",
        "-Wall",
        "-Wextra",
        "-Werror",
        f"-I{PACKAGE / 'include'}",
        # model.h and its kind must do without LibTorch's headers.
        *([f"-isystem{torch_dir}"] if uses_torch else []),
        source,
    )
    assert uses_torch == (header.name == "ops.h")


def test_c_header_is_c11(tmp_path):
    source = tmp_path / "alone.c"
    source.write_text('#include "convship/convship.h"\nint main(void) { return 0; }\n')
    flags = ("-std=c11", "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
    output_of("gcc", *flags, f"-I{PACKAGE / 'include'}", source)


def test_versions_agree():
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    (written,) = re.findall(r"project\(convship VERSION ([0-9.]+)", cmake)
    assert convship.__version__ == written == convship._library.load().build_info()["version"]
    assert f"## {written}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    major, minor = re.match(r"(\d+)\.(\d+)", metadata.version("torch")).groups()
    assert f"torch=={major}.{minor}.*" in metadata.requires("convship")


def public_functions() -> list[tuple[str, ast.FunctionDef]]:
    """Functions that a module lists in __all__; modules without one are internal."""
    found = []
    for path in sorted((ROOT / "python/convship").rglob("[!_]*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        public = [
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
        ]
        found += [
            (f"{path.stem}.{node.name}", node)
            for node in tree.body
            if isinstance(node, ast.FunctionDef) and public and node.name in public[0]
        ]
    # The command line's docstrings are its help texts.
    return [(name, node) for name, node in found if not name.startswith("cli.")]


def test_public_functions_are_found():
    assert {"export.export_model", "verify.verify_model", "train.train", "data.load_data"} <= {
        name for name, _ in public_functions()
    }


@pytest.mark.parametrize(("name", "function"), public_functions())
def test_public_function_has_a_docstring_with_an_example(name, function):
    docstring = ast.get_docstring(function)
    assert docstring, f"{name} has no docstring"
    assert ">>>" in docstring, f"{name} has no example"


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "ruff", "check", "."),
        ("-m", "ruff", "format", "--check", "."),
        ("-m", "mypy"),
    ],
    ids=lambda command: " ".join(command[1:3]),
)
def test_checker_is_clean(command):
    result = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_cpp_is_formatted():
    result = subprocess.run(
        [
            Path(sys.executable).parent / "clang-format",
            "--dry-run",
            "--Werror",
            *map(str, CPP_FILES),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]


def test_every_seeded_fault_has_one_place():
    # The script itself runs for an hour; a place that moved would be noticed only then.
    spec = util.spec_from_file_location("seeded_faults", ROOT / "scripts/seeded_faults.py")
    script = util.module_from_spec(spec)
    sys.modules["seeded_faults"] = script
    spec.loader.exec_module(script)
    for fault in script.FAULTS:
        assert (ROOT / fault.file).read_text(encoding="utf-8").count(fault.right) == 1, fault.what
