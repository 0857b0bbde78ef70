"""Boxes that GRiT found on Visual Genome, to be captioned instead of the annotated ones."""

from __future__ import annotations

import logging
from pathlib import Path

from lavis_dynrefer.datasets.sources.box_fit import BoxFit
from lavis_dynrefer.datasets.sources.raw_files import RawFile, iter_json_list
from lavis_dynrefer.datasets.sources.region_collector import RegionCollector, Stores, in_memory
from lavis_dynrefer.formats.reading.strict_values import (
    ROW_ERRORS,
    finite_number,
    shown,
    whole_number,
    xyxy,
)
from lavis_dynrefer.structures import Box, ImageRecord, RegionRecord, RegionSet

logger = logging.getLogger(__name__)

BOXES = RawFile(
    "boxes",
    "vg_instances_results.json",
    "GRiT (https://github.com/JialianW/GRiT), what its evaluation on Visual Genome writes",
)
GRIT_SIDE = 720  # pixels; GRiT stores boxes as if the longer side of every image were this long
MAX_OUTSIDE = 0.05  # fraction of boxes that may leave their images
SMALL_IMAGE = 0.9 * GRIT_SIDE  # pixels; boxes of smaller images show whether they are scaled
MIN_BOXES = 100  # in small images, for a warning
_RULE = (
    f"GRiT stores x, y, width, height times {GRIT_SIDE} / the longer side of the image, and that "
    "scaling is undone here"
)


def read_grit(
    boxes: str | Path, truth: RegionSet, *, name: str, stores: Stores = in_memory
) -> RegionSet:
    """The detections on the images of a split, graded on that split.

    Detections get the ids after the largest one of the truth, in file order. An image without a
    detection remains in the truth. GRiT's own captions are not used. Detections on images of other
    splits are skipped and noted as "on_other_images".

    Args:
        boxes: `vg_instances_results.json`, a list of image_id, bbox and score.
        truth: the annotated split.

    Returns:
        Regions with a `score` and no caption; truth and rejections are those of `truth`.

    Raises:
        DatasetError: also if no detection is on an image of the split, or the boxes are not scaled
            as GRiT scales them.
    """
    collector = RegionCollector(name, truth.split, stores, is_truth=False)
    for image in truth.images.values():
        collector.add_image(image)
    collector.grade_on(truth.truth_regions or truth.regions, truth.rejected)
    first_id = 1 + max((region.region_id for region in truth.truth()), default=-1)
    fit, unscaled, elsewhere = BoxFit(), BoxFit(), 0
    for number, row in enumerate(iter_json_list(boxes, BOXES)):
        image_id = None
        try:
            image_id = whole_number(row["image_id"])
            image = truth.images.get(image_id)
            if image is None:
                elsewhere += 1
                continue
            given, score = xyxy(row["bbox"]), finite_number(row["score"])
        except ROW_ERRORS as error:
            detail = f"detection {number} of {boxes}: {shown(row)}: {error!r}"
            collector.leave_out("unreadable_record", detail, image_id)
            continue
        box = undo_scaling(given, image)
        fit.add(box, image)
        if max(image.width, image.height) <= SMALL_IMAGE:
            unscaled.add(given, image)
        collector.add(RegionRecord(first_id + number, image.image_id, box, score=score), image)
    _check_scale(fit, unscaled, boxes)
    if elsewhere and not fit.total:
        raise BOXES.error(
            f"{boxes}: none of {elsewhere} detections is on an image of split '{truth.split}'; "
            "name the split they were made on in `splits`"
        )
    if elsewhere:
        collector.note("on_other_images", elsewhere)
    return collector.finish()


def undo_scaling(box: Box, image: ImageRecord) -> Box:
    """A box of GRiT's file in pixels of the image.

    >>> undo_scaling((72.0, 36.0, 720.0, 540.0), ImageRecord(1, "1.jpg", 1440, 1080))
    (144.0, 72.0, 1440.0, 1080.0)
    """
    factor = max(image.width, image.height) / GRIT_SIDE
    x1, y1, x2, y2 = box
    return x1 * factor, y1 * factor, x2 * factor, y2 * factor


def _check_scale(boxes: BoxFit, unscaled: BoxFit, path: str | Path) -> None:
    """Refuse boxes that are not scaled as GRiT scales them, or warn where that is likely.

    Args:
        boxes: all boxes, with the scaling undone.
        unscaled: those of small images, as the file has them.
        path: the file.
    """
    if boxes.outside > MAX_OUTSIDE * boxes.total:
        raise BOXES.error(
            f"{path}: {boxes.outside} of {boxes.total} boxes leave their images, for example "
            f"{boxes.example}. {_RULE}: give the file as GRiT writes it, not one whose boxes "
            "are in pixels of the images already, or are x1, y1, x2, y2"
        )
    if unscaled.total >= MIN_BOXES and not unscaled.outside:
        logger.warning(
            "%s: all %d boxes of images smaller than %d pixels would fit as they are. %s: "
            "are they in pixels of the images already? Then the mAP will be near zero",
            *(path, unscaled.total, SMALL_IMAGE, _RULE),
        )
