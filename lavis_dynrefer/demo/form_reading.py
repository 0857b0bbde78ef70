"""Read the values of the page's fields: an image, boxes and questions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, ImageOps

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.questions import Questions
from lavis_dynrefer.serve.json_bodies import MasksBody
from lavis_dynrefer.serve.request_errors import RequestError
from lavis_dynrefer.serve.request_reading import check_limits, parse_body
from lavis_dynrefer.serve.sent_images import open_sent_image
from lavis_dynrefer.serve.service_limits import ServeSettings
from lavis_dynrefer.structures import Box

OWN = "own"  # the page's name for what the model's yaml says
_COLOUR = re.compile(r"rgba?\((\d{1,3}), ?(\d{1,3}), ?(\d{1,3})")
_NO_COLOUR = "rgb(120, 128, 140)"
_CLOCKWISE = {
    1: Image.Transpose.ROTATE_270,
    2: Image.Transpose.ROTATE_180,
    3: Image.Transpose.ROTATE_90,
}


def typed_text(name: str, value: Any) -> str:
    """What is typed into a field; nothing for None, which programs send for an empty one.

    Raises:
        InputError: not a text.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{name}: expected a text, got {value!r:.60}")
    return value


def typed_words(name: str, text: str) -> list[str] | None:
    """Words separated by commas or line ends, each once; None if nothing is typed.

    Raises:
        InputError: only commas.

    >>> typed_words("attributes", "wet, striped,wet")
    ['wet', 'striped']
    """
    if not text.strip():
        return None
    words = list(dict.fromkeys(word.strip() for word in re.split(r"[,\n]", text) if word.strip()))
    if not words:
        raise InputError(
            f"{name}: expected words with commas between them, or nothing for the model's own, "
            f"got {text!r:.60}"
        )
    return words


def typed_masks(name: str, text: str) -> list[Any] | None:
    """Masks as json, as `predict` takes them; None if nothing is typed.

    Raises:
        RequestError: no json, or no masks.

    >>> typed_masks("masks", "[[[0, 0, 9, 0, 9, 9]], null]")
    [[[0, 0, 9, 0, 9, 9]], None]
    """
    text = text.strip()
    if not text:
        return None
    if text.startswith("{"):  # one RLE, as most tools write it
        text = f"[{text}]"
    try:
        # A browser may send half of a character, which no json has.
        masks: list[Any] = parse_body(MasksBody, text.encode(errors="replace")).model_dump()
    except RequestError as error:
        problem = str(error).removeprefix("the request is ")
        raise RequestError(error.kind, f"{name}: {problem}") from error
    return masks


def chosen_option(name: str, text: str) -> str | None:
    """Views, or what masks are used as; None for the model's own, also if nothing is chosen."""
    del name
    return None if text.strip() in ("", OWN) else text.strip()


@dataclass(frozen=True)
class PageField:
    """A field of the page for one of the `Questions`, or for masks.

    Args:
        name: of the question.
        label: above the field.
        example: shown while the field is empty.
        read: converts name and text to the value; None means its default.
    """

    name: str
    label: str
    example: str = ""
    read: Callable[[str, str], Any] = typed_words


FIELDS = (
    PageField("attributes", "Attributes to score", "striped, wet"),
    PageField("categories", "Categories to choose from", "house, boat"),
    PageField("tags", "Tags to find", "mug, table"),
    PageField("controls", "Control words for captions", "red, boat"),
    PageField("views", "How views are chosen", read=chosen_option),
    PageField(
        "masks",
        "Masks (json), one for each box or instead of boxes",
        '{"size": [h, w], "counts": ...}, or polygons: [[[x, y, x, y, x, y]], null]',
        read=typed_masks,
    ),
    PageField("masks_as", "What masks are used as", read=chosen_option),
)


@dataclass(frozen=True, eq=False)
class VisitorQuestion:
    """A question of a visitor.

    Args:
        image: RGB, as the visitor sees it.
        boxes: xyxy in pixels, not yet checked against the image; None: the boxes of the masks.
        masks: as `predict` takes them, not yet checked; None without any.
        colours: of each region, in css.
        questions: what to answer.
        key: equal for equal images, regions, view policies and uses of masks.
    """

    image: Image.Image
    boxes: Sequence[Box] | None
    masks: Sequence[Any] | None
    colours: Sequence[str]
    questions: Questions
    key: Hashable


