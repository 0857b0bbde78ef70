"""Raw annotation files in the shape of Visual Genome V1.2, of any size, for measuring."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lavis_dynrefer.datasets.sources import visual_genome
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.lab.benchmarks.phrases import draw_phrases

IMAGES = 108_077  # Visual Genome V1.2
REGIONS = 5_408_689
SPLIT_SIZES = {"train": 77_398, "val": 5_000, "test": 5_000}  # densecap_splits.json, of IMAGES
NEGATIVE = 5_654 / REGIONS  # regions with a negative corner
COCO = 51_208 / IMAGES  # images that are in COCO too
OUTSIDE = 1 / 100_000  # assumed; there are a few
FLAT = 1 / 100_000  # assumed
_LAST_ID = 2_417_997
_SIZES = np.array(  # width and height in pixels; most are 500 pixels wide
    [*[(500, 375)] * 4, *[(500, 333)] * 2, *[(375, 500)] * 2, (640, 480), (800, 600), (1024, 768)]
)
# Logarithm of width and height as a share of the image's, and its spread: images 1 to 5.
_SIDES = ((-1.83, 0.82), (-1.44, 0.80))
_QUALITY = 90  # of painted JPEGs
_AT_ONCE = 1024  # images in memory

Painter = Callable[[np.random.Generator, int, int], bytes]


def write_visual_genome(
    folder: Path,
    *,
    images: int = IMAGES,
    regions: int = REGIONS,
    seed: int = 0,
    paint: Painter | None = None,
) -> None:
    """Write region descriptions, image data, splits and image files; nothing if already there.

    The images are empty files unless painted: preparing only looks at their names.

    Args:
        folder: made if missing; laid out as the root of the real dataset.
        images: how many, at least 3.
        regions: how many in all images together.
        seed: equal seeds give equal files.
        paint: (randomness, width, height) -> bytes of an image file.

    Raises:
        ValueError: too few images for three splits.
    """
    if images < len(SPLIT_SIZES):
        raise InputError(f"images: expected at least {len(SPLIT_SIZES)}, got {images}")
    finished = folder / visual_genome.REGION_DESCRIPTIONS.name
    if finished.exists():
        return
    rng = np.random.default_rng(seed)
    last = max(_LAST_ID, 2 * images)
    ids = np.sort(rng.choice(last, size=images, replace=False)) + 1
    sizes = _SIZES[rng.integers(len(_SIZES), size=images)]
    for name in ("VG_100K", "VG_100K_2"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    _write_splits(folder / visual_genome.SPLITS_FILE.name, ids, rng)
    rows = _image_rows(ids, sizes, rng)
    _write_list(folder / visual_genome.IMAGE_DATA.name, _with_files(rows, folder, rng, paint))
    counts = rng.multinomial(regions, np.full(images, 1 / images))
    unfinished = finished.with_suffix(".part")
    _write_list(unfinished, _region_rows(ids, sizes, counts, rng))
    unfinished.replace(finished)


def _write_splits(path: Path, ids: np.ndarray, rng: np.random.Generator) -> None:
    """Disjoint, unsorted; most of the images that remain are in none."""
    shuffled = rng.permutation(ids).tolist()
    splits = {}
    for split, size in SPLIT_SIZES.items():
        count = max(1, size * len(ids) // IMAGES)
        splits[split], shuffled = shuffled[:count], shuffled[count:]
    path.write_text(json.dumps(splits), encoding="utf-8")


def _image_rows(
    ids: np.ndarray, sizes: np.ndarray, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    in_coco = rng.random(len(ids)) < COCO
    second = rng.random(len(ids)) < 0.4  # share of the second archive
    for row, image_id in enumerate(ids.tolist()):
        width, height = sizes[row].tolist()
        archive = "VG_100K_2" if second[row] else "VG_100K"
        yield {
            "width": width,
            "url": f"https://generated.invalid/{archive}/{image_id}.jpg",
            "height": height,
            "image_id": image_id,
            "coco_id": image_id % 581_929 if in_coco[row] else None,
            "flickr_id": image_id * 1_601 if in_coco[row] else None,
        }


def _with_files(
    rows: Iterator[dict[str, Any]], folder: Path, rng: np.random.Generator, paint: Painter | None
) -> Iterator[dict[str, Any]]:
    for row in rows:
        content = b"" if paint is None else paint(rng, row["width"], row["height"])
        folder.joinpath(*row["url"].split("/")[-2:]).write_bytes(content)
        yield row


def _region_rows(
    ids: np.ndarray, sizes: np.ndarray, counts: np.ndarray, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """Items of region_descriptions.json: region ids count up in an image and jump between them."""
    order = rng.permutation(len(ids))
    first_id = np.empty(len(ids), dtype=np.int64)
    first_id[order] = np.cumsum(counts[order]) - counts[order] + 1
    for start in range(0, len(ids), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        owner = np.repeat(np.arange(len(ids))[some], counts[some])  # (regions of these images,)
        boxes = draw_boxes(sizes[owner], rng).tolist()
        phrases = draw_phrases(len(owner), rng)
        row = 0
        for image in range(*some.indices(len(ids))):
            image_id, region_id = int(ids[image]), int(first_id[image])
            described = []
            for _ in range(counts[image]):
                x, y, width, height = boxes[row]
                described.append(
                    {
                        "region_id": region_id,
                        "width": width,
                        "height": height,
                        "image_id": image_id,
                        "phrase": phrases[row],
                        "y": y,
                        "x": x,
                    }
                )
                row += 1
                region_id += 1
            yield {"regions": described, "id": image_id}


def draw_boxes(sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Boxes of the sizes of real ones, some of them wrong as some real ones are.

    Args:
        sizes: (R, 2) width and height of the image of each, in pixels.
        rng: source of randomness.

    Returns:
        (R, 4) int64 x, y, width, height in pixels.
    """
    mean, spread = np.array(_SIDES).T
    shares = np.exp(rng.normal(mean, spread, size=sizes.shape)).clip(max=1)
    sides = np.maximum(1, (shares * sizes).astype(np.int64))
    corners = (rng.random(sizes.shape) * (sizes - sides + 1)).astype(np.int64)
    negative, outside, flat = (rng.random((len(sizes), 3)) < (NEGATIVE, OUTSIDE, FLAT)).T
    corners[negative, 0] = -rng.integers(1, 5, size=negative.sum())
    corners[outside, 1] = -1000
    sides[flat, 1] = 0
    return np.concatenate([corners, sides], axis=1)


def paint_jpeg(rng: np.random.Generator, width: int, height: int) -> bytes:
    """A JPEG with large and small structure, so that decoding costs what a photograph's does."""
    image = np.zeros((height, width, 3))
    for cells in (4, 16, 64, 256):
        noise = rng.integers(256, size=(cells, cells, 3), dtype=np.uint8)
        layer = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        image += np.asarray(layer) / 4
    file = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _write_list(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """A json list, written item by item."""
    with path.open("w", encoding="utf-8") as file:
        separator = "["
        for row in rows:
            file.write(separator + json.dumps(row))
            separator = ", "
        file.write("]")
