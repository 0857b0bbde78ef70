"""Clients of describe-anything's server: they work once their address is changed."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from serve_client import encoded

pytest.importorskip("fastapi", reason="needs the extra `serve`")

BOX = (98, 50, 237, 180)
THEIRS = "describe_anything_model"  # the model that their clients ask for


def masked(image, box=None, *, value=255):
    """The image with its mask in the alpha channel; no box means no mask at all."""
    alpha = Image.new("L", image.size)
    if box is not None:
        alpha.paste(value, box)
    image = image.convert("RGB")
    image.putalpha(alpha)
    return image


def asked(*images, model=THEIRS, **fields):
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded(image)}"}}
        for image in images
    ]
    parts.append({"type": "text", "text": "\nDescribe the masked region in detail."})
    options = {"max_tokens": 512, "temperature": 0.2, "top_p": 0.5, "num_beams": 1}
    return {
        "model": model,
        "messages": [{"role": "user", "content": parts}],
        **options,
        **fields,
    }


def words_of_stream(client, document, path="/chat/completions"):
    """What their client prints: the texts of all parts of all events, as they arrive."""
    connection = client.connect()
    headers = {"content-type": "application/json"}
    connection.request("POST", path, json.dumps(document), headers)
    answer = connection.getresponse()
    assert answer.status == 200
    printed = []
    for line in answer:
        payload = line.decode().strip().removeprefix("data: ")
        if payload == "[DONE]":
            connection.close()
            return printed
        if payload:
            content = json.loads(payload)["choices"][0]["delta"].get("content")
            printed += [piece["text"] for piece in content or () if piece["type"] == "text"]
    raise AssertionError("the stream has no end")


@pytest.fixture(scope="module")
def caption(predictor, scene):
    return predictor.predict(scene[0], [BOX], tasks=["caption"])[0].caption


def test_their_streaming_client_prints_the_caption(client, scene, caption):
    document = asked(masked(scene[0], BOX), stream=True)
    assert words_of_stream(client, document) == [caption]
    assert words_of_stream(client, document, "/v1/chat/completions") == [caption]


def test_their_other_clients_get_a_string(client, scene, caption):
    for model in (THEIRS, "DAM-3B", "DAM-3B-Video", "dynrefer"):
        reply = client.post("/chat/completions", asked(masked(scene[0], BOX), model=model))
        assert reply.json["choices"][0]["message"]["content"] == caption
        assert reply.json["model"] == "dynrefer-tiny"  # which has answered


def test_openais_clients_get_a_stream_of_strings(client, scene, caption):
    document = asked(masked(scene[0], BOX), model="dynrefer", stream=True)
    reply = client.post("/chat/completions", document)
    events = [json.loads(line[6:]) for line in reply.body.decode().split("\n\n")[:-2]]
    assert [event["choices"][0]["delta"].get("content") for event in events] == ["", caption, None]


@pytest.mark.parametrize("value", [1, 254, 255])
@pytest.mark.parametrize("model", [THEIRS, "dynrefer"])
def test_mask_everywhere_is_the_whole_image(client, scene, value, model):
    image = masked(scene[0], (0, 0, *scene[0].size), value=value)
    reply = client.post("/v1/chat/completions", asked(image, model=model))
    assert [row["box"] for row in reply.json["regions"]] == [[0, 0, 480, 360]]


def test_each_frame_of_a_video_gets_a_line_unless_its_object_is_out_of_sight(client, scene):
    boxes = [(98, 50, 237, 180), None, *[(98 + step, 50, 237, 180) for step in range(6)]]
    frames = [masked(scene[0], box) for box in boxes]
    reply = client.post("/chat/completions", asked(*frames, model="DAM-3B-Video"))
    rows = reply.json["regions"]
    assert [row["image"] for row in rows] == [0, 2, 3, 4, 5, 6, 7]
    assert [tuple(row["box"]) for row in rows] == [box for box in boxes if box]
    lines = reply.json["choices"][0]["message"]["content"].split("\n")
    assert lines == [row["caption"] for row in rows]
    streamed = words_of_stream(client, asked(*frames, stream=True))
    assert "".join(streamed).split("\n") == lines


SMALL = Image.new("RGB", (20, 10))
BAD = {
    "an image without a mask": (
        [masked(SMALL, (1, 1, 5, 5)), SMALL],
        {},
        422,
        "image 2 of 2: no region",
    ),
    "no mask in any image": ([masked(SMALL)] * 2, {}, 422, "of all images are transparent"),
    "boxes of several images": (
        [masked(SMALL, (1, 1, 5, 5))] * 2,
        {"boxes": [[1, 1, 5, 5]]},
        422,
        "got 2 images; boxes and masks need a single one",
    ),
    "too many pixels in all": (
        [masked(Image.new("RGB", (2500, 2400)), (1, 1, 5, 5))] * 8,
        {},
        413,
        "image 1 of 8: expected at most 5,000,000 pixels, got 2500 x 2400",
    ),
    "too many images": ([masked(SMALL, (1, 1, 5, 5))] * 1001, {}, 413, "at most 1,000 regions"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_images_that_cannot_be_answered_are_named(client, name):
    images, fields, status, message = BAD[name]
    reply = client.post("/chat/completions", asked(*images, **fields))
    assert reply.status == status
    assert message in reply.message
