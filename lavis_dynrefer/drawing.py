"""Pictures of regions with what was said about them."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from lavis_dynrefer.structures import Box

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#000075")
LINE_HEIGHT = 20  # pixels
FONT_SIZE = 14  # pixels


def draw_regions(image: Image.Image, boxes: Sequence[Box], lines: Sequence[str]) -> Image.Image:
    r"""The picture with numbered boxes, and one line of text per box below it.

    Args:
        image: any picture; left as it is.
        boxes: xyxy in pixels of `image`.
        lines: what to write beside each box's number; "\n" starts another, indented line.
    """
    font = ImageFont.load_default(FONT_SIZE)
    texts = [f"{number}  {line}" for number, line in enumerate(lines, start=1)]
    rows = sum(text.count("\n") + 1 for text in texts)
    sheet = Image.new("RGB", (image.width, image.height + rows * LINE_HEIGHT + 8), "white")
    sheet.paste(image.convert("RGB"))
    draw = ImageDraw.Draw(sheet)
    top = image.height + 4
    for index, (box, text) in enumerate(zip(boxes, texts)):
        colour = COLOURS[index % len(COLOURS)]
        draw.rectangle(box, outline=colour, width=2)
        # Beside the box, not on it: small objects would vanish under their number.
        corner = (max(box[0], 0), box[1] - 18 if box[1] >= 18 else min(box[3] + 2, image.height))
        draw.rectangle((*corner, corner[0] + 16, corner[1] + 17), fill=colour)
        draw.text((corner[0] + 4, corner[1]), str(index + 1), fill="white", font=font)
        for row, line in enumerate(text.split("\n")):
            left, ink = (6, colour) if row == 0 else (28, "#444444")
            draw.text((left, top), line, fill=ink, font=font)
            top += LINE_HEIGHT
    return sheet


def contact_sheet(pictures: Sequence[Image.Image], *, columns: int) -> Image.Image:
    """Pictures side by side, row by row, on white."""
    if not pictures:
        raise ValueError("contact_sheet needs at least one picture")
    width = max(picture.width for picture in pictures)
    height = max(picture.height for picture in pictures)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + 8) + 8, rows * (height + 8) + 8), "white")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        sheet.paste(picture, (8 + column * (width + 8), 8 + row * (height + 8)))
    return sheet
