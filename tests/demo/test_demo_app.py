"""The running page without a browser: answers, and what a visitor must not get."""

from __future__ import annotations

import io
import json
import re
import urllib.error

import pytest
from PIL import Image

from lavis_dynrefer.synthetic import make_scene, render

FIELDS = ("", "", "", "", "own")
BOX = {"xmin": 98, "ymin": 50, "xmax": 237, "ymax": 180, "color": "rgb(255, 168, 77)"}
FILE = {"_type": "gradio.FileData"}


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_an_answer_is_that_of_the_predictor(page, predictor):
    scene = render(make_scene(0, 2_000_001))
    asked = {"tags": ["flower", "mug"], "controls": ["red"], "views": "task"}
    (expected,) = predictor.predict(scene, [[98, 50, 237, 180]], **asked)
    image = page.upload("scene.png", png(scene))

    drawing = {"image": image, "boxes": [BOX], "orientation": 0}
    html = page.ask(drawing, "", "", "flower, mug", "red", "task")

    assert re.search(r'class="dr-caption"><bdi>(.*?)</bdi>', html)[1] == expected.caption
    assert f"probability {expected.caption_score:.2f}" in html
    assert [name for name, _ in expected.tags] == ["flower"]
    found = re.search(r"<h4>Tags</h4>(.*?)</ul>", html)[1]
    assert re.findall(r"<bdi>(.*?)</bdi>", found) == ["flower"]


def test_a_mistake_becomes_a_notice_and_the_page_goes_on(page):
    image = page.upload("large.png", png(Image.new("RGB", (1100, 1000))))

    notice = page.ask({"image": image, "boxes": [BOX]}, *FIELDS)

    assert "at most 1,000,000 pixels, got 1100 x 1000" in notice
    assert "There is no image yet" in page.ask(None, *FIELDS)


@pytest.mark.parametrize("path", ["http://example.com/a.png", "/etc/hostname", "../../README.md"])
def test_a_file_that_nobody_uploaded_is_not_read(page, path):
    drawing = {"image": {"path": path, "meta": FILE}, "boxes": [BOX]}

    assert "nothing but what is uploaded" in page.ask(drawing, *FIELDS)


def test_no_other_field_takes_an_address(page):
    address = {"path": "http://example.com/a.png", "meta": FILE}

    assert "nothing but what is uploaded" in page.ask(None, address, "", "", "", "own")


def test_files_of_the_machine_are_not_served(page):
    with pytest.raises(urllib.error.HTTPError, match="403"):
        page.get("/gradio_api/file=/etc/hostname")


def test_a_file_of_too_many_bytes_is_refused(page):
    with pytest.raises(urllib.error.HTTPError, match="413"):
        page.upload("huge.png", b"x" * 2_000_001)


def test_browsers_are_told_to_load_nothing_from_elsewhere(page):
    with page.get("/") as answer:
        policy = answer.headers["content-security-policy"]
        html = answer.read().decode()

    assert policy.startswith("default-src 'self'; ")
    assert "http" not in policy
    named = re.findall(r'<(?:script|link)\b[^>]+?(?:src|href)="((?:https?:)?//[^"]*)"', html)
    assert [address for address in named if not address.startswith(page.address + "/")] == []


def test_nothing_is_counted_by_the_makers_of_the_page(page):
    with page.get("/config") as answer:
        assert json.load(answer)["analytics_enabled"] is False
