"""docs/embedding.md: its steps are typed as they stand, its messages are those of the program."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest
from models_for_tests import LABELS, classifier, write_images

import convship

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/embedding.md").read_text(encoding="utf-8")

# What others say: the dynamic loader, CMake, pkg-config.
FOREIGN = (
    "error while loading shared libraries",
    "symbol lookup error",
    "Could not find a package configuration file",
    "was not found in the pkg-config search path",
)


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_four_steps_lead_from_an_empty_folder_to_an_answer(tmp_path):
    (image, *_) = write_images(tmp_path, 1)
    network, preprocess = classifier()
    convship.export_model(
        network, tmp_path / "model.pt", samples=[image], preprocess=preprocess, labels=LABELS
    )
    image.rename(tmp_path / "cat.jpg")  # what it is follows from its bytes
    (program,), (project,) = snippets("cpp"), snippets("cmake")
    (tmp_path / "app.cpp").write_text(program)
    (tmp_path / "CMakeLists.txt").write_text(project)
    result = subprocess.run(
        ["bash", "-euc", snippets("sh")[0]],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    labels = [line.split()[0] for line in result.stdout.splitlines()[-3:]]
    expected = convship.load(tmp_path / "model.pt").predict(tmp_path / "cat.jpg", top_k=3)
    assert labels == [each.label for each in expected]


def messages() -> list[str]:
    section = TEXT.split("## When something does not work")[1]
    return [
        message
        for line in section.splitlines()
        if line.startswith("**`")
        for message in re.findall(r"`([^`]+)`", line)
    ]


@pytest.fixture(scope="module")
def sources() -> str:
    """All texts of the program, with literals that are split over lines joined."""
    files = [*(ROOT / "cpp").rglob("*.cpp"), *(ROOT / "cpp").rglob("*.in")]
    files += (ROOT / "cpp/runtime").glob("*.h")
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(files))
    return re.sub(r'"\s*\n\s*"', "", text)


@pytest.mark.parametrize("message", messages())
def test_message_is_one_that_users_can_see(message, sources):
    if any(text in message for text in FOREIGN):
        return
    # Numbers, names and shapes vary, four words in a row do not.
    words = message.split()
    phrases = [" ".join(words[i : i + 4]) for i in range(len(words) - 3)]
    assert any(phrase in sources for phrase in phrases)


def test_messages_are_found():
    assert len(messages()) >= 15


def test_links_lead_somewhere():
    for link in re.findall(r"\]\((?!https?://|#)([^)]+)\)", TEXT):
        assert (ROOT / "docs" / link).exists(), link
