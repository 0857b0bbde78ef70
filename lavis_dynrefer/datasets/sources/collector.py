"""Gathers the regions of one split and keeps count of everything that cannot be used."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import count
from typing import Protocol

from lavis_dynrefer.datasets.sources.raw_files import DatasetError
from lavis_dynrefer.structures import (
    AttributeInfo,
    Box,
    ImageRecord,
    RegionRecord,
    RegionSet,
    Rejection,
)

logger = logging.getLogger(__name__)
TRAIN = "train"
TINY_SIDE = 2  # pixels; the crop of a region with a shorter side shows next to nothing
EDGE = 1e-3  # pixels; further outside than x + width is off by rounding
INT32 = 2**31


class RegionStore(Protocol):
    """Where the regions of one split go as they are read: into memory, or into a table on disk."""

    def add_image(self, image: ImageRecord) -> None:
        """Take an image; one that is known already changes nothing."""

    def add_region(self, region: RegionRecord) -> None:
        """Take a usable region of an image taken before."""

    def add_truth(self, region: RegionRecord) -> None:
        """Take a region that answers are graded on without being asked about."""

    def add_rejection(self, rejection: Rejection) -> None:
        """Take what cannot be used."""

    def finish(
        self,
        name: str,
        split: str,
        attributes: tuple[AttributeInfo, ...],
        category_names: tuple[str, ...],
        noted: Mapping[str, int] | None = None,
    ) -> RegionSet:
        """The split; called once, last."""


class MemoryStore:
    """Plain lists: right for up to some hundred thousand regions."""

    def __init__(self) -> None:
        self._images: dict[int, ImageRecord] = {}
        self._regions: list[RegionRecord] = []
        self._truth: list[RegionRecord] = []
        self._rejected: list[Rejection] = []

    def add_image(self, image: ImageRecord) -> None:
        """Keep the first image of each id."""
        self._images.setdefault(image.image_id, image)

    def add_region(self, region: RegionRecord) -> None:
        """Append."""
        self._regions.append(region)

    def add_truth(self, region: RegionRecord) -> None:
        """Append."""
        self._truth.append(region)

    def add_rejection(self, rejection: Rejection) -> None:
        """Append."""
        self._rejected.append(rejection)

    def finish(
        self,
        name: str,
        split: str,
        attributes: tuple[AttributeInfo, ...],
        category_names: tuple[str, ...],
        noted: Mapping[str, int] | None = None,
    ) -> RegionSet:
        """The lists as a `RegionSet`."""
        return RegionSet(
            name=name,
            split=split,
            images=self._images,
            regions=self._regions,
            rejected=self._rejected,
            attributes=attributes,
            category_names=category_names,
            truth_regions=self._truth,
            noted=dict(noted or {}),
        )


Stores = Callable[[str], RegionStore]
"""Split name -> where its regions go."""


def in_memory(split: str) -> RegionStore:
    """The `Stores` that readers use unless told otherwise."""
    del split
    return MemoryStore()


class RegionCollector:
    """One split in the making.

    In training a rejected region is gone. In any other split it stays part of the truth, so that
    evaluation counts it as a wrong answer, unless the protocol itself leaves it out. What is odd
    about regions that are kept is counted as well:

        box_outside             the box, as given, has no pixel of the image, but is moved into it
        box_partly_outside      the box, as given, leaves the image by more than rounding
        box_below_2_px          a side of the box, as used, is shorter than 2 pixels
        crowd                   the region is a crowd of its category
        id_beyond_32_bits       the region's id does not fit into an int32
        non_ascii_caption       the caption, as used, has other characters than ASCII

    Args:
        name: protocol id of the `RegionSet`.
        split: split name; every split but "train" keeps rejected regions as truth.
        stores: gives the place for the regions.
        is_truth: False for a detector's regions, which are graded on others (`grade_on`).
    """

    def __init__(
        self, name: str, split: str, stores: Stores = in_memory, *, is_truth: bool = True
    ) -> None:
        self.name = name
        self.split = split
        self._keeps_rejected = is_truth and split != TRAIN
        self._store = stores(split)
        self._ids: set[int] = set()
        self._images: set[int] = set()
        self._kept = 0
        self._repeats = 0
        self._counts: Counter[str] = Counter()
        self._noted: Counter[str] = Counter()
        self._example = ""

    def add(self, region: RegionRecord, image: ImageRecord, *, given: Box | None = None) -> None:
        """Take a region, or reject it for its id, its caption, its image file or its box.

        Args:
            region: the region.
            image: its image; an empty path means that the file is missing.
            given: xyxy box in pixels before the protocol changed it, which then names the problem.
        """
        if region.region_id in self._ids:
            detail = f"region id {region.region_id} occurs more than once; only the first counts"
            self.reject("duplicate_id", detail, region)
            return
        if region.caption is not None and not region.caption.strip():
            detail = f"region {region.region_id} has no word in its caption"
            self.reject("empty_caption", detail, region)
            return
        if not image.path:
            detail = f"image {image.image_id} has no file"
            self.reject("missing_image", detail, region)
            return
        problem = box_problem(region.box, image.width, image.height)
        if problem:
            box = given or region.box
            size = f"{image.width} x {image.height}"
            detail = f"box {box} of region {region.region_id} in an image of {size} pixels"
            self.reject(box_problem(box, image.width, image.height) or problem, detail, region)
            return
        self._ids.add(region.region_id)
        self._kept += 1
        self._note_oddities(region, given or region.box, image)
        self.add_image(image)
        self._store.add_region(region)

    def note(self, what: str, times: int = 1) -> None:
        """Count something odd that is no reason to leave a region out."""
        self._noted[what] += times

    def reject(self, reason: str, detail: str, region: RegionRecord) -> None:
        """Leave out a region that the protocol asks for."""
        if not self._keeps_rejected:
            self._leave_out(Rejection(reason, detail, region.image_id))
            return
        if region.region_id in self._ids:
            # As truth it needs an id of its own, one that no prediction can have.
            self._repeats = next(n for n in count(self._repeats + 1) if -n not in self._ids)
            region = replace(region, region_id=-self._repeats)
        self._ids.add(region.region_id)
        self._leave_out(Rejection(reason, detail, region.image_id, region))

    def leave_out(self, reason: str, detail: str, image_id: int | None) -> None:
        """Count something that is no truth: a record without sense, an image without regions."""
        self._leave_out(Rejection(reason, detail, image_id))

    def add_image(self, image: ImageRecord) -> None:
        """Take an image, whether or not it will have regions."""
        if image.image_id not in self._images:
            self._images.add(image.image_id)
            self._store.add_image(image)

    def grade_on(self, truth: Iterable[RegionRecord], rejected: Iterable[Rejection]) -> None:
        """Take the truth that answers are graded on, where the regions added are not that truth."""
        for region in truth:
            self._store.add_truth(region)
        for rejection in rejected:
            self._leave_out(rejection)

    def finish(
        self,
        *,
        attributes: tuple[AttributeInfo, ...] = (),
        category_names: tuple[str, ...] = (),
    ) -> RegionSet:
        """The split, after one line in the log that says what was kept and dropped.

        Raises:
            DatasetError: nothing usable is left.
        """
        counts = dict(self._counts.most_common())
        if not self._kept:
            example = f"; for example {self._example}" if self._example else ""
            raise DatasetError(
                f"{self.name}, split '{self.split}': no usable region; "
                f"left out {counts or 'nothing, the files name none'}{example}"
            )
        noted = dict(self._noted.most_common())
        logger.info(
            "%s, split '%s': %d regions in %d images; left out %s%s",
            *(self.name, self.split, self._kept, len(self._images), counts or "nothing"),
            f"; noted {noted}" if noted else "",
        )
        return self._store.finish(self.name, self.split, attributes, category_names, noted)

    def _note_oddities(self, region: RegionRecord, given: Box, image: ImageRecord) -> None:
        x1, y1, x2, y2 = given
        right, bottom = image.width + EDGE, image.height + EDGE
        if x1 < -EDGE or y1 < -EDGE or x2 > right or y2 > bottom:
            is_outside = box_problem(given, image.width, image.height) is not None
            self._noted["box_outside" if is_outside else "box_partly_outside"] += 1
        x1, y1, x2, y2 = region.box
        if x2 - x1 < TINY_SIDE or y2 - y1 < TINY_SIDE:
            self._noted["box_below_2_px"] += 1
        if region.iscrowd:
            self._noted["crowd"] += 1
        if not -INT32 <= region.region_id < INT32:
            self._noted["id_beyond_32_bits"] += 1
        if region.caption is not None and not region.caption.isascii():
            self._noted["non_ascii_caption"] += 1

    def _leave_out(self, rejection: Rejection) -> None:
        self._counts[rejection.reason] += 1
        self._example = self._example or rejection.detail
        self._store.add_rejection(rejection)


def box_problem(box: Box, width: float, height: float) -> str | None:
    """Why no view of this xyxy box can be cut: a reason for `Rejection`, or None.

    >>> box_problem((5, 5, 5, 9), 20, 20)
    'empty_box'
    """
    x1, y1, x2, y2 = box
    if 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height:
        return None  # nearly all are
    if not all(math.isfinite(value) for value in box):
        return "invalid_box"
    if x2 <= x1 or y2 <= y1:
        return "empty_box"
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        return "outside_image"
    return None
