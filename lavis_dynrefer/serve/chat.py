"""OpenAI's chat about one region or several: what is asked, and the answer in its form.

The region is given as `boxes` or `masks` beside the messages, as <box>x1,y1,x2,y2</box> in the last
text of the user, or as the alpha channel of the image, as NVIDIA's describe-anything server has
it. The model takes no instructions: the rest of the text is not read.
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

from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.serve.bodies import ChatBody, ContentPart, Message
from lavis_dynrefer.serve.errors import RequestError
from lavis_dynrefer.serve.sent_images import SentImage, decode_base64, open_sent_image
from lavis_dynrefer.serve.work import Work, WorkReader, parse_body
from lavis_dynrefer.structures import RegionPrediction

# Without "<" between them: else every <box> without an end would be looked through to the end.
_BOX = re.compile(r"<box>([^<]*)</box>", re.IGNORECASE)
_IN_TEXT = ("caption", "tags")


def chat_work(reader: WorkReader, data: bytes, *, models: Collection[str]) -> tuple[ChatBody, Work]:
    """Read POST /v1/chat/completions.

    Args:
        reader: knows the limits.
        data: the json.
        models: names of the model.

    Raises:
        RequestError: anything that cannot be answered.
    """
    body = parse_body(ChatBody, data)
    if body.model not in models:
        raise RequestError(
            "not_found", f"model: expected one of {sorted(models)}, got {body.model!r:.60}"
        )
    if not set(body.tasks) & set(_IN_TEXT):
        raise RequestError(
            "unprocessable",
            f"tasks: a chat answer is made of {' and '.join(_IN_TEXT)}, got {body.tasks}; "
            "POST /v1/regions answers the others alone",
        )
    reader.check_limits(body)
    asked = reader.asked(body)
    users = [message for message in body.messages if message.role == "user"]
    sent = open_sent_image(decode_base64(_image_url(users)), max_pixels=reader.settings.max_pixels)
    if body.masks is None:
        body.boxes = _boxes(body, _texts(users[-1]), sent)
        reader.check_limits(body)
    return body, Work(sent.image, reader.boxes(body, sent.image), asked)


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
    """Counts what the language model reads of the regions, and writes.

    Args:
        model: its queries and its language model's tokenizer are counted; a language model that
            has no tokenizer gives no counts.
    """

    def __init__(self, model: DynRefer) -> None:
        self._queries = cast(Tensor, model.qformer.query_tokens).shape[1]
        # A copy: tokenizers cannot be used by two threads, and the model's thread has its own.
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
    """The answer as one json object; `regions` is ours beside OpenAI's fields."""
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
    """The answer as server-sent events, one for each line of the text.

    Beam search has all words at once, so there is nothing to wait for between the events.
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
    """Address of the last image; a conversation may go on about an earlier one."""
    for message in reversed(users):
        urls = [part.image_url for part in _parts(message) if part.type == "image_url"]
        if len(urls) > 1:
            raise RequestError(
                "unprocessable", f"messages: expected one image a message, got {len(urls)}"
            )
        if urls and urls[0] is not None:
            return urls[0] if isinstance(urls[0], str) else urls[0].url
    raise RequestError(
        "unprocessable",
        "messages: expected an image of the user: "
        '{"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}',
    )


def _boxes(body: ChatBody, text: str, sent: SentImage) -> list[list[Any]]:
    written = [_written_box(match) for match in _BOX.findall(text)]
    if body.boxes and written:
        raise RequestError("unprocessable", "expected boxes in the text or beside it, got both")
    boxes = body.boxes or written
    if boxes:
        return boxes
    if sent.alpha_box is None:
        width, height = sent.image.size
        raise RequestError(
            "unprocessable",
            "no region: expected <box>x1,y1,x2,y2</box> in the last text of the user, boxes or "
            "masks beside the messages, or an image whose alpha channel is the mask; "
            f"the whole image is <box>0,0,{width},{height}</box>",
        )
    body.format, body.normalised = "xyxy", False
    if sent.alpha_box[2:] == (0, 0):
        raise RequestError("unprocessable", "the image's alpha channel masks nothing")
    return [list(sent.alpha_box)]


def _written_box(text: str) -> list[Any]:
    try:
        numbers = json.loads(f"[{text}]")
    except (ValueError, RecursionError):
        numbers = []
    if len(numbers) != 4 or any(type(number) not in (int, float) for number in numbers):
        raise RequestError(
            "unprocessable", f"expected <box>x1,y1,x2,y2</box>, got <box>{text[:60]}</box>"
        )
    return list(numbers)
