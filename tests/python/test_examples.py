"""cpp/examples: what each README tells to type is typed here, and the answers are checked."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from models_for_tests import LABELS, classifier, write_images
from PIL import Image

import convship
from convship.config import TrainConfig
from convship.export import export_run
from convship.train import train

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "cpp/examples"
IMAGES = ("cat.jpg", "dog.png")


def commands(example: str) -> str:
    """The block of commands in the README."""
    text = (EXAMPLES / example / "README.md").read_text(encoding="utf-8")
    return "\n".join(re.findall(r"^    (.*)$", text, re.MULTILINE))


def type_in(folder: Path, script: str) -> str:
    """Run commands as a person would, with this environment's programs first."""
    path = f"{sysconfig.get_path('scripts')}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def classified(tmp_path_factory):
    """A folder with a model and two photographs, and what `convship.load` says of them."""
    folder = tmp_path_factory.mktemp("examples")
    written = write_images(folder, 2)
    for path, name in zip(sorted(written, key=lambda each: each.suffix), IMAGES, strict=True):
        path.rename(folder / name)
    network, preprocess = classifier()
    convship.export_model(
        network,
        folder / "model.pt",
        samples=[folder / IMAGES[0]],
        preprocess=preprocess,
        labels=LABELS,
    )
    model = convship.load(folder / "model.pt")
    return folder, {name: model.predict(folder / name)[0] for name in IMAGES}


def copy_of(example: str, classified) -> Path:
    source, _ = classified
    folder = source / example
    shutil.copytree(EXAMPLES / example, folder)
    for name in ("model.pt", *IMAGES):
        shutil.copy(source / name, folder)
    return folder


@pytest.mark.parametrize("example", ["cpp", "c", "python-ctypes", "rust"])
def test_classifier_says_what_python_says(example, classified):
    if example == "rust" and shutil.which("rustc") is None:
        pytest.skip("rustc is not installed (apt-get install rustc)")
    folder = copy_of(example, classified)
    answers = type_in(folder, commands(example)).splitlines()[-len(IMAGES) :]
    for name, line in zip(IMAGES, answers, strict=True):
        expected = classified[1][name]
        image, label, probability = line.split()
        assert (image, label) == (f"{name}:", expected.label)
        assert float(probability) == pytest.approx(expected.probability, abs=1e-4)


def test_child_answers_line_by_line(classified):
    folder = copy_of("child", classified)
    lines = type_in(folder, commands("child")).splitlines()
    for name, line in zip(IMAGES, lines, strict=True):
        best = json.loads(line)["predictions"][0]
        assert best["label"] == classified[1][name].label
    missing = '! ./classify "$(command -v convship-run)" model.pt none.jpg'
    assert "error" in json.loads(type_in(folder, missing))


@pytest.mark.parametrize("example", ["c", "cpp"])
def test_errors_leave_with_the_status_as_exit_code(example, classified):
    program = next((classified[0] / example).rglob("classify"))
    for arguments, code, message in [
        (["none.pt", "x.jpg"], 3, "none.pt: no such model file"),
        (["model.pt", "none.jpg"], 4, "none.jpg: cannot read the file"),
    ]:
        result = subprocess.run(
            [program, *arguments], cwd=classified[0], capture_output=True, text=True, check=False
        )
        assert result.returncode == code
        assert result.stderr.startswith(f"classify: {message}")


def test_segmentation_paints_the_classes(tmp_path):
    folder = tmp_path / "segmentation"
    shutil.copytree(EXAMPLES / "segmentation", folder)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "image.ppm")
    assert "scores float32" in type_in(folder, commands("segmentation"))
    sys.path.insert(0, str(folder))
    try:
        from export import Segment
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("export", None)
    with torch.no_grad():
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
        expected = Segment()(image)["classes"][0].numpy()
    mask = np.asarray(Image.open(folder / "mask.pgm")) // 100
    assert (mask == expected).mean() > 0.999  # equal scores may fall either way
    assert set(np.unique(mask)) == {0, 1, 2}


