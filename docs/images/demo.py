"""Makes the image of docs/demo.md again, by `python docs/images/demo.py`.

Needs the extra `demo`, playwright and Chromium.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

IMAGE = Path(__file__).with_name("demo.jpg")
BOX = ((0.2, 0.1), (0.45, 0.6))  # drawn beside the two of the example, in shares of the board


def main() -> None:
    """Start the page, draw a box on it, keep what it shows."""
    command = [sys.executable, "-m", "lavis_dynrefer.cli", "demo", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as page:
        try:
            address = next(
                found[0] for line in page.stdout if (found := re.search(r"http://\S+:\d+", line))
            )
            with sync_playwright() as driver:
                browser = driver.chromium.launch(
                    executable_path=shutil.which("chromium"), args=["--no-sandbox"]
                )
                shoot(browser.new_page(viewport={"width": 1280, "height": 903}), address)
        finally:
            page.terminate()
    shot = IMAGE.with_suffix(".png")
    Image.open(shot).convert("RGB").resize((1100, 776)).save(IMAGE, quality=80, optimize=True)
    shot.unlink()


def shoot(tab: Page, address: str) -> None:
    """Ask about the boxes of an example and one more."""
    tab.set_default_timeout(60_000)
    tab.goto(address)
    tab.wait_for_selector("#board canvas")
    tab.click("[data-example='1']")
    tab.wait_for_function("document.querySelectorAll('.dr-card').length === 2")
    board = tab.locator("#board canvas").bounding_box()
    for (x, y), press in zip(BOX, (tab.mouse.down, tab.mouse.up)):
        tab.mouse.move(board["x"] + x * board["width"], board["y"] + y * board["height"])
        press()
    tab.click("#describe")
    tab.wait_for_function("document.querySelectorAll('.dr-card').length === 3")
    tab.wait_for_timeout(1000)  # images of the views
    tab.screenshot(path=IMAGE.with_suffix(".png"))


if __name__ == "__main__":
    main()
