"""OpenAI's chat about regions: what its clients send, and what they get."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw
from serve_client import encoded

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from lavis_dynrefer.serve.openai_chat import answer_text
from lavis_dynrefer.structures import RegionPrediction

PATH = "/v1/chat/completions"
BOX = [98, 50, 237, 180]


def message(text, image=None):
    parts = [{"type": "text", "text": text}]
    if image is not None:
        url = f"data:image/png;base64,{encoded(image)}"
        parts.insert(0, {"type": "image_url", "image_url": {"url": url}})
    return {"role": "user", "content": parts}


def chat(client, *messages, path=PATH, **fields):
    return client.post(path, {"model": "dynrefer", "messages": messages, **fields})


def text_of(reply):
    assert reply.status == 200, reply.body
    return reply.json["choices"][0]["message"]["content"]


@pytest.fixture(scope="module")
def caption(predictor, scene):
    return predictor.predict(scene[0], [BOX], tasks=["caption"])[0].caption


@pytest.fixture(scope="module")
def asking(scene):
    return message(f"What is in <box>{','.join(map(str, BOX))}</box>?", scene[0])


@pytest.fixture(scope="module")
def masked(scene):
    """The image with the box as its alpha channel, as describe-anything's clients send it."""
    alpha = Image.new("L", scene[0].size)
    alpha.paste(255, BOX)
    image = scene[0].copy()
    image.putalpha(alpha)
    return image


