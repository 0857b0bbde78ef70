"""Images with numbered boxes, and text about each box below."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Union

from PIL import Image, ImageDraw, ImageFont

from lavis_dynrefer.errors import InputError, shorten
from lavis_dynrefer.structures import Box

Font = Union[ImageFont.FreeTypeFont, ImageFont.ImageFont]
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#000075")
REJECTED_COLOUR = "#e5383b"
_FONTS = ("NotoSansCJK-Regular.ttc", "DejaVuSans.ttf", "Arial Unicode.ttf", "arial.ttf")
LINE_HEIGHT = 20  # pixels
FONT_SIZE = 14  # pixels
MIN_WIDTH = 160  # pixels; leaves room for text below a narrow image
MAX_TEXT = 1000  # characters of a box; without a limit, hostile text makes a huge image
_INDENT = 28  # pixels, of the text beside a number
_NUMBER_HEIGHT = 17  # pixels
_MIN_MARK = 4.0  # pixels, side of the mark that stands for an empty box


def draw_regions(
    image: Image.Image,
    boxes: Sequence[Box],
    lines: Sequence[str],
    *,
    rejected: bool = False,
    remark: str = "",
) -> Image.Image:
    r"""Draw numbered boxes, and the text of each box below the image.

    Args:
        image: left unchanged.
        boxes: xyxy in pixels of `image`; any numbers, see `visible_box`.
        lines: text of each box, wrapped to the width and cut at `MAX_TEXT` characters; "\n"
            starts a new line.
        rejected: draw all boxes in red, as unusable ones.
        remark: text about the whole image, above the others.
    """
    font = _font(FONT_SIZE)
    width = max(image.width, MIN_WIDTH)
    room = width - _INDENT - 6
    texts = [
        [part for line in shorten(text, MAX_TEXT).split("\n") for part in _wrap(line, font, room)]
        for text in lines
    ]
    remarks = list(_wrap(remark, font, width - 12)) if remark else []
    height = image.height + (sum(map(len, texts)) + len(remarks)) * LINE_HEIGHT + 8
    sheet = Image.new("RGB", (width, height), "white")
    sheet.paste(image.convert("RGB"))
    draw = ImageDraw.Draw(sheet)
    top = image.height + 4
    for line in remarks:
        draw.text((6, top), line, fill=REJECTED_COLOUR, font=font)
        top += LINE_HEIGHT
    shown = [visible_box(box, image.size) for box in boxes]
    palette = (REJECTED_COLOUR,) if rejected else COLOURS
    colours = [palette[index % len(palette)] for index in range(len(boxes))]
    for index, (box, colour, text) in enumerate(zip(shown, colours, texts)):
        if box is not None:
            draw.rectangle(box, outline=colour, width=2)
        draw.text((6, top), str(index + 1), fill=colour, font=font)
        for row, line in enumerate(text):
            draw.text((_INDENT, top), line, fill=colour if row == 0 else "#444444", font=font)
            top += LINE_HEIGHT
    _draw_numbers(draw, shown, colours, image.size)  # last: no outline crosses them out
    return sheet


def visible_box(box: Box, size: tuple[int, int]) -> Box | None:
    """The part of a box that lies in the image and can be drawn.

    An empty box becomes a small mark; a box outside becomes a mark at the nearest edge.

    Args:
        box: four numbers, xyxy in pixels; corners may be in the wrong order.
        size: width and height of the image in pixels.

    Returns:
        xyxy inside the image, with x1 < x2 and y1 < y2; None if a number is not finite.

    >>> visible_box((30.0, -904.0, 50.0, -800.0), (100, 80))
    (30.0, 0.0, 50.0, 4.0)
    """
    if not all(map(math.isfinite, box)):
        return None
    sides = [_visible_side(box[axis], box[axis + 2], size[axis]) for axis in (0, 1)]
    return sides[0][0], sides[1][0], sides[0][1], sides[1][1]


def number_places(
    boxes: Sequence[Box | None], size: tuple[int, int], *, height: float
) -> list[Box | None]:
    """Place the number of each box: beside it, and away from the numbers before it.

    Args:
        boxes: as `visible_box` returns them; None gets no number.
        size: width and height of the image in pixels.
        height: of a number in pixels.
    """
    taken: list[Box] = []
    places: list[Box | None] = []
    for index, box in enumerate(boxes):
        if box is None:
            places.append(None)
            continue
        width = height * (0.6 + 0.55 * len(str(index + 1)))
        candidates = _around(box, width, height, size)
        place = min(candidates, key=lambda place: sum(_overlap(place, other) for other in taken))
        taken.append(place)
        places.append(place)
    return places


def contact_sheet(images: Sequence[Image.Image], *, columns: int) -> Image.Image:
    """Images side by side on white, row by row; each row is as high as its highest image."""
    if not images:
        raise InputError("contact_sheet needs at least one image")
    rows = [images[first : first + columns] for first in range(0, len(images), columns)]
    width = max(image.width for image in images)
    heights = [max(image.height for image in row) for row in rows]
    size = (columns * (width + 8) + 8, sum(heights) + 8 * len(heights) + 8)
    sheet = Image.new("RGB", size, "white")
    top = 8
    for row, height in zip(rows, heights):
        for column, image in enumerate(row):
            sheet.paste(image, (8 + column * (width + 8), top))
        top += height + 8
    return sheet


def titled(image: Image.Image, title: str) -> Image.Image:
    """The image with a line of text above it."""
    sheet = Image.new("RGB", (image.width, image.height + 2 * LINE_HEIGHT), "white")
    sheet.paste(image, (0, 2 * LINE_HEIGHT))
    ImageDraw.Draw(sheet).text((8, 12), title, fill="black", font=_font(FONT_SIZE + 4))
    return sheet


@cache
def _font(size: int) -> Font:
    """An installed font that knows many scripts, else Pillow's own, which knows only ASCII."""
    for name in _FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def _visible_side(start: float, end: float, length: int) -> tuple[float, float]:
    """Both ends within 0..length, at least a mark apart if the image is large enough."""
    low, high = sorted(min(max(value, 0.0), float(length)) for value in (start, end))
    if high - low < _MIN_MARK:
        low = max(min(low, length - _MIN_MARK), 0.0)
        high = min(low + _MIN_MARK, float(length))
    return low, high


