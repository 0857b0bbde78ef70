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
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor

from lavis_dynrefer.errors import InputError, choice_problem
from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.questions import Questions
from lavis_dynrefer.serve.json_bodies import ChatBody, ContentPart, Message
from lavis_dynrefer.serve.request_batching import CroppedRequest
from lavis_dynrefer.serve.request_errors import RequestError
from lavis_dynrefer.serve.request_reading import RequestReader, check_limits, parse_body
from lavis_dynrefer.serve.sent_images import SentImage, decode_base64, open_sent_image
from lavis_dynrefer.structures import RegionPrediction

# Without "<" in between: else every unclosed <box> would be searched through to the end.
_BOX = re.compile(r"<box>([^<]*)</box>", re.IGNORECASE)
_IN_TEXT = ("caption", "tags")
_MAX_NAME = 60  # characters of a model's name
# What describe-anything's clients ask for unless told otherwise. They stream a text as a list of
# parts, which OpenAI's clients do not understand.
DAM_MODELS = ("describe_anything_model", "DAM-3B", "DAM-3B-Video")


@dataclass(frozen=True, eq=False)
class ChatRequest:
    """A chat that is ready for the model.

    Args:
        body: what was sent.
        cropped: its regions and questions.
        images: for each region the number of its image, from 0; empty if there is only one image.
    """

    body: ChatBody
    cropped: CroppedRequest
    images: Sequence[int]


def check_model(name: str, models: Collection[str]) -> None:
    """Check that a client asks for this model.

    Args:
        name: of the model, or one of `DAM_MODELS`.
        models: names of the model.

    Raises:
        RequestError: another name.
    """
    if name in DAM_MODELS:
        return
    problem = choice_problem("model", name[:_MAX_NAME], models)
    if problem:
        raise RequestError("not_found", problem, code="model_not_found")


def read_chat(reader: RequestReader, data: bytes, *, models: Collection[str]) -> ChatRequest:
    """Read POST /v1/chat/completions.

    Args:
        reader: knows the limits.
        data: the json.
        models: names of the model.

    Raises:
        RequestError, InputError: the request cannot be answered.
    """
    body = parse_body(ChatBody, data)
    check_model(body.model, models)
    if not set(body.tasks) & set(_IN_TEXT):
        raise InputError(
            f"tasks: a chat answer is made of {' and '.join(_IN_TEXT)}, got {body.tasks}; "
            "ask POST /v1/regions for the others alone"
        )
    users = [message for message in body.messages if message.role == "user"]
    urls = _image_urls(users)
    written = [_written_box(match) for match in _BOX.findall(_texts(users[-1]))]
    if written and body.masks is None:
        if body.boxes:
            raise InputError("expected boxes in the text or beside it, got both")
        body.boxes = written
    questions = reader.check(body)
    check_limits(questions, urls, reader.limits)
    if len(urls) > 1:
        return _read_several(reader, body, urls, questions)
    sent = open_sent_image(decode_base64(urls[0]), max_pixels=reader.limits.max_pixels)
    mask = None
    if body.masks is None and not body.boxes:
        _set_box(body, _alpha_box(sent))
        mask = sent.mask
    return ChatRequest(body, reader.crop(body, sent.image, questions, mask=mask), ())


def _read_several(
    reader: RequestReader, body: ChatBody, urls: Sequence[str], questions: Questions
) -> ChatRequest:
    """Several images, such as frames of a video: the alpha channel of each is its region.

    One that is transparent everywhere has no region: the object is out of sight.
    """
    if body.boxes or body.masks is not None:
        raise InputError(
            f"messages: got {len(urls)} images; boxes and masks need a single one, several have "
            "their regions in their alpha channels"
        )
    each = reader.limits.max_pixels // len(urls)
    cropped, numbers = [], []
    for number, url in enumerate(urls):
        name = f"image {number + 1} of {len(urls)}"
        sent = open_sent_image(decode_base64(url, name=name), max_pixels=each, name=name)
        if sent.alpha_box is None:
            raise InputError(
                f"{name}: no region; several images have their regions in their alpha channels"
            )
        if sent.alpha_box[2:] != (0, 0):
            _set_box(body, sent.alpha_box)
            cropped.append(reader.crop(body, sent.image, questions, mask=sent.mask))
            numbers.append(number)
    if not cropped:
        raise InputError("the alpha channels of all images are transparent everywhere")
    samples = [sample for one in cropped for sample in one.samples]
    return ChatRequest(body, CroppedRequest(questions, samples, cropped[0].image_size), numbers)


def _set_box(body: ChatBody, box: Sequence[float]) -> None:
    body.boxes, body.format, body.normalised = [list(box)], "xyxy", False


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
    model: str, text: str, own: Mapping[str, Any], usage: dict[str, int] | None
) -> dict[str, Any]:
    """The answer as one json object; `own` are our fields, beside OpenAI's."""
    message = {"role": "assistant", "content": text}
    return {
        **_head(model, "chat.completion"),
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": usage,
        **own,
    }


def event_stream(
    model: str,
    text: str,
    own: Mapping[str, Any],
    usage: dict[str, int] | None,
    *,
    with_usage: bool,
    in_parts: bool = False,
) -> str:
    """The answer as server-sent events, one per line of the text.

    Beam search finds all words at once, so there is no pause between the events.

    Args:
        model: our name.
        text: the answer.
        own: our fields, in the last event of the answer.
        usage: see `TokenCounter`.
        with_usage: end with an event about it.
        in_parts: each text is a list of parts, as describe-anything's server sends it.
    """
    head = _head(model, "chat.completion.chunk")
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    for line in text.splitlines(keepends=True):
        deltas.append({"content": [{"type": "text", "text": line}] if in_parts else line})
    chunks: list[dict[str, Any]] = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        for delta in deltas
    ]
    last = {"index": 0, "delta": {}, "finish_reason": "stop"}
    chunks.append({**head, "choices": [last], **own})
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


def _image_urls(users: Sequence[Message]) -> list[str]:
    """URLs of the images of the last message that has any; later ones may go on about them."""
    for message in reversed(users):
        urls = list(_urls(message))
        if urls:
            return urls
    raise InputError(
        "messages: expected an image from the user: "
        '{"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}'
    )


def _urls(message: Message) -> Iterator[str]:
    for part in _parts(message):
        if part.type == "image_url" and part.image_url is not None:
            yield part.image_url if isinstance(part.image_url, str) else part.image_url.url


def _alpha_box(sent: SentImage) -> Sequence[float]:
    if sent.alpha_box is None:
        width, height = sent.image.size
        raise InputError(
            "no region: expected <box>x1,y1,x2,y2</box> in the user's last text, boxes or masks "
            "beside the messages, or an image whose alpha channel is the mask; "
            f"the whole image is <box>0,0,{width},{height}</box>"
        )
    if sent.alpha_box[2:] == (0, 0):
        raise InputError("the image's alpha channel is transparent everywhere")
    return sent.alpha_box


def _written_box(text: str) -> list[Any]:
    try:
        numbers = json.loads(f"[{text}]")
    except (ValueError, RecursionError):
        numbers = []
    if len(numbers) != 4 or any(type(number) not in (int, float) for number in numbers):
        raise InputError(f"expected <box>x1,y1,x2,y2</box>, got <box>{text[:60]}</box>")
    return list(numbers)
