"""Gathers the regions of one split and keeps count of everything that cannot be used."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

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


class RegionCollector:
    """One split in the making.

    In training a rejected region is gone. In any other split it stays part of the truth, so that
    evaluation counts it as a wrong answer, unless the protocol itself leaves it out.

    Args:
        name: protocol id of the `RegionSet`.
        split: split name; every split but "train" keeps rejected regions as truth.
    """

    def __init__(self, name: str, split: str) -> None:
        self.name = name
        self.split = split
        self._images: dict[int, ImageRecord] = {}
        self._regions: list[RegionRecord] = []
        self._ids: set[int] = set()
        self._rejected: list[Rejection] = []
        self._repeats = 0

    def add(self, region: RegionRecord, image: ImageRecord, *, given: Box | None = None) -> None:
        """Take a region, or reject it for its id, its picture file or its box.

        Args:
            region: the region.
            image: its picture; an empty path means that the file is missing.
            given: xyxy box in pixels before the protocol changed it, which then names the problem.
        """
        if region.region_id in self._ids:
            # The id is taken, so that as truth it needs one that no prediction can have.
            self._repeats += 1
            detail = f"region id {region.region_id} occurs more than once; only the first counts"
            self.reject("duplicate_id", detail, replace(region, region_id=-self._repeats))
            return
        self._ids.add(region.region_id)
        if not image.path:
            detail = f"picture {image.image_id} has no file"
            self.reject("missing_image", detail, region)
            return
        problem = box_problem(region.box, image.width, image.height)
        if problem:
            box = given or region.box
            size = f"{image.width} x {image.height}"
            detail = f"box {box} of region {region.region_id} in a picture of {size} pixels"
            self.reject(box_problem(box, image.width, image.height) or problem, detail, region)
            return
        self._images.setdefault(image.image_id, image)
        self._regions.append(region)

    def reject(self, reason: str, detail: str, region: RegionRecord) -> None:
        """Leave out a region that the protocol asks for."""
        kept = None if self.split == TRAIN else region
        self._rejected.append(Rejection(reason, detail, region.image_id, kept))

    def leave_out(self, reason: str, detail: str, image_id: int | None) -> None:
        """Count something that is no truth: a record without sense, a picture without regions."""
        self._rejected.append(Rejection(reason, detail, image_id))

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
        result = RegionSet(
            name=self.name,
            split=self.split,
            images=self._images,
            regions=self._regions,
            rejected=self._rejected,
            attributes=attributes,
            category_names=category_names,
        )
        counts = result.rejection_counts()
        if not self._regions:
            example = f"; for example {self._rejected[0].detail}" if self._rejected else ""
            raise DatasetError(
                f"{self.name}, split '{self.split}': no usable region; "
                f"left out {counts or 'nothing, the files name none'}{example}"
            )
        logger.info(
            "%s, split '%s': %d regions in %d pictures; left out %s",
            *(self.name, self.split, len(self._regions), len(self._images), counts or "nothing"),
        )
        return result


def box_problem(box: Box, width: float, height: float) -> str | None:
    """Why no view of this xyxy box can be cut: a reason for `Rejection`, or None.

    >>> box_problem((5, 5, 5, 9), 20, 20)
    'empty_box'
    """
    x1, y1, x2, y2 = box
    if not all(math.isfinite(value) for value in box):
        return "invalid_box"
    if x2 <= x1 or y2 <= y1:
        return "empty_box"
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        return "outside_picture"
    return None
