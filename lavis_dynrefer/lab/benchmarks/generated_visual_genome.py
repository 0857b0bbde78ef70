"""Raw annotation files like those of Visual Genome V1.2, of any size, for measuring."""

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

IMAGES = 108_077  # Visual Genome V1.2
REGIONS = 5_408_689
SPLIT_SIZES = {"train": 77_398, "val": 5_000, "test": 5_000}  # densecap_splits.json, of IMAGES
NEGATIVE = 5_654 / REGIONS  # share of regions with a negative corner
COCO = 51_208 / IMAGES  # share of images that are in COCO too
OUTSIDE = 1 / 100_000  # assumed; a few exist
FLAT = 1 / 100_000  # assumed
_LAST_ID = 2_417_997
_SIZES = np.array(  # width and height in pixels; most are 500 pixels wide
    [*[(500, 375)] * 4, *[(500, 333)] * 2, *[(375, 500)] * 2, (640, 480), (800, 600), (1024, 768)]
)
# Mean and deviation of the logarithm of width and height relative to the image: images 1 to 5.
_SIDES = ((-1.83, 0.82), (-1.44, 0.80))
_QUALITY = 90  # of painted JPEGs
_AT_ONCE = 1024  # images in memory
# Pattern -> regions with that number of words among the 1,278 of Visual Genome's images 1 to 5,
# but for the last one, which is too long. N, A, P: a noun, an adjective, a preposition.
_PATTERNS = {
    "N": 2,
    "A N": 15,
    "a A N": 75,
    "the N is A": 291,
    "a N P the N": 372,
    "a A N P the N": 277,
    "A N and N P the N": 151,
    "the A N is P the A N": 64,
    "a N with A N P the A N": 25,
    "a A N and a A N P the A N of the N": 4,
    "a A N and a A N P the A N with the A N P the N": 2,
}
_NOUNS = """
man woman window tree shirt building sign wall grass sky table hair leaves chair car road plate
people street person hand head fence water bag clock door pole boy light girl pants jacket shadow
leg snow cloud train bus horse bike floor hat wheel arm sidewalk flower bench roof shoe glass dog
letter boat elephant leaf beach wave rock tail ear helmet board lamp cup cat bowl box field eye
zebra giraffe tower bottle mirror pillow shelf lid cabinet keyboard screen sink bed counter toilet
towel plant cow sheep bird wing engine truck tire license umbrella ball racket glove cap skateboard
surfboard kite stripe brick tile curtain image frame book paper vase food pizza cheese cake fork
knife spoon banana apple orange carrot broccoli sandwich napkin tray oven microwave refrigerator
handle knob button wire
"""
_ADJECTIVES = """
white black green blue brown red yellow gray large small wooden tall orange young metal old silver
long dark short pink round big grassy bright clear purple little bare blonde striped empty wet
sandy dirty stone colorful plastic leafy cloudy glass parked open paved tan rocky concrete thin
hanging framed shiny rectangular square leather curly snowy
"""
_PREPOSITIONS = """
on in behind near under above along beside by against below across outside over underneath inside
around between beneath past
"""
_WORDS = {"N": _NOUNS.split(), "A": _ADJECTIVES.split(), "P": _PREPOSITIONS.split()}
# Shares of the same 1,278 regions; the last one is assumed.
CAPITALS = 332 / 1278
NEWLINES = 13 / 1278
BLANKS = 77 / 1278
STOPS = 65 / 1278
EMPTY = 1 / 100_000

Painter = Callable[[np.random.Generator, int, int], bytes]


def write_visual_genome(
    folder: Path,
    *,
    images: int = IMAGES,
    regions: int = REGIONS,
    seed: int = 0,
    paint: Painter | None = None,
) -> None:
    """Write region descriptions, image data, splits and image files, unless they exist.

    The images are empty files unless painted: preparing only reads their names.

    Args:
        folder: created if missing; laid out like the root of the real dataset.
        images: number of images, at least 3.
        regions: number of regions of all images together.
        seed: equal seeds give equal files.
        paint: (random generator, width, height) -> bytes of an image file.

    Raises:
        InputError: too few images for three splits.
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
    """Disjoint and unsorted; the remaining images are in no split."""
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
    """Items of region_descriptions.json: region ids are consecutive within an image only."""
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
    """Boxes with the sizes of real ones, some of them invalid as some real ones are.

    Args:
        sizes: (R, 2) width and height of each region's image, in pixels.
        rng: random generator.

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
    """A JPEG with coarse and fine structure, as costly to decode as a photograph."""
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


def draw_phrases(count: int, rng: np.random.Generator) -> list[str]:
    """Phrases with the lengths, capitals and stray spaces of real ones."""
    weights = np.array(list(_PATTERNS.values()), dtype=float)
    chosen = rng.choice(len(weights), size=count, p=weights / weights.sum())
    patterns = [pattern.split() for pattern in _PATTERNS]
    longest = max(pattern.count(kind) for pattern in patterns for kind in _WORDS)
    supply = {kind: iter(_draw_words(kind, longest * count, rng)) for kind in _WORDS}
    odd = rng.random((count, 5)) < (CAPITALS, NEWLINES, BLANKS, STOPS, EMPTY)  # (count, 5)
    return [
        _dress(" ".join([next(supply[w]) if w in supply else w for w in patterns[number]]), marks)
        for number, marks in zip(chosen.tolist(), odd.tolist())
    ]


def _draw_words(kind: str, count: int, rng: np.random.Generator) -> list[str]:
    """Random words; as in any text, few are frequent and many are rare."""
    words = _WORDS[kind]
    shares = 1 / np.arange(1, len(words) + 1)
    picked = rng.choice(len(words), size=count, p=shares / shares.sum())
    return np.array(words, dtype=object)[picked].tolist()


def _dress(phrase: str, marks: list[bool]) -> str:
    capital, newline, blank, stop, empty = marks
    if empty:
        return ""
    phrase = phrase.capitalize() if capital else phrase
    return phrase + "." * stop + " " * blank + "\n" * newline