def _draw_numbers(
    draw: ImageDraw.ImageDraw,
    boxes: Sequence[Box | None],
    colours: Sequence[str],
    size: tuple[int, int],
) -> None:
    places = number_places(boxes, size, height=_NUMBER_HEIGHT)
    for index, (place, colour) in enumerate(zip(places, colours)):
        if place is not None:
            draw.rectangle(place, fill=colour)
            middle = ((place[0] + place[2]) / 2, (place[1] + place[3]) / 2)
            draw.text(middle, str(index + 1), fill="white", font=_font(FONT_SIZE), anchor="mm")


def _around(box: Box, width: float, height: float, size: tuple[int, int]) -> list[Box]:
    """Places for a number beside a box; on it, the number would hide small objects."""
    x1, y1, x2, y2 = box
    corners = [(x, y) for y in (y1 - height, y2) for x in (x1, x2 - width)]
    corners += [(x, y) for y in (y1, y2 - height) for x in (x1 - width, x2)]
    inside = [
        (left, top, left + width, top + height)
        for left, top in corners
        if left >= 0 and top >= 0 and left + width <= size[0] and top + height <= size[1]
    ]
    return inside or [(max(x1, 0.0), max(y1, 0.0), x1 + width, y1 + height)]


def _overlap(box: Box, other: Box) -> float:
    """Area shared by two boxes, in square pixels."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return max(width, 0.0) * max(height, 0.0)


def _wrap(text: str, font: Font, room: float) -> Iterator[str]:
    """Lines no wider than `room` pixels; a word that is too wide is broken."""
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if font.getlength(longer) <= room:
            line = longer
            continue
        if line:
            yield line
        while font.getlength(word) > room:
            # From the front: the word may be far longer than a line.
            too_long = (n for n in range(1, len(word)) if font.getlength(word[: n + 1]) > room)
            fits = next(too_long, len(word))
            yield word[:fits]
            word = word[fits:]
        line = word
    yield line
