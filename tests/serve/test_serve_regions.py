"""POST /v1/regions over real HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from serve_client import encoded, png

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from lavis_dynrefer.structures import RegionPrediction

CUT_OFF = png(Image.new("RGB", (40, 20)))[:60]
FEW = {"tasks": ["caption", "categories"], "categories": ["flower", "tree", "boat"]}


def answers_of(reply):
    assert reply.status == 200, reply.body
    return [RegionPrediction.from_dict(row) for row in reply.json["regions"]]


def same(found, expected):
    """Equal words; scores within what another batch size changes."""
    assert [one.caption for one in found] == [one.caption for one in expected]
    assert [one.scales for one in found] == [one.scales for one in expected]
    assert [one.box for one in found] == [one.box for one in expected]
    for ours, theirs in zip(found, expected):
        assert dict(ours.categories) == pytest.approx(dict(theirs.categories), abs=1e-4)
        assert dict(ours.attributes) == pytest.approx(dict(theirs.attributes), abs=1e-4)
        assert ours.caption_score == pytest.approx(theirs.caption_score, abs=1e-4)
    return True


def test_answers_equal_the_predictors(client, predictor, scene):
    image, boxes = scene
    reply = client.regions(image, boxes)
    assert same(answers_of(reply), predictor.predict(image, boxes))
    assert reply.json["image"] == {"width": 480, "height": 360}
    assert reply.json["model"] == "dynrefer-tiny"
    assert reply.json["batch"] == {"requests": 1, "regions": 7}
    assert min(reply.json["timings"].values()) >= 0


def test_uploaded_file_is_answered_like_one_in_the_json(client, scene, predictor):
    from_api = predictor.predict(scene[0], scene[1][:2], **FEW)
    reply = client.upload(
        png(scene[0]), {"boxes": scene[1][:2], **FEW}, name="../../etc/passwd.html"
    )
    assert same(answers_of(reply), from_api)
    both = client.upload(png(scene[0]), {"boxes": scene[1][:2], **FEW}, json_name="r.json")
    assert answers_of(both) == answers_of(reply)


def test_region_may_be_given_in_several_formats(client, scene):
    image, _ = scene
    (expected,) = answers_of(client.regions(image, [[96, 36, 192, 180]], **FEW))
    shares = [[0.2, 0.1, 0.4, 0.5]]
    polygon = [[96, 36, 192, 36, 192, 180, 96, 180]]
    pixels = np.zeros((360, 480), dtype=bool)
    pixels[36:180, 96:192] = True
    runs = np.flatnonzero(np.diff(pixels.T.ravel(), prepend=False, append=True))
    counts = np.diff(runs, prepend=0).tolist()
    replies = [
        client.regions(image, [[96, 36, 96, 144]], format="xywh", **FEW),
        client.regions(image, shares, normalised=True, **FEW),
        client.regions(image, masks=[polygon], **FEW),
        client.regions(image, masks=[{"size": [360, 480], "counts": counts}], **FEW),
    ]
    assert [answers_of(reply)[0].caption for reply in replies] == [expected.caption] * 4
    assert {answers_of(reply)[0].box for reply in replies} == {(96, 36, 192, 180)}


def test_masks_are_used_as_what_is_asked(client, predictor, scene):
    boxes, masks = [[96, 36, 192, 180], [10, 10, 60, 60]], [[[96, 36, 192, 36, 192, 180]], None]
    for use in (None, "box", "dim"):
        asked = {"masks": masks, "tasks": ["categories"], "masks_as": use}
        found = answers_of(client.regions(scene[0], boxes, **asked))
        expected = predictor.predict(scene[0], boxes, **asked)
        assert all(same([one], [other]) for one, other in zip(found, expected))


def test_words_and_views_are_passed_on(client, scene):
    reply = client.regions(
        scene[0],
        scene[1][:1],
        tasks=["attributes", "categories"],
        attributes=["wet", "nasse Straße", "مبلل"],
        categories=["花", " rüschen ", "\U0001f600"],
        controls=["rot"],
        views="fixed:0,0.5",
    )
    (answer,) = answers_of(reply)
    assert {name for name, _ in answer.attributes} == {"wet", "nasse Straße", "مبلل"}
    assert {name for name, _ in answer.categories} == {"花", "rüschen", "\U0001f600"}
    assert answer.scales == {"attributes": (0, 0.5), "categories": (0, 0.5)}
    assert answer.caption is None


def test_tags_are_passed_on(client, predictor, scene):
    image, boxes = scene[0], scene[1][:1]
    (full,) = predictor.predict(image, boxes, tasks=["tags"])
    asked = [name for name, _ in full.tags][:1]

    (answer,) = answers_of(client.regions(image, boxes, tasks=["caption", "tags"], tags=asked))

    assert [name for name, _ in answer.tags] == asked != []
    assert answer.caption == predictor.predict(image, boxes, tags=asked)[0].caption


def test_no_boxes_give_no_regions(client, small_image):
    assert answers_of(client.regions(small_image, [])) == []


def test_concurrent_requests_are_batched_and_answered_as_if_alone(serving, predictor, scene):
    image, boxes = scene
    expected = [predictor.predict(image, [box]) for box in boxes]
    with serving() as client, ThreadPoolExecutor(len(boxes)) as pool:
        with predictor.using_model():  # the server's model waits
            replies = [pool.submit(client.regions, image, [boxes[0]])]
            client.wait_for(answering=1)
            replies += [pool.submit(client.regions, image, [box]) for box in boxes[1:]]
            replies.append(pool.submit(client.regions, image, [[1, 1, 1, 400], [9, 9, 2, 2]]))
            client.wait_for(queue=len(boxes) - 1)
        answers = [reply.result() for reply in replies]
    assert answers.pop().error == "unprocessable"
    assert all(same(answers_of(one), right) for one, right in zip(answers, expected))
    assert {one.json["batch"]["requests"] for one in answers[1:]} == {len(boxes) - 1}


BOX, NAN = [[1, 2, 3, 4]], float("nan")
BAD_FIELDS = {
    "a box of nan": ({"boxes": [[1, 2, NAN, 4]]}, 422, "boxes[0][2]: expected a finite number"),
    "a box of words": ({"boxes": [[1, 2, 3, "4"]]}, 422, "expected a finite number, got '4'"),
    "a flat box": ({"boxes": [1, 2, 3, 4]}, 422, "one box is [[x1, y1, x2, y2]]"),
    "fractions": ({"boxes": [[0.1, 0.2, 0.3, 0.4]]}, 422, "pass normalised=True"),
    "many boxes": ({"boxes": BOX * 10_000}, 413, "at most 1,000 regions, got 10,000"),
    "a mask of another size": (
        {"boxes": None, "masks": [{"size": [9, 9], "counts": [0, 81]}]},
        422,
        "the mask is 9 x 9 pixels",
    ),
    "an unknown field of a mask": (
        {"boxes": None, "masks": [{"size": [20, 40], "counts": "", "count": 1}]},
        422,
        "masks[0].rle: unknown ['count']",
    ),
    "half a vertex": ({"boxes": None, "masks": [[[1, 2, 3]]]}, 422, "a polygon mask needs parts"),
    "a number as mask": (
        {"boxes": None, "masks": [7]},
        422,
        "masks[0].polygons: expected a list, got 7",
    ),
    "one letter less": ({"box": [1, 2]}, 422, "unknown ['box']; did you mean boxes?"),
    "fewer masks than boxes": (
        {"masks": []},
        422,
        "masks: expected one for each of 1 boxes, got 0",
    ),
    "a mask outside of its box": (
        {"masks": [[[30, 10, 40, 10, 40, 20]]], "boxes": [[0, 0, 9, 9]]},
        422,
        "masks: row 0: no part of the mask lies in the box",
    ),
    "an unknown use of masks": ({"masks_as": "blur"}, 422, "masks_as"),
    "another form": ({"format": "cxcywh"}, 422, "format: expected 'xyxy' or 'xywh', got 'cxcywh'"),
    "no task": ({"tasks": []}, 422, "tasks: expected at least 1 item"),
    "an unknown policy": ({"views": "best"}, 422, "'fixed', 'image', 'learned', 'random', 'task']"),
    "a policy that was not learned": ({"views": "learned"}, 422, "has no scale_prior"),
    "views of another number": ({"views": "fixed:0,0.1,0.2"}, 422, "fuses 2 views, got 3"),
    "an empty word": (
        {"categories": ["a", " "]},
        422,
        "categories[1]: expected at least 1 character",
    ),
    "no word": ({"attributes": ["wet/"]}, 422, "attribute 'wet/': expected a word"),
    "a text": ({"controls": "red"}, 422, "controls: expected a list, got 'red'"),
    "many words": (
        {"categories": [str(n) for n in range(1001)]},
        413,
        "at most 1,000 words, got 1,001",
    ),
    "many synonyms": (
        {"attributes": [f"{n}:" + "b/" * 40 + "c" for n in range(25)]},
        413,
        "1,000 words, got 1,025",
    ),
    "a repeated word": ({"categories": ["x", "x"]}, 422, "['x'] occur more than once"),
    "yes as a boolean": ({"normalised": "yes"}, 422, "normalised: expected true or false"),
    "an unknown task": ({"tasks": ["colour"]}, 422, "tasks: expected some of"),
    "a long word": ({"attributes": ["ü" * 101]}, 413, "at most 100 characters, got 101"),
    "no image": ({"image": None}, 422, "expected one image"),
    "an empty box": ({"boxes": [[]]}, 422, "expected shape (R, 4), got (1, 0)"),
    "two empty boxes": ({"boxes": [[], []]}, 422, "expected shape (R, 4), got (2, 0)"),
    "an empty box before a box": ({"boxes": [[], [1, 2, 3, 4]]}, 422, "boxes"),
    "an empty mask": ({"boxes": None, "masks": [[]]}, 422, "mask"),
    "an empty polygon": ({"boxes": None, "masks": [[[]]]}, 422, "mask"),
    "data without base64": ({"image": "data:image/png,AAAA"}, 400, "without ;base64,"),
}


@pytest.mark.parametrize("name", list(BAD_FIELDS))
def test_invalid_fields_are_named(client, small_image, name):
    fields, status, message = BAD_FIELDS[name]
    reply = client.post("/v1/regions", {"image": encoded(small_image), "boxes": BOX, **fields})
    assert reply.status == status
    assert message in reply.message


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "invalid_request"),
        (b"{", "invalid_request"),
        (b"\xff\xfe\x00", "invalid_request"),
        (b'{"image": "\\ud800"}', "invalid_request"),
        (b"[" * 200_000, "invalid_request"),
        (b"[]", "unprocessable"),
        (b"null", "unprocessable"),
    ],
)
def test_invalid_json_is_refused(client, body, kind):
    assert client.post("/v1/regions", body).error == kind


def test_null_means_the_default(client, small_image):
    nulls = dict.fromkeys(["masks", "format", "normalised", "attributes", "categories", "tags"])
    nulls.update(controls=None, tasks=None, views=None)
    assert answers_of(client.regions(small_image, BOX, **nulls)) == answers_of(
        client.regions(small_image, BOX)
    )


def test_compressed_request_is_refused(client):
    reply = client.request(
        "POST", "/v1/regions", b"x", content_type="application/json", content_encoding="gzip"
    )
    assert (reply.status, reply.error) == (415, "unsupported_media_type")
    assert "expected an uncompressed request, got 'gzip'" in reply.message


@pytest.mark.parametrize("content_type", ["text/html", "application/x-www-form-urlencoded", ""])
def test_other_content_types_are_refused(client, content_type):
    reply = client.post("/v1/regions", b"<html>", content_type)
    assert reply.error == "unsupported_media_type"
    assert "expected application/json or multipart/form-data" in reply.message


@pytest.mark.parametrize(
    ("file", "document", "kind"),
    [
        (b"<html>", {"boxes": []}, "unsupported_media_type"),
        (b"", {"boxes": []}, "unsupported_media_type"),
        (CUT_OFF, {"boxes": []}, "unprocessable"),
        (b"GIF89a", {"boxes": [], "image": "AAAA"}, "unprocessable"),
        (b"GIF89a", b"{", "invalid_request"),
        (b"GIF89a", b"\xff", "invalid_request"),
    ],
)
def test_invalid_uploads_are_refused(client, file, document, kind):
    assert client.upload(file, document).error == kind


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--x"),
        ("multipart/form-data; boundary=x", b"nothing of the kind"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="a'),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 2 + b"--x--",
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="request"\r\n\r\n{"boxes": []}\r\n'
            + b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n1\r\n' * 2
            + b"--x--",
        ),
    ],
)
def test_damaged_form_is_refused(client, content_type, body):
    assert client.post("/v1/regions", body, content_type).error in (
        "invalid_request",
        "unprocessable",
    )
