"""The running page without a browser: its answers, and what it must refuse."""

from __future__ import annotations

import io
import json
import os
import re
import urllib.error

import pytest
from PIL import Image

from lavis_dynrefer.synthetic import make_scene, render

BOX = {"xmin": 98, "ymin": 50, "xmax": 237, "ymax": 180, "color": "rgb(255, 168, 77)"}
FILE = {"_type": "gradio.FileData"}


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_answer_equals_the_predictors(page, predictor):
    scene = render(make_scene(0, 2_000_001))
    asked = {"tags": ["flower", "mug"], "controls": ["red"], "views": "task"}
    (expected,) = predictor.predict(scene, [[98, 50, 237, 180]], **asked)
    image = page.upload("scene.png", png(scene))

    drawing = {"image": image, "boxes": [BOX], "orientation": 0}
    html = page.ask(drawing, tags="flower, mug", controls="red", views="task")

    assert re.search(r'class="dr-caption"><bdi>(.*?)</bdi>', html)[1] == expected.caption
    assert f"probability {expected.caption_score:.2f}" in html
    assert [name for name, _ in expected.tags] == ["flower"]
    found = re.search(r"<h4>Tags</h4>(.*?)</ul>", html)[1]
    assert re.findall(r"<bdi>(.*?)</bdi>", found) == ["flower"]


@pytest.mark.parametrize("boxes", [[], [BOX]])
def test_masks_are_used_as_the_predictor_uses_them(page, predictor, boxes):
    scene = render(make_scene(0, 2_000_001))
    half = [[98, 50, 237, 50, 98, 180]]
    box = [[98, 50, 237, 180]] if boxes else None
    (expected,) = predictor.predict(scene, box, masks=[half])
    (by_box,) = predictor.predict(scene, [[98, 50, 237, 180]])
    drawing = {"image": page.upload("scene.png", png(scene)), "boxes": boxes, "orientation": 0}

    html = page.ask(drawing, masks=json.dumps([half]), masks_as="own")

    assert expected.caption_score != by_box.caption_score
    assert re.search(r'class="dr-caption"><bdi>(.*?)</bdi>', html)[1] == expected.caption
    assert f"probability {expected.caption_score:.2f} · its mask was used" in html
    assert html.count('class="dr-beside" d="M') == 2  # views
    assert "its mask" not in page.ask(drawing, masks=json.dumps([half]), masks_as="box")


def test_masks_that_do_not_fit_are_a_notice(page):
    image = page.upload("scene.png", png(render(make_scene(0, 2_000_001))))

    assert "masks: " in page.ask({"image": image, "boxes": [BOX]}, masks="[null, null]")
    assert "No answer" in page.ask({"image": image, "boxes": []}, masks="[[0, 1")


def test_errors_are_shown_as_a_notice_and_the_page_goes_on(page):
    image = page.upload("large.png", png(Image.new("RGB", (1100, 1000))))

    notice = page.ask({"image": image, "boxes": [BOX]})

    assert "at most 1,000,000 pixels, got 1100 x 1000" in notice
    assert "There is no image yet" in page.ask(None)


def test_regions_are_encoded_again_only_for_other_boxes_or_views(page, predictor, monkeypatch):
    encoded = []
    encode = predictor.answerer.encode

    def counted(sample):
        encoded.append(len(sample["views"]))
        return encode(sample)

    monkeypatch.setattr(predictor.answerer, "encode", counted)
    image = page.upload("scene.png", png(render(make_scene(0, 2_000_004))))
    drawing = {"image": image, "boxes": [BOX], "orientation": 0}

    first = page.ask(drawing)
    assert "teapot" not in first
    assert "teapot" in page.ask(drawing, categories="teapot, tree")
    assert page.ask(drawing) == first
    assert encoded == [1]

    page.ask({**drawing, "boxes": [BOX, BOX]})
    page.ask(drawing, views="task")
    page.ask({**drawing, "orientation": 2})
    assert encoded == [1, 2, 1, 1]


FOREIGN = (
    "http://example.com/a.png",
    "/etc/hostname",
    "../../README.md",
    "http://example.com/../../../../../../../../{uploads}/a.png",
    "{uploads}/../../etc/hostname",
    "/etc/\0",
    7,
)


@pytest.mark.parametrize("path", FOREIGN)
def test_files_that_nobody_uploaded_are_not_read(page, path):
    if isinstance(path, str):
        path = path.replace("{uploads}", os.environ["GRADIO_TEMP_DIR"])
    drawing = {"image": {"path": path, "meta": FILE}, "boxes": [BOX]}

    assert "only what is uploaded" in page.ask(drawing)


def test_no_other_field_takes_a_url(page):
    url = {"path": "http://example.com/a.png", "meta": FILE}

    assert "only what is uploaded" in page.ask(None, attributes=url)
    assert "only what is uploaded" in page.ask(None, attributes=[[{"x": url}]])


@pytest.mark.parametrize("body", [b"", b"path=/etc/hostname", b"[" * 100_000, b"\xff"])
def test_bodies_that_are_not_json_are_refused(page, body):
    assert page.post("queue/join", body)[0] == 403


def test_files_of_the_machine_are_not_served(page):
    with pytest.raises(urllib.error.HTTPError, match="403"):
        page.get("/gradio_api/file=/etc/hostname")


def test_file_with_too_many_bytes_is_refused(page):
    with pytest.raises(urllib.error.HTTPError, match="413"):
        page.upload("huge.png", b"x" * 2_000_001)


def test_browsers_may_load_nothing_from_other_servers(page):
    with page.get("/") as answer:
        policy = answer.headers["content-security-policy"]
        html = answer.read().decode()

    assert policy.startswith("default-src 'self'; ")
    assert "http" not in policy
    named = re.findall(r'<(?:script|link)\b[^>]+?(?:src|href)="((?:https?:)?//[^"]*)"', html)
    assert [address for address in named if not address.startswith(page.address + "/")] == []


def test_analytics_are_off(page):
    with page.get("/config") as answer:
        assert json.load(answer)["analytics_enabled"] is False
