"""Results as rows of plain json in which every column has one type, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Union

from lavis_dynrefer.errors import InputError, shorten
from lavis_dynrefer.formats.image_result import Category, ImageResult
from lavis_dynrefer.formats.result_parts.region_masks import Mask, read_mask
from lavis_dynrefer.structures import RegionPrediction, ScoredName

_NAMED_SCORES = ("tags", "attributes", "categories")
_MAX_SIDE = 2**31  # pixels
_Kinds = Union[type, tuple[type, ...]]
_OLD_IMAGE = "picture"  # in rows of earlier versions; their scores are lists [name, score]


def to_row(result: ImageResult) -> dict[str, Any]:
    """Plain lists and numbers, ready for json.

    Regions from a user's own file that had categories or masks there have `category`, `polygons`
    and `rle` as well.
    """
    regions = []
    for row, region in enumerate(result.regions):
        answers = region.to_dict()
        del answers["probabilities"]  # they stand beside the scores
        for key in _NAMED_SCORES:
            answers[key] = [
                {"name": one.name, "probability": one.probability, "score": one.score}
                for one in getattr(region, key)
            ]
        regions.append({"id": result.ids[row], **answers})
    for region_row, category in zip(regions, result.categories):
        region_row["category"] = None if category is None else category._asdict()
    for region_row, mask in zip(regions, result.masks):
        is_rle = isinstance(mask, Mapping)
        region_row["polygons"] = None if is_rle else mask
        region_row["rle"] = mask if is_rle else None
    return {
        "image": result.image,
        "path": result.path,
        "width": result.width,
        "height": result.height,
        "image_id": result.image_id,
        "regions": regions,
    }


def from_row(row: Any) -> ImageResult:
    """Inverse of `to_row`; reads the rows of earlier versions, too.

    Raises:
        InputError: not a row of ours, a field is missing or of another type, or a number is not
            finite; names the field.
    """
    row = own_row(row)
    regions = [_Fields(region, f"regions[{n}].") for n, region in enumerate(row["regions"])]
    fields = _Fields(row, "")
    given = [own_fields(region.row, region.place) for region in regions]
    return ImageResult(
        image=fields.get("image", str),
        path=fields.get("path", str),
        width=fields.whole("width"),
        height=fields.whole("height"),
        regions=tuple(map(_prediction, regions)),
        ids=tuple(region.get("id", (int, str)) for region in regions),
        image_id=fields.get("image_id", (int, type(None))),
        categories=_column([category for category, _ in given]),
        masks=_column([mask for _, mask in given]),
    )


def is_old_row(row: Mapping[str, Any]) -> bool:
    """Whether an earlier version wrote a row that `from_row` has read."""
    scores = (region[key] for region in row["regions"] for key in _NAMED_SCORES)
    return _OLD_IMAGE in row or any(named and isinstance(named[0], list) for named in scores)


def own_row(row: Any) -> Mapping[str, Any]:
    """Check that a value is a row of ours, with an image and regions.

    Raises:
        InputError: it is not.
    """
    if isinstance(row, dict):
        if "image" not in row and _OLD_IMAGE in row:
            row = {"image": row[_OLD_IMAGE], **row}
        if isinstance(row.get("image"), str) and isinstance(row.get("regions"), list):
            return dict(row)
    raise InputError(
        f"expected a row of dynrefer predict with image and regions, got {_shown(row)}"
    )


def own_fields(region: Any, place: str = "") -> tuple[Category | None, Mask | None]:
    """Category and mask of a region, where they came from the user's own file.

    Raises:
        InputError: they are damaged.
    """
    row = region if isinstance(region, dict) else {}
    category = None
    if row.get("category") is not None:
        fields = _Fields(row["category"], f"{place}category.")
        category = Category(fields.get("id", int), fields.get("name", str))
    try:
        return category, read_mask(row.get("polygons") or row.get("rle"))
    except InputError as error:
        raise InputError(f"{place}{error}") from error


class _Fields:
    """The fields of an object, checked as they are read."""

    def __init__(self, row: Any, place: str) -> None:
        if not isinstance(row, dict):
            raise InputError(f"{place.rstrip('.')}: expected an object, got {_shown(row)}")
        self.row = row
        self.place = place

    def get(self, key: str, kinds: _Kinds) -> Any:
        if key not in self.row:
            raise InputError(f"{self.place}{key} is missing")
        return self.check(key, self.row[key], kinds)

    def check(self, key: str, value: Any, kinds: _Kinds) -> Any:
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise self.error(key, value)
        return value

    def error(self, key: str, value: Any) -> InputError:
        return InputError(f"{self.place}{key}: unexpected value {_shown(value)}")

    def whole(self, key: str) -> int:
        number: int = self.get(key, int)
        if not 0 < number < _MAX_SIDE:
            raise self.error(key, number)
        return number

    def number(self, key: str, value: Any) -> float:
        try:
            number = float(self.check(key, value, (int, float)))
        except OverflowError as error:
            raise self.error(key, value) from error
        if not math.isfinite(number):
            raise self.error(key, value)
        return number

    def numbers(self, key: str, values: Any) -> tuple[float, ...]:
        return tuple(self.number(key, value) for value in self.check(key, values, list))

    def share(self, key: str, value: Any) -> float | None:
        """A number that may be missing, as in rows of earlier versions."""
        return None if value is None else self.number(key, value)

    def scored_names(self, key: str) -> tuple[ScoredName, ...]:
        found = []
        for pair in self.get(key, list):
            probability = None
            if isinstance(pair, dict):
                probability = self.share(key, pair.get("probability"))
                pair = [pair.get("name"), pair.get("score")]
            if not isinstance(pair, list) or len(pair) != 2:
                raise self.error(key, pair)
            name, score = self.check(key, pair[0], str), self.number(key, pair[1])
            found.append(ScoredName(name, score, probability))
        return tuple(found)


def _prediction(fields: _Fields) -> RegionPrediction:
    box = fields.numbers("box", fields.get("box", list))
    if len(box) != 4:
        raise fields.error("box", box)
    score = fields.get("caption_score", (int, float, type(None)))
    scales = fields.get("scales", dict)
    return RegionPrediction(
        box=box,
        caption=fields.get("caption", (str, type(None))),
        caption_score=None if score is None else fields.number("caption_score", score),
        tags=fields.scored_names("tags"),
        attributes=fields.scored_names("attributes"),
        categories=fields.scored_names("categories"),
        scales={task: fields.numbers("scales", values) for task, values in scales.items()},
        familiarity=fields.share("familiarity", fields.row.get("familiarity")),
    )


def _column(values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(values) if any(value is not None for value in values) else ()


def _shown(value: Any) -> str:
    try:
        return shorten(json.dumps(value), 80)
    except RecursionError:
        return "a deeply nested value"
