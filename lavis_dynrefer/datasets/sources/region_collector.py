"""Gathers the regions of one split and counts everything that cannot be used."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from lavis_dynrefer.config import CaptioningConfig
from lavis_dynrefer.datasets.sources.raw_files import DatasetError
from lavis_dynrefer.structures import Box, ImageRecord, RegionRecord, RegionSet, Rejection

logger = logging.getLogger(__name__)
TRAIN = "train"
TINY_SIDE = 2  # pixels; shorter sides are noted
EDGE = 1e-3  # pixels by which x + width may pass the edge because of rounding
INT32 = 2**31
LONG_CAPTION = CaptioningConfig().max_text_length - 1  # words, each at least one token; then an end
OVER_LONG = f"caption_over_{LONG_CAPTION}_words"  # noted


@dataclass
class MemoryStore:
    """Keeps the records of one split in lists; `table_store.TableStore` keeps them on disk.

    Args:
        regions: usable regions. A list, or anything else with `append`; so are the others.
        truth: regions that answers are graded on, if those are not the regions asked about.
        rejected: what cannot be used.
    """

    regions: Any = field(default_factory=list)
    truth: Any = field(default_factory=list)
    rejected: Any = field(default_factory=list)

    def finish(self, images: Mapping[int, ImageRecord], **about: Any) -> RegionSet:
        """The split; called once, last.

        Args:
            images: the images of all regions, and perhaps more.
            about: the other fields of the `RegionSet`.
        """
        return RegionSet(
            images=images,
            regions=self.regions,
            truth_regions=self.truth,
            rejected=self.rejected,
            **about,
        )


class MaskedStore(MemoryStore):
    """A store whose regions get masks that their files have no place for.

    Args:
        store: keeps the records.
        masks: region id -> mask, see `RegionRecord`; the other regions have none.
    """

    def __init__(self, store: MemoryStore, masks: Mapping[int, Any]) -> None:
        super().__init__(regions=self, truth=store.truth, rejected=store.rejected)
        self._store = store
        self._masks = masks

    def append(self, region: RegionRecord) -> None:
        """Keep a usable region."""
        self._store.regions.append(replace(region, mask=self._masks.get(region.region_id)))

    def finish(self, images: Mapping[int, ImageRecord], **about: Any) -> RegionSet:
        """The split, see `MemoryStore`."""
        return self._store.finish(images, **about)


Stores = Callable[[str], MemoryStore]
"""Split name -> where its records are kept."""


def in_memory(split: str) -> MemoryStore:
    """The default `Stores` of the readers."""
    del split
    return MemoryStore()


class RegionCollector:
    """Collects the regions of one split.

    In training a rejected region is gone. In any other split it remains part of the truth, so that
    it counts as a wrong answer, unless the protocol itself leaves it out. Odd regions that are
    kept are counted as well:

    =====================  ======================================================================
    box_outside            the original box covers no pixel of the image, but is moved into it
    box_partly_outside     the original box leaves the image by more than rounding
    box_below_2_px         a side of the box, as used, is shorter than 2 pixels
    crowd                  the region is a crowd of its category
    unusable_mask          its mask is damaged or of another image's size; the box is used
    id_beyond_32_bits      the region's id does not fit into an int32
    non_ascii_caption      the caption, as used, has other characters than ASCII
    caption_over_31_words  more words than the tokens that models are trained on by default
    =====================  ======================================================================

    Args:
        name: protocol id of the `RegionSet`.
        split: split name; every split but "train" keeps rejected regions as truth.
        stores: where the records are kept.
        is_truth: False for a detector's regions, which are graded on others (`grade_on`).
    """

    def __init__(
        self, name: str, split: str, stores: Stores = in_memory, *, is_truth: bool = True
    ) -> None:
        self.name = name
        self.split = split
        self._keeps_rejected = is_truth and split != TRAIN
        self._store = stores(split)
        self._images: dict[int, ImageRecord] = {}
        self._ids: set[int] = set()
        self._kept = 0
        self._repeats = 0
        self._counts: Counter[str] = Counter()
        self._noted: Counter[str] = Counter()
        self._example = ""

    def add(
        self, region: RegionRecord, image: ImageRecord | None, *, original: Box | None = None
    ) -> None:
        """Take a region, or reject it for its id, caption, image or box.

        Args:
            region: the region.
            image: its image, None if the files do not describe it; an empty path means that the
                file is missing.
            original: xyxy box in pixels before the protocol changed it; it then names the problem.
        """
        if image is None:
            detail = f"image {region.image_id} has no usable entry in the list of images"
            self.reject("no_image_data", detail, region)
            return
        problem = self._problem(region, image, original or region.box)
        if problem is not None:
            self.reject(*problem, region)
            return
        self._ids.add(region.region_id)
        self._kept += 1
        self._note_oddities(region, original or region.box, image)
        self.add_image(image)
        self._store.regions.append(region)

    def note(self, what: str, times: int = 1) -> None:
        """Count something odd about a region or image that is kept."""
        self._noted[what] += times

    def reject(self, reason: str, detail: str, region: RegionRecord) -> None:
        """Leave out a region that belongs to the protocol."""
        if not self._keeps_rejected:
            self.leave_out(reason, detail, region.image_id)
            return
        if region.region_id in self._ids:
            # As truth it needs an id of its own, one that no prediction can have.
            self._repeats = next(n for n in count(self._repeats + 1) if -n not in self._ids)
            region = replace(region, region_id=-self._repeats)
        self._ids.add(region.region_id)
        self._leave_out(Rejection(reason, detail, region.image_id, region))

    def leave_out(self, reason: str, detail: str, image_id: int | None) -> None:
        """Count something that is not graded: an unreadable record, an image without regions."""
        self._leave_out(Rejection(reason, detail, image_id))

    def add_image(self, image: ImageRecord) -> None:
        """Take an image, with or without regions; the first one of an id counts."""
        self._images.setdefault(image.image_id, image)

    def grade_on(self, truth: Iterable[RegionRecord], rejected: Iterable[Rejection]) -> None:
        """Take the truth that answers are graded on, if it is not the regions added."""
        for region in truth:
            self._store.truth.append(region)
        for rejection in rejected:
            self._leave_out(rejection)

    def finish(self, **vocabularies: Any) -> RegionSet:
        """The split, after one line in the log that says what was kept and dropped.

        Args:
            vocabularies: `attributes` and `category_names` of the `RegionSet`.

        Raises:
            DatasetError: nothing usable is left.
        """
        counts = dict(self._counts.most_common())
        if not self._kept:
            example = f"; for example {self._example}" if self._example else ""
            found = f"left out {counts}" if counts else "the annotation files contain no regions"
            raise DatasetError(
                f"{self.name}, split '{self.split}': no usable region; {found}{example}"
            )
        noted = dict(self._noted.most_common())
        logger.info(
            "%s, split '%s': %d regions in %d images; left out %s%s",
            *(self.name, self.split, self._kept, len(self._images), counts or "nothing"),
            f"; noted {noted}" if noted else "",
        )
        return self._store.finish(
            self._images, name=self.name, split=self.split, noted=noted, **vocabularies
        )

    def _problem(
        self, region: RegionRecord, image: ImageRecord, original: Box
    ) -> tuple[str, str] | None:
        """Reason and detail of a region that cannot be used."""
        name = f"region {region.region_id}"
        if region.region_id in self._ids:
            return "duplicate_id", f"{name} occurs more than once; only the first counts"
        if region.caption is not None and not region.caption.strip():
            return "empty_caption", f"the caption of {name} has no word"
        if not image.path:
            return "missing_image", f"image {image.image_id} has no file"
        reason = box_problem(region.box, image.width, image.height)
        if reason is None:
            return None
        detail = f"box {original} of {name} in an image of {image.width} x {image.height} pixels"
        return box_problem(original, image.width, image.height) or reason, detail

    def _note_oddities(self, region: RegionRecord, original: Box, image: ImageRecord) -> None:
        x1, y1, x2, y2 = original
        right, bottom = image.width + EDGE, image.height + EDGE
        if x1 < -EDGE or y1 < -EDGE or x2 > right or y2 > bottom:
            is_outside = box_problem(original, image.width, image.height) is not None
            self._noted["box_outside" if is_outside else "box_partly_outside"] += 1
        x1, y1, x2, y2 = region.box
        if x2 - x1 < TINY_SIDE or y2 - y1 < TINY_SIDE:
            self._noted["box_below_2_px"] += 1
        if region.iscrowd:
            self._noted["crowd"] += 1
        if not -INT32 <= region.region_id < INT32:
            self._noted["id_beyond_32_bits"] += 1
        if region.caption is None:
            return
        if not region.caption.isascii():
            self._noted["non_ascii_caption"] += 1
        if region.caption.count(" ") >= LONG_CAPTION and len(region.caption.split()) > LONG_CAPTION:
            self._noted[OVER_LONG] += 1

    def _leave_out(self, rejection: Rejection) -> None:
        self._counts[rejection.reason] += 1
        self._example = self._example or rejection.detail
        self._store.rejected.append(rejection)


def box_problem(box: Box, width: float, height: float) -> str | None:
    """Why no view of this xyxy box can be cropped: a reason for `Rejection`, or None.

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
