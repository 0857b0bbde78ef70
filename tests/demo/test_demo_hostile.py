"""What programs may send to the page instead of what it sends itself."""

from __future__ import annotations

import http.client
import io
import json
from urllib.parse import urlsplit

import pytest
from PIL import Image

from lavis_dynrefer.serve import ServeSettings

ELSEWHERE = "https://evil.example/x"


def asked(page, method, path, body=None, **headers):
    """Status and text of an answer, and where it sends the browser."""
    connection = http.client.HTTPConnection(urlsplit(page.address).netloc, timeout=60)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, named)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert answer.headers["x-content-type-options"] == "nosniff"
    return answer.status, text, answer.headers["location"]


@pytest.mark.parametrize(
    "path",
    [
        f"/gradio_api/file={ELSEWHERE}",
        "/gradio_api/file=https:%2F%2Fevil.example/x",
        "/gradio_api/file=%68ttps://evil.example/x",
        "/gradio_api/file=http:/evil.example",
        "/gradio_api/file=//evil.example/x",
        "/gradio_api/file=%5C%5Cevil.example%5Cshare%5Cx",
        "/gradio_api/file=",
        "/gradio_api/file=%00",
        "/gradio_api/file=/etc/hostname",
        "/%67radio_api/file=https://evil.example/x",
        f"/gradio_api//file={ELSEWHERE}",
        f"/gradio_api/file/{ELSEWHERE}",
        "/gradio_api/file/etc/hostname",
        f"/file={ELSEWHERE}",
        f"/gradio_api/proxy={ELSEWHERE}",
        f"/proxy={ELSEWHERE}",
        "//evil.example/",
        "/%5Cevil.example/",
        "/gradio_api/custom_component/x/client/component/a.js",
        "/static/..%2f..%2f..%2fetc/hostname",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_no_address_leads_elsewhere(page, method, path):
    status, text, location = asked(page, method, path)
    assert (status in (403, 404, 405), location) == (True, None)
    assert "root:" not in text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/gradio_api/info"),
        ("GET", "/gradio_api/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/monitoring"),
        ("GET", "/gradio_api/deep_link?session_hash=x"),
        ("POST", "/gradio_api/call/boxes"),
        ("POST", "/gradio_api/run/predict"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/process_recording"),
        ("POST", "/"),
        ("PUT", "/"),
        ("OPTIONS", "/gradio_api/queue/join"),
    ],
)
def test_there_is_no_api(page, method, path):
    status, text, _ = asked(page, method, path, content_type="application/json")
    assert status == 404
    assert "no API for programs; dynrefer serve has one" in text


def test_pages_of_other_sites_may_not_ask(page):
    for path in ("queue/join", "upload"):
        status, text, _ = asked(page, "POST", f"/gradio_api/{path}", sec_fetch_site="cross-site")
        assert (status, "another site" in text) == (403, True)
    assert asked(page, "GET", "/", sec_fetch_site="cross-site")[0] == 200  # a link to the page


def test_large_question_is_refused_before_it_is_read_to_its_end(page):
    status, text, _ = asked(page, "POST", "/gradio_api/queue/join", b"[" + b" " * 2_000_000)
    assert (status, "at most 2,000,000 bytes" in text) == (413, True)


@pytest.mark.parametrize(
    "change",
    [
        {"fn_index": 99},
        {"fn_index": None},
        {"fn_index": "0"},
        {"fn_index": True},
        {"data": None},
        {"data": []},
        {"data": {"0": "a"}},
        {"session_hash": None},
        {"session_hash": ["a"]},
        {"session_hash": "a" * 101},
        {"event_data": [1]},
        {"trigger_id": "a"},
    ],
)
def test_what_the_page_never_asks_is_refused(page, change):
    question = {"data": [None] * 6, "fn_index": 0, "session_hash": "a", **change}
    status, answer = page.post("queue/join", question)
    assert (status, answer["detail"][:28]) == (422, "expected a question of this ")
    assert page.post("queue/join", [question])[0] == 422


@pytest.fixture(scope="module")
def image(page):
    file = io.BytesIO()
    Image.new("RGB", (60, 40)).save(file, "PNG")
    return page.upload("small.png", file.getvalue())


@pytest.mark.parametrize("drawing", [7, "a.png", [], True, {"image": 7}, {"image": {"path": ""}}])
def test_what_is_no_drawing_is_refused(page, drawing):
    assert page.ask(drawing).startswith(("expected what this page sends", "this page reads"))


BOX = {"xmin": 1, "ymin": 2, "xmax": 50, "ymax": 30}
NOTICES = {
    "a number as words": ({}, {"attributes": 7}, "attributes: expected a text, got 7"),
    "a list as words": ({}, {"tags": ["red"]}, "tags: expected a text, got [&#39;red&#39;]"),
    "a list as policy": ({}, {"views": []}, "views: expected a text, got []"),
    "boxes as a mapping": ({"boxes": {"a": 1}}, {}, "expected what this page sends"),
    "a huge corner": ({"boxes": [{**BOX, "xmax": 10**400}]}, {}, "boxes: expected xmin"),
    "half a turn": ({"orientation": "x"}, {}, "expected what this page sends"),
    "a file that is gone": ({"image": "gone"}, {}, "the upload has expired"),
    "a folder as file": ({"image": "folder"}, {}, "the upload has expired"),
}


@pytest.mark.parametrize("name", list(NOTICES))
def test_invalid_values_are_named_and_leave_no_traceback(page, image, caplog, capfd, name):
    change, fields, message = NOTICES[name]
    path = image["path"]
    other = {"gone": f"{path}.gone", "folder": path.rpartition("/")[0]}
    drawing = {"image": image, "boxes": [BOX], "orientation": 0, **change}
    if isinstance(drawing["image"], str):
        drawing["image"] = {**image, "path": other[drawing["image"]]}
    assert message in page.ask(drawing, **fields)
    assert "Traceback" not in caplog.text + capfd.readouterr().err


@pytest.mark.parametrize("views", ["", None, " own "])
def test_no_policy_is_the_models_own(page, image, views):
    drawing = {"image": image, "boxes": [BOX], "orientation": 0}
    assert page.ask(drawing, views=views) == page.ask(drawing)


@pytest.mark.parametrize("chosen", [None, {}, {"example": 4}, {"example": -1}, {"example": "1"}])
def test_unknown_example_is_named(page, capfd, chosen):
    config = json.load(page.get("/config"))
    pick = next(
        one
        for one in config["dependencies"]
        if not one["inputs"] and one["targets"][0][1] == "click"
    )
    assert page.result(pick["id"], [], event_data=chosen).startswith("There is no example")
    assert "Traceback" not in capfd.readouterr().err


def test_lost_device_ends_the_answers(page, predictor, image):
    from lavis_dynrefer.demo.web_app import Answers

    def lose(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    answers = Answers(predictor, ServeSettings())
    hook = predictor.model.qformer.register_forward_pre_hook(lose)
    try:
        notice = answers.whole({"image": image})
    finally:
        hook.remove()
    assert "the device is lost (CUDA error: an illegal memory access" in notice
    assert answers.failure in answers.whole({"image": image})  # the device is not asked again