def read_question(
    drawing: Any,
    typed: Mapping[str, Any],
    limits: ServeSettings,
    *,
    whole: bool = False,
) -> VisitorQuestion:
    """Read the form.

    Args:
        drawing: value of the drawing board: image, boxes, quarter turns.
        typed: value of each of `FIELDS`.
        limits: of the image, its boxes and words.
        whole: ask about the whole image instead of the boxes.

    Raises:
        RequestError, InputError: no image, no box, or a question that cannot be answered.
    """
    if not isinstance(drawing, Mapping) or not drawing.get("image"):
        raise InputError("There is no image yet: upload one, or click one of the examples.")
    boxes, colours = ([], []) if whole else drawn_boxes(drawing.get("boxes"))
    texts = {field.name: typed_text(field.name, typed.get(field.name)) for field in FIELDS}
    if whole:
        texts["masks"] = ""
    values = {field.name: field.read(field.name, texts[field.name]) for field in FIELDS}
    masks = values.pop("masks")
    if not boxes and not masks and not whole:
        raise InputError(
            "There is no box yet: drag on the image to draw one, or ask about the whole image."
        )
    questions = Questions(**{name: value for name, value in values.items() if value is not None})
    check_limits(questions, boxes or masks, limits)
    image, digest = read_image(drawing, limits)
    if whole:
        boxes, colours = [(0, 0, *image.size)], [_NO_COLOUR]
    elif not boxes:
        colours = [_NO_COLOUR] * len(masks)
    regions = (tuple(boxes), None if masks is None else texts["masks"])
    key = (digest, image.size, regions, questions.views, questions.masks_as)
    return VisitorQuestion(image, boxes or None, masks, colours, questions, key)


def drawn_boxes(entries: Any) -> tuple[list[Box], list[str]]:
    """Boxes and their colours in the order they were drawn; the board sends the last one first.

    Args:
        entries: a list with a mapping for each box; None for no boxes.

    Raises:
        InputError: no list, or an entry that is not a box.
    """
    if not isinstance(entries, (list, tuple, type(None))):
        raise InputError(f"boxes: expected a list, got {entries!r:.80}")
    boxes: list[Box] = []
    colours = []
    for entry in reversed(entries or ()):
        try:
            scale = float(entry.get("scaleFactor") or 1)  # screen pixels per pixel of the image
            x1, y1, x2, y2 = (
                round(float(entry[side]) / scale) for side in ("xmin", "ymin", "xmax", "ymax")
            )
        except (AttributeError, KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise InputError(
                f"boxes: expected xmin, ymin, xmax and ymax, got {entry!r:.80}"
            ) from error
        colour = _COLOUR.match(str(entry.get("color", "")))
        boxes.append((x1, y1, x2, y2))
        colours.append("rgb({}, {}, {})".format(*colour.groups()) if colour else _NO_COLOUR)
    return boxes, colours


def read_image(drawing: Any, limits: ServeSettings) -> tuple[Image.Image, Hashable]:
    """The image as the visitor sees it: upright by its EXIF data, turned by the page's buttons.

    Args:
        drawing: value of the drawing board.
        limits: its max_body and max_pixels are checked before anything is decoded.

    Returns:
        The image, and a digest that is equal for equal images.

    Raises:
        RequestError, InputError: no image, or a damaged or too large one.
    """
    try:
        path = Path(drawing["image"]["path"])
        turns = int(drawing.get("orientation") or 0) % 4
    except (AttributeError, KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise InputError(f"image: expected an uploaded file, got {drawing!r:.80}") from error
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # the page may have been open for hours
        raise InputError("image: the upload has expired; please upload it again") from error
    if len(data) > limits.max_body:
        raise RequestError(
            "too_large", f"image: expected at most {limits.max_body:,} bytes, got {len(data):,}"
        )
    sent = open_sent_image(data, max_pixels=limits.max_pixels)
    sent.image.getexif()[ExifTags.Base.Orientation] = sent.orientation
    image = ImageOps.exif_transpose(sent.image)
    digest = hashlib.sha256(data).digest(), turns
    return (image.transpose(_CLOCKWISE[turns]) if turns else image), digest


def board(path: str, boxes: Sequence[Box] = ()) -> dict[str, Any]:
    """An image with boxes for the drawing board, the last box first."""
    corners = ("xmin", "ymin", "xmax", "ymax")
    return {
        "image": path,
        "boxes": [dict(zip(corners, map(round, box))) for box in reversed(boxes)],
    }
