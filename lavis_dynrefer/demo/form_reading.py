"""From what the page's fields hold to what the model is asked."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, ImageOps

from lavis_dynrefer.serve.bodies import RegionFields
from lavis_dynrefer.serve.errors import RequestError
from lavis_dynrefer.serve.sent_images import open_sent_image
from lavis_dynrefer.serve.work import Work, WorkReader, parse_body
from lavis_dynrefer.structures import Box

OWN_POLICY = "own"  # the page's name for the policy the model comes with
_COLOUR = re.compile(r"rgba?\((\d{1,3}), ?(\d{1,3}), ?(\d{1,3})")
_NO_COLOUR = "rgb(120, 128, 140)"
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
        controls: words every caption should be about.
        views: a view policy as `RegionPredictor.predict_iter` takes it, or `OWN_POLICY`.
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


def read_work(
    drawing: Mapping[str, Any] | None, fields: Fields, reader: WorkReader, *, whole: bool = False
) -> tuple[Work, list[str]]:
    """What to ask the model, and the colour of each region.

    Args:
        drawing: what the drawing board sends: image, boxes, quarter turns.
        fields: the other fields.
        reader: holds the limits.
        whole: ask about the whole image in place of the boxes.

    Raises:
        RequestError: no image, no box, or anything that cannot be answered.
    """
    if not drawing or not drawing.get("image"):
        raise RequestError(
            "invalid_request", "There is no image yet: upload one, or click one of the examples."
        )
    drawn = drawn_boxes(drawing.get("boxes") or ())
    if not drawn and not whole:
        raise RequestError(
            "invalid_request",
            "There is no box yet: press the mouse button on the image and pull, or ask about the "
            "whole image.",
        )
    body = _body(fields, () if whole else drawn)
    reader.check_limits(body)
    asked = reader.asked(body)
    image = read_image(drawing, reader.settings.max_body, reader.settings.max_pixels)
    if whole:
        body.boxes = [[0, 0, *image.size]]
    colours = [_NO_COLOUR] if whole else [one.colour for one in drawn]
    return Work(image, reader.boxes(body, image), asked), colours


def typed_words(name: str, text: str) -> list[str] | None:
    """Words with commas or line ends between them, each once; None where nothing is typed.

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
    """Boxes in the order they were drawn; the drawing board has the last one first.

    Raises:
        RequestError: an entry that is no box.
    """
    return [_drawn_box(entry) for entry in reversed(boxes)]


def read_image(drawing: Mapping[str, Any], max_bytes: int, max_pixels: int) -> Image.Image:
    """The image as the visitor sees it: upright as its EXIF says, turned as by the buttons.

    Args:
        drawing: what the drawing board sends.
        max_bytes: of the file.
        max_pixels: of the image; checked before anything is decoded.

    Raises:
        RequestError: no image, a damaged one, or one that is too large.
    """
    try:
        data = Path(drawing["image"]["path"]).read_bytes()
    except FileNotFoundError as error:  # the page may have been open for hours
        raise RequestError(
            "unprocessable", "image: it was sent long ago and is gone; upload it again"
        ) from error
    if len(data) > max_bytes:
        raise RequestError(
            "too_large", f"image: expected at most {max_bytes:,} bytes, got {len(data):,}"
        )
    image = open_sent_image(data, max_pixels=max_pixels).image
    with Image.open(io.BytesIO(data)) as stored:
        image.getexif()[ExifTags.Base.Orientation] = stored.getexif().get(
            ExifTags.Base.Orientation, 1
        )
    image = ImageOps.exif_transpose(image)
    turn = _QUARTER_TURNS[int(drawing.get("orientation") or 0) % 4]
    return image if turn is None else image.transpose(turn)


def board(path: str, boxes: Sequence[Box] = ()) -> dict[str, Any]:
    """An image with boxes for the drawing board, the last box first as it keeps them."""
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
