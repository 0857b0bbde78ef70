"""In what boxes are counted: pixels of an image of some size, or parts of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lavis_dynrefer.errors import choice_problem
from lavis_dynrefer.formats.reading.records import Size
from lavis_dynrefer.images.boxes import SLACK

UNITS = ("pixels", "fraction", "percent", "thousandths")
FULL_SIDE = {"fraction": 1.0, "percent": 100.0, "thousandths": 1000.0}  # of an image, in that unit
_CHANCE = 0.01  # about the share of files that are in percent
MANY_OUTSIDE = 0.2  # fraction of boxes that leave their images, for a doubt about their format
NEARLY_ALL = 0.95  # fraction of boxes that would fit in the other format


class UnitEvidence:
    """Whether the boxes of a whole file, taken as pixels, may be percent or thousandths.

    Two signs for percent, with 100 for the length L of a side; thousandths likewise, with 1000:

    - No coordinate is above L, and this would hardly be so by chance: if a box lay anywhere in
      its image of W x H pixels, it would lie within the first L x L of them with a chance of at
      most min(1, L/W) * min(1, L/H). All boxes together have a chance below 1 in 100. So it takes
      two boxes in images of 480 x 360 to ask about percent, one in an image of a megapixel, and
      images smaller than L give no reason to ask.
    - No coordinate is above L, some are above a tenth of it, and most boxes leave their images,
      also if x, y, width, height are taken as corners.
    """

    def __init__(self) -> None:
        self.total = self.outside = self.measured = self.leaving = self.corners = 0
        self.largest = -math.inf
        self._logarithms = dict.fromkeys(FULL_SIDE, 0.0)

    @property
    def may_be_relative(self) -> bool:
        """Whether no number seen so far is above 1000."""
        return self.largest <= max(FULL_SIDE.values())

    def see(self, box: Sequence[float]) -> None:
        """Note the numbers of a box whose image is not measured; odd ones are checked later."""
        try:
            self.largest = max(self.largest, *map(float, box))
        except (OverflowError, TypeError, ValueError):
            self.largest = math.inf

    def add(self, box: Sequence[float], size: Sequence[int], format: str) -> None:
        """Count one box in "xyxy" or "xywh", and the width and height of its image in pixels."""
        self.see(box)
        if not math.isfinite(self.largest) or not all(map(math.isfinite, box)):
            return
        x, y, *rest = box
        right, bottom = (x + rest[0], y + rest[1]) if format == "xywh" else rest
        width, height = size
        limits = width * (1 + SLACK), height * (1 + SLACK)
        are_corners = x < rest[0] <= limits[0] and y < rest[1] <= limits[1]
        leaves = right > limits[0] or bottom > limits[1]
        self.measured += 1
        self.corners += are_corners
        self.leaving += leaves
        if not self.may_be_relative:
            return
        self.total += 1
        self.largest = max(self.largest, right, bottom)
        self.outside += leaves and not are_corners
        for unit, full in FULL_SIDE.items():
            chance = min(1.0, full / width) * min(1.0, full / height)
            self._logarithms[unit] += math.log(chance)

    def seem_corners(self) -> bool:
        """Whether boxes added as "xywh" are more likely corners: so many leave their images."""
        many = self.leaving > MANY_OUTSIDE * self.measured
        return many and self.corners >= NEARLY_ALL * self.measured

    def doubt(self) -> str | None:
        """The unit that the boxes may be in, "percent" or "thousandths"; None if all is well."""
        for unit, smaller in (("percent", 10.0), ("thousandths", 100.0)):
            full = FULL_SIDE[unit]
            if not self.total or not smaller < self.largest <= full:
                continue
            if self._logarithms[unit] < math.log(_CHANCE) or 2 * self.outside > self.total:
                return unit
        return None


def unit_problem(place: str, unit: str) -> str | None:
    """Message about an unknown unit; None if it is known."""
    return choice_problem(place, unit, UNITS)


def size_problem(said: Size, actual: Size, units: str | None) -> str | None:
    """Why the boxes of a file do not fit an image; None if they do.

    Args:
        said: width and height of the image, as the file gives them.
        actual: those of the image, in stored pixels.
        units: of the boxes; parts of an image fit it at any size, unless it is turned.
    """
    is_turned = said == actual[::-1]
    if said == actual or (units in FULL_SIDE and not is_turned):
        return None
    cure = "scale the boxes, or use the images that they were made for"
    if is_turned:
        cure = (
            "was it shown turned by its EXIF rotation, which is ignored here? Then save it rotated"
        )
    return (
        f"the file says that it is {said[0]} x {said[1]} pixels, it is {actual[0]} x {actual[1]}; "
        f"{cure}"
    )