def test_two_inputs_are_compared_in_batches(tmp_path):
    folder = tmp_path / "two-inputs"
    shutil.copytree(EXAMPLES / "two-inputs", folder)
    alike = [float(line) for line in type_in(folder, commands("two-inputs")).splitlines()[-4:]]
    assert alike[0] == alike[1] == pytest.approx(1, abs=1e-4)
    assert all(-1 <= each < 0.999 for each in alike[2:])


# ---- The desktop app


@pytest.fixture(scope="module")
def display():
    """A screen that nobody sees."""
    for program in ("Xvfb", "xdotool"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (apt-get install xvfb xdotool)")
    reader, writer = os.pipe()
    with subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", "800x600x24", "-nolisten", "tcp"],
        pass_fds=[writer],
        stderr=subprocess.DEVNULL,
    ) as server:
        os.close(writer)
        with os.fdopen(reader) as number:
            yield f":{number.readline().strip()}"
        server.terminate()


@pytest.fixture(scope="module")
def desktop(tmp_path_factory):
    """The app, built as its README says, and a model of digits."""
    if not Path("/usr/include/SDL2/SDL.h").exists():
        pytest.skip("SDL2 is not installed (apt-get install libsdl2-dev)")
    folder = tmp_path_factory.mktemp("desktop") / "desktop"
    shutil.copytree(EXAMPLES / "desktop", folder)
    build = [line for line in commands("desktop").splitlines() if line.startswith("cmake")]
    type_in(folder, "\n".join(build))
    train(TrainConfig(data="digits", model="lenet5", out=str(folder / "run"), epochs=8, workers=0))
    export_run(folder / "run", folder / "digits.pt")
    return folder


@contextmanager
def stopped_at_the_end(app: subprocess.Popen[str]) -> Iterator[None]:
    """A check that fails must not wait for a window that nobody closes."""
    try:
        yield
    finally:
        app.kill()


# Strokes as a hand would draw them; the canvas is 280 pixels wide and high.
STROKES = {
    "0": "140,60 95,90 85,140 95,190 140,220 185,190 195,140 185,90 140,60",
    "7": "85,65 195,65 165,130 130,215",
}


def test_drawn_digits_are_recognised_live(desktop, display):
    environment = {**os.environ, "DISPLAY": display}

    def xdotool(*arguments: object) -> str:
        return subprocess.run(
            ["xdotool", *map(str, arguments)],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    picture = desktop / "screen.bmp"
    with (
        subprocess.Popen(
            [desktop / "build/draw", desktop / "digits.pt", "--screenshot", picture],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        ) as app,
        stopped_at_the_end(app),
    ):
        window = xdotool("search", "--sync", "--name", "draw a digit").split()[0]
        for digit, stroke in STROKES.items():
            points = [tuple(map(int, point.split(","))) for point in stroke.split()]
            xdotool("key", "--window", window, "BackSpace")
            xdotool("mousemove", "--window", window, *points[0], "mousedown", 1)
            for (x0, y0), (x1, y1) in pairwise(points):
                for part in (0.5, 1):
                    x, y = round(x0 + (x1 - x0) * part), round(y0 + (y1 - y0) * part)
                    xdotool("mousemove", "--window", window, x, y)
                    time.sleep(0.02)
            xdotool("mouseup", 1)
            xdotool("key", "--window", window, "s")
            assert app.stdout.readline().strip() == digit
        xdotool("keydown", "--window", window, "Escape")  # the window is gone before the keyup
        assert app.wait(timeout=30) == 0
    screen = np.asarray(Image.open(picture).convert("RGB"))
    assert screen.shape == (280, 540, 3)
    assert (screen[:, :280] == 255).all(axis=2).sum() > 2000, "white ink on the canvas"
    assert (screen[:, 280:] == (40, 110, 220)).all(axis=2).sum() > 500, "a bar for the best digit"
    if target := os.environ.get("CONVSHIP_SCREENSHOT"):  # docs/images/draw-a-digit.png
        Image.fromarray(screen).save(target)


def test_every_example_has_a_short_readme_and_is_tested():
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    tested = {"cpp", "c", "python-ctypes", "rust", "child", "segmentation", "two-inputs", "desktop"}
    assert folders == tested
    for name in folders:
        lines = (EXAMPLES / name / "README.md").read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 12, name