def test_answer_is_the_caption(client, asking, caption):
    reply = chat(client, asking, temperature=0.2, max_tokens=512, top_p=0.5, use_cache=True)
    assert text_of(reply) == caption
    (choice,) = reply.json["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["finish_reason"] == "stop"
    assert reply.json["object"] == "chat.completion"
    assert reply.json["model"] == "dynrefer-tiny"
    assert reply.json["id"].startswith("chatcmpl-")
    assert [row["box"] for row in reply.json["regions"]] == [BOX]


def test_a_remark_tells_of_an_unknown_kind_of_image(client, asking):
    noise = np.random.default_rng(0).integers(0, 256, (360, 480, 3), dtype=np.uint8)
    unknown = message("What is in <box>98,50,237,180</box>?", Image.fromarray(noise))

    assert chat(client, asking).json["remark"] is None
    assert "unlike anything this model was trained on" in chat(client, unknown).json["remark"]


def test_usage_counts_the_queries_read_and_the_tokens_written(client, predictor, asking, caption):
    queries = predictor.model.qformer.query_tokens.shape[1]
    tokenizer = predictor.model.captioning.llm.tokenizer
    written = len(tokenizer(caption, add_special_tokens=False)["input_ids"])
    assert chat(client, asking).json["usage"] == {
        "prompt_tokens": queries,
        "completion_tokens": written,
        "total_tokens": queries + written,
    }


def test_region_may_be_given_in_several_ways(client, scene, masked, caption):
    plain = message("Describe it.", scene[0])
    polygon = [[98, 50, 237, 50, 237, 180, 98, 180]]
    replies = [
        chat(client, plain, boxes=[BOX]),
        chat(client, plain, boxes=[[98, 50, 139, 130]], format="xywh"),
        chat(client, plain, masks=[polygon]),
        chat(client, message("Describe the masked region.", masked)),
        chat(client, message("Describe the masked region.", masked), path="/chat/completions"),
        chat(client, message("<BOX> 98, 50.0, 237, 180 </box>", scene[0])),
    ]
    assert [text_of(reply) for reply in replies] == [caption] * 6


def test_an_alpha_channel_is_a_mask_where_the_model_uses_masks(client, predictor, scene):
    mask = Image.new("L", scene[0].size)
    ImageDraw.Draw(mask).polygon([(98, 50), (237, 50), (98, 180)], fill=255)
    image = scene[0].copy()
    image.putalpha(mask)
    pixels = np.asarray(mask)
    asked = message("Describe the masked region.", image)

    for use in (None, "box", "cells", "dim"):
        reply = chat(client, asked, tasks=["caption", "categories"], masks_as=use)
        (expected,) = predictor.predict(scene[0], masks=[pixels], masks_as=use)
        (found,) = reply.json["regions"]
        assert text_of(reply) == expected.caption
        assert dict(found["categories"]) == pytest.approx(dict(expected.categories), abs=1e-4)


def test_conversation_goes_on_about_its_image(client, scene, asking, caption):
    first = message("<box>0,0,9,9</box>", scene[0])
    answer = {"role": "assistant", "content": "<box>1,1,2,2</box>"}
    last = {"role": "user", "content": "And <box>98,50,237,180</box>?"}
    system = {"role": "system", "content": "Be brief."}
    assert text_of(chat(client, system, first, answer, last, answer)) == caption


def test_answer_has_one_line_per_region_and_tags_if_asked(client, scene, predictor):
    boxes = scene[1][:2]
    text = " ".join(f"<box>{','.join(map(str, box))}</box>" for box in boxes)
    reply = chat(client, message(text, scene[0]), tasks=["caption", "tags"])
    expected = predictor.predict(scene[0], boxes, tasks=["caption", "tags"])
    assert text_of(reply) == answer_text(expected, ["caption", "tags"])
    assert text_of(reply).count("\n") == 1


def test_answer_text_joins_caption_and_tags():
    box = (0.0, 0.0, 1.0, 1.0)
    one = RegionPrediction(box, "a red boat", 0.5, (("boat", 0.9), ("red", 0.8)))
    other = RegionPrediction(box, "a tree", 0.5)
    assert answer_text([one, other], ["caption"]) == "a red boat\na tree"
    assert answer_text([one], ["caption", "tags"]) == "a red boat; tags: boat, red"
    assert answer_text([one, other], ["tags"]) == "boat, red\nnone"


def events_of(reply):
    assert reply.headers["content-type"].startswith("text/event-stream")
    *chunks, last = reply.body.decode().split("\n\n")[:-1]
    assert last == "data: [DONE]"
    return [json.loads(chunk[len("data: ") :]) for chunk in chunks]


def test_stream_has_the_same_text_and_usage(client, scene):
    asked = [message("", scene[0])]
    plain = chat(client, *asked, boxes=scene[1])
    with_usage = {"stream": True, "stream_options": {"include_usage": True}}
    *events, last = events_of(chat(client, *asked, boxes=scene[1], **with_usage))
    choices = [event["choices"][0] for event in events]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == text_of(plain)
    assert choices[0]["delta"]["role"] == "assistant"
    assert [choice["finish_reason"] for choice in choices] == [None] * 8 + ["stop"]
    assert len({event["id"] for event in events}) == 1
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert (last["choices"], last["usage"]) == ([], plain.json["usage"])


def test_null_means_the_default(client, asking, caption):
    ours = ("boxes", "masks", "format", "normalised", "attributes", "categories", "tags")
    theirs = ("stream", "stream_options", "n", "temperature", "max_tokens", "seed", "tools")
    nulls = dict.fromkeys([*ours, *theirs, "controls", "tasks", "views"])
    reply = chat(client, {**asking, "name": None}, **nulls)
    assert text_of(reply) == caption
    options = {"stream": True, "stream_options": {"include_usage": None}}
    assert "usage" not in events_of(chat(client, asking, **options))[-1]


NOWHERE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a/b"}}]}
SMALL = message("<box>1,2,3,4</box>", Image.new("RGB", (9, 9)))
PLAIN = message("Describe it.", Image.new("RGB", (9, 9)))
TWICE = {"role": "user", "content": SMALL["content"][:1] * 2}
EMPTY = message("Describe it.", Image.new("RGBA", (9, 9)))
BAD = {
    "an address": ([NOWHERE], {}, 400, "this server fetches nothing"),
    "no image": ([message("<box>1,2,3,4</box>")], {}, 422, "expected an image from the user"),
    "two images": ([TWICE], {}, 422, "image 1 of 2: no region"),
    "no user": ([{"role": "system", "content": "x"}], {}, 422, "expected an image from the user"),
    "no region in a stream": ([PLAIN], {"stream": True}, 422, "no region"),
    "no region": ([PLAIN], {}, 422, "the whole image is <box>0,0,9,9</box>"),
    "an empty mask": ([EMPTY], {}, 422, "alpha channel is transparent everywhere"),
    "a box twice": ([SMALL], {"boxes": [[1, 2, 3, 4]]}, 422, "or beside it, got both"),
    "three numbers": (
        [message("<box>1,2,3</box>", Image.new("L", (9, 9)))],
        {},
        422,
        "<box>1,2,3<",
    ),
    "nan": ([message("<box>1,2,3,NaN</box>", Image.new("L", (9, 9)))], {}, 422, "not finite"),
    "deep": ([message(f"<box>{'[' * 9999}</box>", Image.new("L", (9, 9)))], {}, 422, "<box>[["),
    "another model": ([SMALL], {"model": "gpt-4"}, 404, "['dynrefer', 'dynrefer-tiny']"),
    "another task": (
        [SMALL],
        {"tasks": ["attributes"]},
        422,
        "ask POST /v1/regions for the others",
    ),
    "several answers": ([SMALL], {"n": 2}, 422, "n: expected 1"),
    "on as a boolean": ([SMALL], {"stream": "on"}, 422, "stream: expected true or false"),
    "fewer masks than boxes": (
        [PLAIN],
        {"boxes": [[0, 0, 9, 9]], "masks": []},
        422,
        "expected one for each of 1 boxes, got 0",
    ),
    "many boxes": (
        [message("<box>1,2,3,4</box>" * 1001, Image.new("L", (9, 9)))],
        {},
        413,
        "1,001",
    ),
}


@pytest.mark.parametrize("name", list(BAD))
def test_invalid_chats_are_refused_and_named(client, name):
    messages, fields, status, text = BAD[name]
    reply = chat(client, *messages, **fields)
    assert reply.status == status
    assert text in reply.message


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json; charset=utf-8", 200),
        ("Application/JSON;charset=UTF-8", 200),
        ("text/plain", 415),
        ("text/plain; application/json", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("", 415),
        (None, 415),
    ],
)
def test_only_json_is_a_chat(client, asking, content_type, status):
    body = json.dumps({"model": "dynrefer", "messages": [asking]})
    named = {} if content_type is None else {"content_type": content_type}
    reply = client.request("POST", PATH, body, **named)
    assert reply.status == status
    if status == 415:
        assert "content-type: expected application/json, got" in reply.message


@pytest.mark.parametrize("text", ["<box>" * 200_000, "<box>" + "1," * 90_000, "</box>" * 200_000])
def test_unclosed_boxes_are_ignored_quickly(client, small_image, text):
    reply = chat(client, message(text, small_image))
    assert reply.error == "unprocessable"
    assert reply.message.startswith("no region")
