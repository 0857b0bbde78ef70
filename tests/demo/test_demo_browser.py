"""The page in a real browser: boxes drawn with the mouse are answered."""

from __future__ import annotations

import shutil
from urllib.parse import urlsplit

import pytest
from PIL import Image

from lavis_dynrefer.demo.example_scenes import write_examples

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    with playwright.sync_playwright() as driver:
        # The sandbox needs rights that containers rarely have; only our own page is shown.
        running = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def tab(browser, page):
    """The open page; records the addresses it requests and its errors."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.set_default_timeout(60_000)
    tab.asked, tab.errors = [], []
    tab.on("request", lambda request: tab.asked.append(request.url))
    tab.on("websocket", lambda socket: tab.asked.append(socket.url))
    tab.on("pageerror", lambda error: tab.errors.append(str(error)))
    tab.goto(page.address)
    tab.wait_for_selector("#board canvas")
    yield tab
    tab.close()


def draw(tab, start, end):
    """Drag a box from one corner to another, in fractions of the board."""
    board = tab.locator("#board canvas").bounding_box()
    corners = [
        (board["x"] + x * board["width"], board["y"] + y * board["height"]) for x, y in (start, end)
    ]
    tab.mouse.move(*corners[0])
    tab.mouse.down()
    tab.mouse.move(*corners[1], steps=4)
    tab.mouse.up()


def test_masks_are_forgotten_with_their_image(tab):
    tab.click("[data-example='0']")
    tab.wait_for_function("document.querySelectorAll('.dr-card').length === 2")
    tab.fill("#masks textarea, #masks input", "[null, null]")

    tab.click("[data-example='2']")

    tab.wait_for_function("document.querySelector('#masks textarea, #masks input').value === ''")
    assert tab.errors == []


def test_drawn_box_gets_the_predictors_answer(tab, predictor, tmp_path):
    example = write_examples(tmp_path)[1]
    tab.click("[data-example='1']")
    tab.wait_for_function("document.querySelectorAll('.dr-card').length === 2")

    draw(tab, (0.2, 0.1), (0.45, 0.6))
    tab.click("#describe")
    tab.wait_for_function("document.querySelectorAll('.dr-card').length === 3")

    cards = tab.locator(".dr-card").all()
    boxes = [list(map(int, card.get_attribute("data-box").split(","))) for card in cards]
    expected = predictor.predict(Image.open(example.path), boxes)
    x1, y1, x2, y2 = boxes[2]
    assert (x2 - x1 > 50, y2 - y1 > 50) == (True, True)
    assert [card.locator(".dr-caption").inner_text() for card in cards] == [
        answer.caption for answer in expected
    ]
    assert {urlsplit(address).hostname for address in tab.asked if ":" in address[:6]} <= {
        "127.0.0.1",
        None,  # data: and blob:
    }
    assert tab.errors == []


def test_errors_are_shown_and_the_page_goes_on(tab):
    tab.click("#describe")
    tab.wait_for_selector(".dr-notice")
    assert "ask about the whole image" in tab.inner_text(".dr-notice")

    tab.fill("#views input", "sideways")
    tab.keyboard.press("Tab")
    tab.click("#describe-whole")
    tab.wait_for_selector(".dr-notice:has-text('views: expected one of')")

    tab.fill("#views input", "task")
    tab.keyboard.press("Tab")
    tab.click("#describe-whole")
    tab.wait_for_selector(".dr-card")
    assert tab.get_attribute(".dr-card", "data-box") == "0,0,480,360"
