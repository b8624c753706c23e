"""What the README tells a newcomer to type works as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from models_for_tests import write_images

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def snippet(language: str) -> str:
    """The only one in that language, or Python's first: it writes the model."""
    found = snippets(language)
    assert len(found) == (2 if language == "python" else 1)
    return found[0]


def script(name: str) -> str:
    return str(Path(sysconfig.get_path("scripts")) / name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds the two photographs that the snippets mention."""
    path = tmp_path_factory.mktemp("readme")
    for image, name in zip(write_images(path, 4)[1::2], ("cat.jpg", "dog.jpg"), strict=True):
        image.rename(path / name)
    return path


@pytest.fixture(scope="module")
def model(folder) -> Path:
    result = subprocess.run(
        [sys.executable, "-c", snippet("python")],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "label='cat'" in result.stdout
    return folder / "model.pt"


def test_fuse_snippet_reports_what_it_fused(folder):
    result = subprocess.run(
        [sys.executable, "-c", snippets("python")[1] + "assert logits.shape == (1, 10)\n"],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "features.0" in result.stdout


def test_python_and_cpp_snippets_answer_alike(folder, model):
    app = folder / "app"
    app.mkdir()
    (app / "app.cpp").write_text(snippet("cpp"))
    (app / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\nproject(app CXX)\nadd_executable(app app.cpp)\n"
        + snippet("cmake")
    )
    cmake_dir = subprocess.run(
        [script("convship"), "sdk", "--cmake-dir"], check=True, capture_output=True, text=True
    ).stdout.strip()
    for command in (
        ["cmake", "-B", "build", f"-Dconvship_DIR={cmake_dir}"],
        ["cmake", "--build", "build"],
    ):
        subprocess.run(command, cwd=app, check=True, capture_output=True)
    native = subprocess.run(
        [app / "build/app", model, folder / "cat.jpg"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    import convship

    expected = convship.load(model).predict(folder / "cat.jpg", top_k=3)
    assert [line.split()[0] for line in native] == [p.label for p in expected]
    for line, prediction in zip(native, expected, strict=True):
        assert float(line.split()[1]) == pytest.approx(prediction.probability, rel=1e-5)


def test_commands_exist():
    lines = re.findall(r"^    (convship(?:-run)?) +(\w+)", README, re.MULTILINE)
    assert len(lines) >= 7
    for program, verb in lines:
        result = subprocess.run(
            [script(program), verb, "--help"], capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, (program, verb, result.stderr)


def test_linked_files_exist():
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
