"""A table with one line per region, for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.image_result import ImageResult, RegionId, best_category
from lavis_dynrefer.structures import NamedScore, RegionPrediction

_CORNERS = ("x1", "y1", "x2", "y2")
_HEAD = ("image", "path", "width", "height", "image_id", "region", *_CORNERS)
_ANSWERS = ("caption", "caption_score", "category", "tags", "tag_scores")


def to_csv(results: Collection[ImageResult], file: TextIO) -> None:
    """Write the table; an image without regions has no line.

    Tags and their scores are lists with semicolons. Every attribute and category has a column of
    scores of its own, "attribute:NAME" (in [0, 1]) and "category:NAME" (logits), and every task one
    with the scales of its views.
    """
    wide = _wide_columns(results)
    table = csv.DictWriter(file, [*_HEAD, *_ANSWERS, *wide], lineterminator="\n")
    table.writeheader()
    for result in results:
        for number, region in zip(result.ids, result.regions):
            table.writerow({**_head(result, number, region), **_answers(region)})


def from_csv(file: Iterable[str]) -> list[ImageResult]:
    """Inverse of `to_csv`, but for images without regions.

    Numbers that stand for ids come back as numbers.

    Raises:
        ValueError: the table was not written by `to_csv`; names the line.
    """
    table = csv.DictReader(file)
    missing = {*_HEAD, *_ANSWERS} - set(table.fieldnames or ())
    if missing:
        raise InputError(f"expected a table of dynrefer predict; it has no {sorted(missing)}")
    images: dict[str, dict[str, Any]] = {}
    for row in table:
        if None in row or None in row.values():
            raise InputError(f"line {table.line_num}: expected {len(table.fieldnames or ())} cells")
        try:
            region = _region(row)
        except ValueError as error:
            raise InputError(f"line {table.line_num}: {error}") from error
        entry = images.setdefault(row["image"], {"row": row, "ids": [], "regions": []})
        entry["ids"].append(_id(row["region"]))
        entry["regions"].append(region)
    return [_image(**entry) for entry in images.values()]


def _wide_columns(results: Collection[ImageResult]) -> list[str]:
    attributes: set[str] = set()
    categories: set[str] = set()
    tasks: dict[str, None] = {}  # in order
    for region in (region for result in results for region in result.regions):
        attributes.update(name for name, _ in region.attributes)
        categories.update(name for name, _ in region.categories)
        tasks.update(dict.fromkeys(region.scales))
    return [
        *(f"attribute:{name}" for name in sorted(attributes)),
        *(f"category:{name}" for name in sorted(categories)),
        *(f"scales:{task}" for task in tasks),
    ]


def _head(result: ImageResult, number: RegionId, region: RegionPrediction) -> dict[str, Any]:
    return {
        "image": result.image,
        "path": result.path,
        "width": result.width,
        "height": result.height,
        "image_id": result.image_id,
        "region": number,
        **dict(zip(_CORNERS, region.box)),
    }


def _answers(region: RegionPrediction) -> dict[str, Any]:
    return {
        "caption": region.caption,
        "caption_score": region.caption_score,
        "category": best_category(region)[0] if region.categories else None,
        "tags": _join(name for name, _ in region.tags),
        "tag_scores": _join(score for _, score in region.tags),
        **{f"attribute:{name}": score for name, score in region.attributes},
        **{f"category:{name}": score for name, score in region.categories},
        **{f"scales:{task}": _join(scales) for task, scales in region.scales.items()},
    }


def _image(
    row: Mapping[str, str], ids: Sequence[RegionId], regions: Sequence[RegionPrediction]
) -> ImageResult:
    return ImageResult(
        image=row["image"],
        path=row["path"],
        width=int(row["width"]),
        height=int(row["height"]),
        regions=tuple(regions),
        ids=tuple(ids),
        image_id=int(row["image_id"]) if row["image_id"] else None,
    )


def _region(row: Mapping[str, str]) -> RegionPrediction:
    x1, y1, x2, y2 = (float(row[name]) for name in _CORNERS)
    scores = (float(score) for score in _split(row["tag_scores"]))
    return RegionPrediction(
        box=(x1, y1, x2, y2),
        caption=row["caption"] if row["caption"] or row["caption_score"] else None,
        caption_score=float(row["caption_score"]) if row["caption_score"] else None,
        tags=tuple(zip(_split(row["tags"]), scores)),
        attributes=_scores(row, "attribute:"),
        categories=_scores(row, "category:"),
        scales={
            name[len("scales:") :]: tuple(float(scale) for scale in _split(value))
            for name, value in row.items()
            if name.startswith("scales:") and value
        },
    )


def _scores(row: Mapping[str, str], prefix: str) -> tuple[NamedScore, ...]:
    pairs = [
        (name[len(prefix) :], float(value))
        for name, value in row.items()
        if name.startswith(prefix) and value
    ]
    return tuple(sorted(pairs, key=lambda pair: -pair[1]))


def _id(text: str) -> RegionId:
    return int(text) if text.isdecimal() else text


def _join(values: Iterable[Any]) -> str:
    """A cell with several values: itself a line of csv, so that a value may hold a semicolon."""
    line = io.StringIO()
    csv.writer(line, delimiter=";", lineterminator="").writerow(values)
    return line.getvalue()


def _split(cell: str) -> Iterator[str]:
    return iter(next(csv.reader([cell], delimiter=";"), []))
