"""Images of occluded regions, with the answers for the box alone and for the mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lavis_dynrefer.images.mask_encoding import decode_mask
from lavis_dynrefer.pages.region_drawing import contact_sheet, draw_regions
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.structures import RegionPrediction
from lavis_dynrefer.synthetic.crowded_places import OCCLUDED

_AROUND = 1.2  # of the longer side of a box, shown on each side of it
_SIDE = 300  # pixels of an example
_DIM = 0.35  # light of what the mask leaves out, in the small image


def draw_occluded(
    predictor: RegionPredictor,
    described: Mapping[Path, Sequence[Mapping[str, Any]]],
    *,
    count: int = 12,
    seed: int = 0,
    columns: int = 4,
) -> Image.Image:
    """A sheet of occluded regions, drawn at random, no more than one from an image.

    Args:
        predictor: answers.
        described: image file -> rows of the truth, see `described_objects`.
        count: number of regions.
        seed: of the choice.
        columns: of the sheet.
    """
    occluded = {
        path: [row for row in rows if row["visible"] < OCCLUDED] for path, rows in described.items()
    }
    rng = np.random.default_rng(seed)
    paths = [path for path, rows in occluded.items() if rows]
    chosen = [paths[place] for place in rng.permutation(len(paths))[:count]]
    rows = [occluded[path][rng.integers(len(occluded[path]))] for path in chosen]
    answers = [
        predictor.predict_iter((path, [row["box"]], masks) for path, row, masks in zip(*jobs))
        for jobs in (
            (chosen, rows, [None] * len(rows)),
            (chosen, rows, [[row["mask"]] for row in rows]),
        )
    ]
    tiles = []
    for path, row, (by_box,), (by_mask,) in zip(chosen, rows, *answers):
        with Image.open(path) as image:
            tiles.append(_tile(image.convert("RGB"), row, by_box, by_mask))
    return contact_sheet(tiles, columns=columns)


def _tile(
    image: Image.Image, row: Mapping[str, Any], by_box: RegionPrediction, by_mask: RegionPrediction
) -> Image.Image:
    """The surroundings of a region, its mask in the corner, and what was said."""
    x1, y1, x2, y2 = row["box"]
    half = max(x2 - x1, y2 - y1) * (0.5 + _AROUND)
    half = min(half, image.width / 2, image.height / 2)
    left = min(max((x1 + x2) / 2 - half, 0), image.width - 2 * half)
    top = min(max((y1 + y2) / 2 - half, 0), image.height - 2 * half)
    frame = (left, top, left + 2 * half, top + 2 * half)
    scale = _SIDE / (2 * half)
    shown = image.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC, box=frame)
    inside = Image.fromarray(decode_mask(row["mask"]).astype(np.uint8) * 255)
    inside = inside.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, box=frame)
    dark = shown.point(lambda value: int(value * _DIM))
    small = Image.composite(shown, dark, inside).resize((_SIDE // 3, _SIDE // 3))
    shown.paste(small, (0, 0))
    box = ((x1 - left) * scale, (y1 - top) * scale, (x2 - left) * scale, (y2 - top) * scale)
    text = f"truth: {row['phrase']}\nbox: {by_box.caption}\nmask: {by_mask.caption}"
    return draw_regions(shown, [box], [text])
