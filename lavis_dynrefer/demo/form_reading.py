"""From the values of the page's fields to an image, boxes and questions."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from lavis_dynrefer.questions import Questions
from lavis_dynrefer.serve.json_bodies import RegionFields
from lavis_dynrefer.serve.request_errors import RequestError
from lavis_dynrefer.serve.request_reading import check_limits, parse_body
from lavis_dynrefer.serve.sent_images import open_sent_image
from lavis_dynrefer.serve.service_limits import ServeSettings
from lavis_dynrefer.structures import Box

OWN_POLICY = "own"  # the page's name for the model's own view policy
_COLOUR = re.compile(r"rgba?\((\d{1,3}), ?(\d{1,3}), ?(\d{1,3})")
_NO_COLOUR = "rgb(120, 128, 140)"
_ORIENTATION = 0x0112  # EXIF tag
_QUARTER_TURNS = (
    None,
    Image.Transpose.ROTATE_270,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_90,
)


@dataclass(frozen=True)
class Fields:
    """What a visitor typed and chose.

    Args:
        attributes: words with commas between them; empty for the model's own list.
        categories: likewise.
        tags: likewise.
        controls: words that every caption should mention.
        views: a view policy, see `Questions`, or `OWN_POLICY`.
    """

    attributes: str = ""
    categories: str = ""
    tags: str = ""
    controls: str = ""
    views: str = OWN_POLICY


@dataclass(frozen=True)
class DrawnBox:
    """A box as drawn.

    Args:
        box: xyxy in pixels of the image as the visitor sees it.
        colour: in which it is drawn, as css writes it.
    """

    box: Box
    colour: str


@dataclass(frozen=True, eq=False)
class VisitorQuestion:
    """What a visitor asks.

    Args:
        image: RGB, as the visitor sees it.
        boxes: xyxy in pixels, not yet checked against the image.
        colours: of each box, as css writes it.
        questions: what to answer.
        key: equal for equal boxes of equal images looked at with the same view policy.
    """

    image: Image.Image
    boxes: Sequence[Sequence[float]]
    colours: Sequence[str]
    questions: Questions
    key: Hashable


def read_question(
    drawing: Mapping[str, Any] | None,
    fields: Fields,
    limits: ServeSettings,
    *,
    whole: bool = False,
) -> VisitorQuestion:
    """Read the form.

    Args:
        drawing: what the drawing board sends: image, boxes, quarter turns.
        fields: the other fields.
        limits: of the image, its boxes and words.
        whole: ask about the whole image instead of the boxes.

    Raises:
        RequestError, InputError: no image, no box, or anything else that cannot be answered.
    """
    if not drawing or not drawing.get("image"):
        raise RequestError(
            "invalid_request", "There is no image yet: upload one, or click one of the examples."
        )
    drawn = [] if whole else drawn_boxes(drawing.get("boxes") or ())
    if not drawn and not whole:
        raise RequestError(
            "invalid_request",
            "There is no box yet: drag on the image to draw one, or ask about the whole image.",
        )
    body = _body(fields, drawn)
    check_limits(body, limits)
    questions = body.questions()
    data = _file_of(drawing, limits)
    image = _as_seen(data, drawing, limits)
    boxes = [[0, 0, *image.size]] if whole else [list(one.box) for one in drawn]
    digest = hashlib.sha256(data).digest()
    return VisitorQuestion(
        image=image,
        boxes=boxes,
        colours=[_NO_COLOUR] if whole else [one.colour for one in drawn],
        questions=questions,
        key=(digest, image.size, _turns(drawing), tuple(map(tuple, boxes)), questions.views),
    )


def typed_words(name: str, text: str) -> list[str] | None:
    """Words separated by commas or line ends, each once; None if nothing is typed.

    Raises:
        RequestError: only commas.

    >>> typed_words("attributes", "wet, striped,wet")
    ['wet', 'striped']
    """
    if not text.strip():
        return None
    words = list(dict.fromkeys(word.strip() for word in re.split(r"[,\n]", text) if word.strip()))
    if not words:
        raise RequestError(
            "unprocessable",
            f"{name}: expected words with commas between them, or nothing for the model's own, "
            f"got {text!r:.60}",
        )
    return words


def drawn_boxes(boxes: Sequence[Any]) -> list[DrawnBox]:
    """Boxes in the order they were drawn; the drawing board sends the last one first.

    Raises:
        RequestError: an entry that is not a box.
    """
    return [_drawn_box(entry) for entry in reversed(boxes)]


def read_image(drawing: Mapping[str, Any], limits: ServeSettings) -> Image.Image:
    """The image as the visitor sees it: upright by its EXIF data, turned by the page's buttons.

    Args:
        drawing: what the drawing board sends.
        limits: its max_body and max_pixels are checked before anything is decoded.

    Raises:
        RequestError: no image, or a damaged or too large one.
    """
    return _as_seen(_file_of(drawing, limits), drawing, limits)


def board(path: str, boxes: Sequence[Box] = ()) -> dict[str, Any]:
    """An image with boxes for the drawing board, the last box first."""
    corners = ("xmin", "ymin", "xmax", "ymax")
    return {
        "image": path,
        "boxes": [dict(zip(corners, map(round, box))) for box in reversed(boxes)],
    }


def _body(fields: Fields, drawn: Sequence[DrawnBox]) -> RegionFields:
    document = {
        "boxes": [list(one.box) for one in drawn],
        "attributes": typed_words("attributes", fields.attributes),
        "categories": typed_words("categories", fields.categories),
        "tags": typed_words("tags", fields.tags),
        "controls": typed_words("control words", fields.controls) or [],
        "views": None if fields.views == OWN_POLICY else fields.views,
    }
    return parse_body(RegionFields, json.dumps(document).encode())


def _file_of(drawing: Mapping[str, Any], limits: ServeSettings) -> bytes:
    try:
        data = Path(drawing["image"]["path"]).read_bytes()
    except FileNotFoundError as error:  # the page may have been open for hours
        raise RequestError(
            "unprocessable", "image: it was sent long ago and has been deleted; upload it again"
        ) from error
    if len(data) > limits.max_body:
        raise RequestError(
            "too_large", f"image: expected at most {limits.max_body:,} bytes, got {len(data):,}"
        )
    return data


def _as_seen(data: bytes, drawing: Mapping[str, Any], limits: ServeSettings) -> Image.Image:
    image = open_sent_image(data, max_pixels=limits.max_pixels).image
    with Image.open(io.BytesIO(data)) as stored:  # converting may have dropped the orientation
        image.getexif()[_ORIENTATION] = stored.getexif().get(_ORIENTATION, 1)
    image = ImageOps.exif_transpose(image)
    turn = _QUARTER_TURNS[_turns(drawing)]
    return image if turn is None else image.transpose(turn)


def _turns(drawing: Mapping[str, Any]) -> int:
    """Clockwise quarter turns, 0 to 3."""
    return int(drawing.get("orientation") or 0) % 4


def _drawn_box(entry: Any) -> DrawnBox:
    try:
        scale = float(entry.get("scaleFactor") or 1)  # screen pixels per pixel of the image
        x1, y1, x2, y2 = (
            round(float(entry[side]) / scale) for side in ("xmin", "ymin", "xmax", "ymax")
        )
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise RequestError(
            "unprocessable", f"boxes: expected xmin, ymin, xmax and ymax, got {entry!r:.80}"
        ) from error
    named = _COLOUR.match(str(entry.get("color", "")))
    colour = "rgb({}, {}, {})".format(*named.groups()) if named else _NO_COLOUR
    return DrawnBox((x1, y1, x2, y2), colour)
