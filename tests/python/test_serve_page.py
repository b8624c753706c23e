"""The page of convship-run serve in a real browser; `scripts/serve_page` installs what it takes."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from serve_for_tests import Server

import convship
from convship.config import TrainConfig
from convship.export import export_run
from convship.train import train

CHROMIUM = shutil.which("chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="scripts/serve_page installs it")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="scripts/serve_page wants chromium")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A network that knows digits: what is drawn must be recognised."""
    folder = tmp_path_factory.mktemp("page")
    train(TrainConfig(data="digits", model="lenet5", epochs=20, out=str(folder / "run")))
    export_run(folder / "run", folder / "digits.pt")
    return folder / "digits.pt"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as tools:
        # No sandbox: containers lack the namespaces that it is made of.
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def draw_seven(page) -> None:
    box = page.locator("#canvas").bounding_box()
    strokes = [(0.28, 0.2), (0.72, 0.2), (0.6, 0.5), (0.47, 0.82)]
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in strokes]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=8)
    page.mouse.up()


def test_drawing_a_digit_shows_its_probabilities(model, browser):
    with Server(model) as server:
        page = browser.new_page(viewport={"width": 1120, "height": 620})
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        # A breach of the Content-Security-Policy is an error of the console, too.
        page.on("console", lambda line: line.type == "error" and problems.append(line.text))
        page.goto(server.url)
        page.wait_for_selector("#card dd")
        assert convship.load(model).labels == [str(digit) for digit in range(10)]
        draw_seven(page)
        playwright.expect(page.locator("#best")).to_have_text(re.compile("^7, "))
        # Once nothing is on its way, and has moved into its place.
        playwright.expect(page.locator("#bars")).to_have_attribute("aria-busy", "false")
        page.wait_for_timeout(300)
        assert page.locator("#bars li").count() == 10
        assert page.locator("#bars li.top .name").inner_text() == "7"
        assert "Answered in" in page.locator("#latency").inner_text()
        assert (
            page.locator("#card dd.mono").inner_text()
            == (server.get("/v2/models/digits/card").json["sha256"])
        )
        if target := os.environ.get("CONVSHIP_SCREENSHOT"):
            page.screenshot(path=target)
        page.get_by_role("button", name="Clear").click()
        assert page.locator("#bars li").count() == 0
        page.close()
        assert not problems


def test_file_is_classified_and_one_that_is_no_image_explained(model, browser, tmp_path):
    with Server(model) as server:
        page = browser.new_page()
        page.goto(server.url)
        page.wait_for_selector("#card dd")
        page.locator("#file").set_input_files(
            files=[{"name": "a.png", "mimeType": "image/png", "buffer": b"no image"}]
        )
        page.wait_for_selector("#best.error")
        assert "not a JPEG or PNG image" in page.locator("#best").inner_text()
        page.close()


def test_page_asks_for_the_key(model, browser, tmp_path):
    (tmp_path / "keys").write_text("secret\n")
    with Server(model, "--api-key-file", tmp_path / "keys") as server:
        page = browser.new_page()
        page.goto(server.url)
        page.get_by_label("API key").fill("secret")
        page.get_by_label("API key").press("Enter")
        page.wait_for_selector("#card dd")
        page.close()


def test_page_fits_a_telephone(model, browser):
    with Server(model) as server:
        page = browser.new_page(viewport={"width": 360, "height": 640})
        page.goto(server.url)
        page.wait_for_selector("#card dd")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.close()
