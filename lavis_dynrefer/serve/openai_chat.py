"""Regions in the format of OpenAI's chat: requests and answers.

The region is given as `boxes` or `masks` beside the messages, as <box>x1,y1,x2,y2</box> in the
user's last text, or as the alpha channel of the image, as clients of NVIDIA's describe-anything
server send it. The model takes no instructions: the rest of the text is ignored.
"""

from __future__ import annotations

import copy
import json
import re
import threading
import time
import uuid
from collections.abc import Collection, Sequence
from typing import Any, cast

from torch import Tensor

from lavis_dynrefer.errors import InputError, choice_problem
from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.serve.json_bodies import ChatBody, ContentPart, Message
from lavis_dynrefer.serve.request_batching import CroppedRequest
from lavis_dynrefer.serve.request_errors import RequestError
from lavis_dynrefer.serve.request_reading import RequestReader, parse_body
from lavis_dynrefer.serve.sent_images import SentImage, decode_base64, open_sent_image
from lavis_dynrefer.structures import RegionPrediction

# Without "<" in between: else every unclosed <box> would be searched through to the end.
_BOX = re.compile(r"<box>([^<]*)</box>", re.IGNORECASE)
_IN_TEXT = ("caption", "tags")
_MAX_NAME = 60  # characters of a model's name


def read_chat(
    reader: RequestReader, data: bytes, *, models: Collection[str]
) -> tuple[ChatBody, CroppedRequest]:
    """Read POST /v1/chat/completions.

    Args:
        reader: knows the limits.
        data: the json.
        models: names of the model.

    Raises:
        RequestError, InputError: the request cannot be answered.
    """
    body = parse_body(ChatBody, data)
    problem = choice_problem("model", body.model[:_MAX_NAME], models)
    if problem:
        raise RequestError("not_found", problem)
    if not set(body.tasks) & set(_IN_TEXT):
        raise InputError(
            f"tasks: a chat answer is made of {' and '.join(_IN_TEXT)}, got {body.tasks}; "
            "ask POST /v1/regions for the others alone"
        )
    users = [message for message in body.messages if message.role == "user"]
    url = _image_url(users)
    written = [_written_box(match) for match in _BOX.findall(_texts(users[-1]))]
    if written and body.masks is None:
        if body.boxes:
            raise InputError("expected boxes in the text or beside it, got both")
        body.boxes = written
    questions = reader.check(body)
    sent = open_sent_image(decode_base64(url), max_pixels=reader.limits.max_pixels)
    if body.masks is None and not body.boxes:
        body.boxes = [_alpha_box(sent)]
        body.format, body.normalised = "xyxy", False
    return body, reader.crop(body, sent.image, questions)


def answer_text(predictions: Sequence[RegionPrediction], tasks: Collection[str]) -> str:
    """One line per region: caption, tags, or caption and tags."""
    lines = []
    for one in predictions:
        tags = ", ".join(name for name, _ in one.tags)
        parts = [one.caption or ""] if "caption" in tasks else []
        if "tags" in tasks:
            parts.append(f"tags: {tags or 'none'}" if parts else tags or "none")
        lines.append("; ".join(parts))
    return "\n".join(lines)


class TokenCounter:
    """Counts the queries that the language model reads, and the tokens that it writes.

    Args:
        model: its queries and the tokenizer of its language model, if it has one, are used.
    """

    def __init__(self, model: DynRefer) -> None:
        self._queries = cast(Tensor, model.qformer.query_tokens).shape[1]
        # A copy: tokenizers are not thread safe, and the model's thread uses the original.
        self._tokenizer = copy.deepcopy(getattr(model.captioning.llm, "tokenizer", None))
        self._lock = threading.Lock()

    def usage(self, regions: int, text: str) -> dict[str, int] | None:
        """OpenAI's usage: queries of the regions, and tokens of the text."""
        if self._tokenizer is None:
            return None
        with self._lock:
            written = len(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        read = regions * self._queries
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        }


def completion(
    model: str, text: str, regions: list[dict[str, Any]], usage: dict[str, int] | None
) -> dict[str, Any]:
    """The answer as one json object; `regions` is ours, beside OpenAI's fields."""
    message = {"role": "assistant", "content": text}
    return {
        **_head(model, "chat.completion"),
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": usage,
        "regions": regions,
    }


def event_stream(
    model: str,
    text: str,
    regions: list[dict[str, Any]],
    usage: dict[str, int] | None,
    *,
    with_usage: bool,
) -> str:
    """The answer as server-sent events, one per line of the text.

    Beam search finds all words at once, so there is no pause between the events.
    """
    head = _head(model, "chat.completion.chunk")
    deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": line} for line in text.splitlines(keepends=True)]
    chunks: list[dict[str, Any]] = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        for delta in deltas
    ]
    last = {"index": 0, "delta": {}, "finish_reason": "stop"}
    chunks.append({**head, "choices": [last], "regions": regions})
    if with_usage:
        chunks.append({**head, "choices": [], "usage": usage})
    lines = [json.dumps(chunk, allow_nan=False) for chunk in chunks]
    return "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"])


def _head(model: str, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
    }


def _parts(message: Message) -> Sequence[ContentPart]:
    if isinstance(message.content, str):
        return [ContentPart(type="text", text=message.content)]
    return message.content or ()


def _texts(message: Message) -> str:
    return "\n".join(part.text or "" for part in _parts(message) if part.type == "text")


def _image_url(users: Sequence[Message]) -> str:
    """URL of the last image; a conversation may go on about an earlier one."""
    for message in reversed(users):
        urls = [part.image_url for part in _parts(message) if part.type == "image_url"]
        if len(urls) > 1:
            raise InputError(f"messages: expected one image per message, got {len(urls)}")
        if urls and urls[0] is not None:
            return urls[0] if isinstance(urls[0], str) else urls[0].url
    raise InputError(
        "messages: expected an image from the user: "
        '{"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}'
    )


def _alpha_box(sent: SentImage) -> list[Any]:
    if sent.alpha_box is None:
        width, height = sent.image.size
        raise InputError(
            "no region: expected <box>x1,y1,x2,y2</box> in the user's last text, boxes or masks "
            "beside the messages, or an image whose alpha channel is the mask; "
            f"the whole image is <box>0,0,{width},{height}</box>"
        )
    if sent.alpha_box[2:] == (0, 0):
        raise InputError("the image's alpha channel is transparent everywhere")
    return list(sent.alpha_box)


def _written_box(text: str) -> list[Any]:
    try:
        numbers = json.loads(f"[{text}]")
    except (ValueError, RecursionError):
        numbers = []
    if len(numbers) != 4 or any(type(number) not in (int, float) for number in numbers):
        raise InputError(f"expected <box>x1,y1,x2,y2</box>, got <box>{text[:60]}</box>")
    return list(numbers)
