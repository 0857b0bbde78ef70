"""The results of one image, and the numbers that all formats derive from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple, Union

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.result_parts.region_masks import Mask
from lavis_dynrefer.images.boxes import xyxy_to_xywh
from lavis_dynrefer.structures import Box, NamedScore, RegionPrediction

RegionId = Union[int, str]
NO_CATEGORY = "region"  # label of regions without a requested category
_OUTSTANDING = 1.2  # times the mean of a region's attribute scores, as in the released demo


class Category(NamedTuple):
    """A category of COCO json."""

    id: int
    name: str


@dataclass(frozen=True)
class ImageResult:
    """The results of one image.

    Args:
        image: its name, relative to the folder it was found in, with forward slashes.
        path: of the file.
        width: pixels.
        height: pixels.
        regions: one prediction per region, boxes xyxy in pixels.
        ids: one id per region; by default 1, 2, ...
        image_id: its id in the user's own dataset, if it has one.
        categories: one per region, see `OwnCategories`; empty without any.
        masks: one per region, from the user's own dataset; empty without any.

    Raises:
        InputError: the numbers of ids, categories or masks differ from that of the regions.
    """

    image: str
    path: str
    width: int
    height: int
    regions: tuple[RegionPrediction, ...]
    ids: tuple[RegionId, ...] = ()
    image_id: int | None = None
    categories: tuple[Category | None, ...] = ()
    masks: tuple[Mask | None, ...] = ()

    def __post_init__(self) -> None:
        if not self.ids:
            object.__setattr__(self, "ids", tuple(range(1, len(self.regions) + 1)))
        if len(self.ids) != len(self.regions):
            raise InputError(f"expected {len(self.regions)} ids, got {len(self.ids)}")
        for name in ("categories", "masks"):
            number = len(getattr(self, name))
            if number not in (0, len(self.regions)):
                raise InputError(f"expected {len(self.regions)} {name} or none, got {number}")


def category_labels(region: RegionPrediction) -> list[str]:
    """Names of the categories in question; "region" if there are none."""
    return [name for name, _ in region.categories] or [NO_CATEGORY]


def top_category(region: RegionPrediction) -> tuple[str, float | None]:
    """Name and probability of the best category; "region" and None without categories.

    In files of earlier versions, which have no probabilities, the softmax over the logits of these
    categories takes its place: how far the best is ahead of the others, not whether any of them is
    right. A single category has no such share.

    >>> top_category(RegionPrediction((0, 0, 9, 9), categories=(("dog", 1.0), ("cat", 1.0))))
    ('dog', 0.5)
    """
    name = category_labels(region)[0]
    if region.categories and region.categories[0].probability is not None:
        return name, region.categories[0].probability
    if len(region.categories) < 2:
        return name, None
    best = region.categories[0][1]
    return name, 1 / sum(math.exp(logit - best) for _, logit in region.categories)


def outstanding(scores: Sequence[NamedScore]) -> list[str]:
    """Attributes to show as present: those of a probability from 0.5 on.

    Where none has it, as in files of earlier versions and with models that are not calibrated,
    those with outstanding scores, which say what fits best, not how well.

    >>> outstanding([("red", 0.6), ("green", 0.3), ("blue", 0.3)])
    ['red']
    """
    probable = [one[0] for one in scores if (getattr(one, "probability", None) or 0) >= 0.5]
    if probable:
        return probable
    if len(scores) < 2:
        return [name for name, score in scores if score >= 0.5]
    limit = _OUTSTANDING * sum(score for _, score in scores) / len(scores)
    return [name for name, score in scores if score >= limit]


def relative_box(result: ImageResult, region: RegionPrediction) -> Box:
    """Left, top, width and height as fractions of the image, clipped to it."""
    sides = (result.width, result.height) * 2
    x1, y1, x2, y2 = (min(max(value / side, 0.0), 1.0) for value, side in zip(region.box, sides))
    return xyxy_to_xywh((x1, y1, x2, y2))


def distinct_ids(ids: Sequence[RegionId | None], *, first: int = 1) -> list[int]:
    """The whole numbers from `first`, and in place of others numbers above them.

    Numbers that repeat cannot be kept; then all are 1, 2, ...

    >>> distinct_ids([7, None, 3]), distinct_ids([7, 7]), distinct_ids(["a", 0])
    ([7, 8, 3], [1, 2], [1, 2])
    """
    kept = [number for number in ids if type(number) is int and number >= first]
    if len(set(kept)) < len(kept):
        return list(range(1, len(ids) + 1))
    new = count(max(kept, default=0) + 1)
    return [number if type(number) is int and number >= first else next(new) for number in ids]
