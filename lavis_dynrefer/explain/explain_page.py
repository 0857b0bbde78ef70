"""The explanation page of an image: one self-contained html file."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lavis_dynrefer.explain.explanation import SCORED, RegionExplanation, ViewExplanation
from lavis_dynrefer.images import open_image
from lavis_dynrefer.images.boxes import box_area
from lavis_dynrefer.images.opening import ImageInput
from lavis_dynrefer.pages.html_page import data_url, page_template, plain
from lavis_dynrefer.pages.region_drawing import number_places, visible_box
from lavis_dynrefer.questions import TASKS
from lavis_dynrefer.structures import Box, NamedScore, RegionPrediction

MAX_REGIONS = 100  # on one page
_FULL, _HALF = 255, 128  # of a cell that is all mask, and that is drawn as mask
# Smaller changes mean nothing: on drawn scenes, bfloat16 instead of float32 alone moved 95 of 100
# by up to 0.034 nats per token, 0.0016 of an attribute's score and 0.0056 of a category's logit.
NOISE = {"caption": 0.05, "attributes": 0.005, "categories": 0.02}
_MIN_AXIS = {"caption": 0.5, "attributes": 0.05, "categories": 0.2}  # where bars end, at least
_MEASURED = (  # task, title and unit of its numbers
    ("caption", "Caption", "nats/token"),
    ("attributes", "Attributes", "score"),
    ("categories", "Categories", "logit"),
)
_BEST = 5  # names of each kind
_MAX_TAGS = 10
_MAX_CHANGES = 3  # names of each kind and view
_CROPS_BYTES = 1_200_000  # of all together
_MIN_CROP_BYTES = 3_000
_COARSE = 128  # pixels; smaller crops are shown with hard pixel edges
_BADGE = 0.045  # height of a region's number, of the image's longer side


class ViewPart(NamedTuple):
    """A view as shown on the page."""

    view: ViewExplanation
    crop: str  # data URL of what the model saw
    changes: Mapping[str, Sequence[NamedScore]]  # task -> the changes worth showing
    alone: frozenset[str]  # tasks that use no other view, so that none can replace this one
    instead: str | None  # the best category without the view, if it is another


class RegionPart(NamedTuple):
    """A region as shown on the page."""

    number: int  # from 1
    prediction: RegionPrediction
    box: Box | None  # the visible part, in pixels of the image
    badge: Box | None  # where the number is drawn
    views: tuple[ViewPart, ...]  # smallest scale first
    mask: Sequence[Sequence[int]] | None = None  # see `RegionExplanation`

    @property
    def title(self) -> str:
        """The caption, else the best category or tag."""
        if self.prediction.caption is None:
            best = self.prediction.categories or self.prediction.tags or [("", 0.0)]
            return plain(best[0][0]) or f"Region {self.number}"
        return plain(self.prediction.caption.strip()) or "(empty caption)"

    @property
    def area(self) -> float:
        """Area of the visible part in square pixels."""
        return box_area(self.box) if self.box else 0.0


def explanation_page(
    image: ImageInput,
    explanations: Sequence[RegionExplanation],
    *,
    name: str = "",
    left_out: int = 0,
) -> str:
    """Render the answers about the regions of an image, and what each view contributed.

    The page refers to nothing outside itself. 20 regions make at most about 3 MB.

    Args:
        image: the image that was explained.
        explanations: as `explain` returns them; the first `MAX_REGIONS` are shown.
        name: of the image; if empty, the file name of a path.
        left_out: number of regions that were not explained, which the page mentions.

    Raises:
        InputError, MissingFileError: an image that cannot be read.
    """
    if not name and isinstance(image, (str, os.PathLike)):
        name = Path(image).name
    image = open_image(image)
    regions = region_parts(explanations[:MAX_REGIONS], image.size)
    return page_template("explain.html").render(
        name=name,
        size=image.size,
        image=data_url(image),
        regions=regions,
        left_out=left_out + len(explanations[MAX_REGIONS:]),
        axes={task: _axis(regions, task) for task in NOISE},
        noise=NOISE,
        coarse=_COARSE,
        shown=_BEST,
        max_tags=_MAX_TAGS,
        measured=[kind for kind in _MEASURED if _is_asked(kind[0], explanations)],
        outside=_outside,
        beside_mask=beside_mask,
    )


def region_parts(
    explanations: Sequence[RegionExplanation], size: tuple[int, int]
) -> list[RegionPart]:
    """Prepare regions for a template, numbered in order; `size` is that of the image in pixels."""
    boxes = [visible_box(one.prediction.box, size) for one in explanations]
    badges = number_places(boxes, size, height=_BADGE * max(size))
    crops = sum(len(one.views) for one in explanations)
    crop_bytes = max(_CROPS_BYTES // max(crops, 1), _MIN_CROP_BYTES)
    regions = []
    for index, one in enumerate(explanations):
        alone = frozenset(task for task in TASKS if _is_alone(task, one.views))
        views = tuple(
            ViewPart(
                view=view,
                crop=data_url(view.crop, max_bytes=crop_bytes),
                changes=_changes(view, one.prediction),
                alone=alone,
                instead=_instead(view, one.prediction),
            )
            for view in one.views
        )
        regions.append(
            RegionPart(index + 1, one.prediction, boxes[index], badges[index], views, one.mask)
        )
    return regions


def _is_alone(task: str, views: Sequence[ViewExplanation]) -> bool:
    """Whether a task sees the same frame in all its views."""
    return len({view.frame for view in views if task in view.tasks}) == 1


def _is_asked(task: str, explanations: Sequence[RegionExplanation]) -> bool:
    return any(task in view.tasks for one in explanations for view in one.views)


def _changes(view: ViewExplanation, prediction: RegionPrediction) -> dict[str, list[NamedScore]]:
    """The gain of the caption, and the changes of the names that are best with or without it."""
    found = {"caption": [] if view.caption_gain is None else [("", view.caption_gain)]}
    for task in SCORED:
        with_it, without = getattr(prediction, task), _without(view, prediction, task)
        best = {name for scores in (with_it, without) for name, _ in scores[:_BEST]}
        changes = [
            (name, change)
            for name, change in getattr(view, task)
            if name in best and abs(change) >= NOISE[task]
        ]
        found[task] = changes[:_MAX_CHANGES]
    return found


def _without(view: ViewExplanation, prediction: RegionPrediction, task: str) -> list[NamedScore]:
    """The scores without the view, best first; empty if the task does not use it."""
    changes = dict(getattr(view, task))
    scores = [
        (name, score - changes[name])
        for name, score in getattr(prediction, task)
        if name in changes
    ]
    return sorted(scores, key=lambda pair: -pair[1])


def _instead(view: ViewExplanation, prediction: RegionPrediction) -> str | None:
    without = _without(view, prediction, "categories")
    if not without or without[0][0] == prediction.categories[0][0]:
        return None
    return without[0][0]


def _axis(regions: Sequence[RegionPart], task: str) -> float:
    """The largest change on the page: the bars of a task share one scale."""
    changes = [
        abs(change)
        for region in regions
        for part in region.views
        for _, change in part.changes[task]
        if math.isfinite(change)
    ]
    return max([_MIN_AXIS[task], *changes])


def _outside(frame: Box, size: tuple[int, int]) -> str:
    """SVG path of everything around a frame, by the even-odd rule."""
    x1, y1, x2, y2 = (f"{value:g}" for value in frame)
    return f"M0 0H{size[0]}V{size[1]}H0ZM{x1} {y1}H{x2}V{y2}H{x1}Z"


def beside_mask(mask: Sequence[Sequence[int]], box: Box) -> str:
    """SVG path of the cells of a region that are less than half mask, row by row."""
    side = len(mask)
    width, height = (box[2] - box[0]) / side, (box[3] - box[1]) / side
    runs = []
    for row, cells in enumerate(mask):
        inside = [value >= _HALF for value in (_FULL, *cells, _FULL)]
        edges = [column for column in range(side + 1) if inside[column] != inside[column + 1]]
        for start, end in zip(edges[::2], edges[1::2]):
            corner = f"M{box[0] + start * width:.4g} {box[1] + row * height:.4g}"
            length = (end - start) * width
            runs.append(f"{corner}h{length:.4g}v{height:.4g}h{-length:.4g}z")
    return "".join(runs)
