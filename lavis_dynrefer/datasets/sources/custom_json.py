"""Custom regions with captions, tags, attributes, categories, from COCO's json or a tool's."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lavis_dynrefer.datasets.sources.annotation_rows import rows_by_id
from lavis_dynrefer.datasets.sources.box_fit import BoxFit, in_pixels
from lavis_dynrefer.datasets.sources.coco_layout import ImageRows, region_mask
from lavis_dynrefer.datasets.sources.custom_checks import (
    GUIDE,
    SizeCheck,
    UserFile,
    check_boxes,
    check_ids,
    read_annotations,
    require_some,
    rows_of,
)
from lavis_dynrefer.datasets.sources.custom_labels import Labels
from lavis_dynrefer.datasets.sources.image_turns import ImageTurns
from lavis_dynrefer.datasets.sources.raw_files import DatasetError, ImageFolder
from lavis_dynrefer.datasets.sources.region_collector import (
    TRAIN,
    RegionCollector,
    Stores,
    in_memory,
)
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.image_names import name_parts
from lavis_dynrefer.formats.reading.box_units import size_problem
from lavis_dynrefer.formats.reading.coco_rows import (
    box_of_annotation,
    brief,
    entry_name,
    entry_size,
    rle_size,
)
from lavis_dynrefer.formats.reading.records import Size
from lavis_dynrefer.formats.reading.strict_values import ROW_ERRORS, Row, shown, whole_number
from lavis_dynrefer.images.boxes import xywh_to_xyxy
from lavis_dynrefer.images.decoding import IMAGE_ERRORS
from lavis_dynrefer.structures import ImageRecord, RegionRecord, RegionSet

logger = logging.getLogger(__name__)

IMAGES = UserFile("images.storage", "images", GUIDE)


def read_custom(
    annotations: str | Path,
    images: str | Path,
    *,
    name: str,
    split: str,
    units: str | None = None,
    stores: Stores = in_memory,
) -> RegionSet:
    """Read every annotation with all its labels.

    In the split "train" a region needs a caption. In any other split it is graded on what it has;
    those without a caption are noted as `no_caption`. Regions whose attributes are neither names
    nor labels, or name what the file does not list, are noted as `unreadable_attributes`; the rest
    of them is used.

    Args:
        units: of the boxes, one of `formats.reading.box_units.UNITS`; None is pixels, but boxes
            that look like another unit are refused.

    Raises:
        DatasetError: also if the boxes do not fit the images.
    """
    source = UserFile(f"annotations.{split}", str(annotations), GUIDE)
    layout = read_annotations(annotations, source, units)
    document, units = layout.document, layout.units
    rows = rows_of(document, "annotations", source)
    require_some(rows, ["bbox", "segmentation"], "to mark a region", source)
    entries = rows_of(document, "images", source)
    check_ids(rows, entries, source)
    labels = Labels.from_document(document, source)
    if split == TRAIN:
        require_some(rows, ["caption"], "to train on", source)
    else:
        named = ["category_id"] if labels.categories else []
        require_some(rows, ["caption", "attributes", *named], "to be graded on", source)
    collector = RegionCollector(name, split, stores)
    for reason, example, times in layout.faults.items():
        for _ in range(times):
            collector.leave_out("unreadable_record", f"{reason}: {example}", None)
    listed = _CustomImages(
        rows_by_id(entries, "image", source, [collector]), ImageFolder(images, IMAGES), units
    )
    boxes, counts = BoxFit(), Counter[str]()
    for row in rows:
        _collect(row, labels, listed, collector, boxes, counts)
    for image_id in listed.rows:
        if image_id not in listed.used:
            detail = f"image {image_id} has no readable annotation"
            collector.leave_out("no_regions", detail, image_id)
    listed.sizes.finish(source)
    listed.turns.finish(source, collector)
    check_boxes(boxes, source, units)
    found = collector.finish(
        attributes=labels.attributes if counts["attributes"] else (),
        category_names=labels.category_names if counts["category"] else (),
    )
    logger.info("%s, split '%s': of %d annotations have %s", name, split, len(rows), dict(counts))
    return found


def _collect(
    row: Row,
    labels: Labels,
    images: _CustomImages,
    collector: RegionCollector,
    boxes: BoxFit,
    counts: Counter[str],
) -> None:
    """Give one annotation to the collector."""
    try:
        image_id = _id_of(row, "image_id")
        fields = labels.fields(row)
        box = xywh_to_xyxy(box_of_annotation(row))
        region = RegionRecord(_id_of(row, "id"), image_id, box, **fields)
        image = images.get(image_id)
        drawn_on = rle_size(row)
        if drawn_on not in (None, (image.width, image.height)):
            raise InputError(f"RLE of {drawn_on}, image of {(image.width, image.height)} pixels")
        region = replace(region, box=in_pixels(region.box, image, images.units))
    except _ImageProblem as problem:
        collector.reject(problem.reason, str(problem), region)
        return
    except DatasetError:  # about the folder of images, such as a file that could be two
        raise
    except ROW_ERRORS as error:
        detail = f"annotation {shown(brief(row))}: {error}"
        collector.leave_out("unreadable_record", detail, None)
        return
    boxes.add(region.box, image)
    images.turns.add_box(region.box, image)
    if labels.given_attributes(row) is not None and region.attributes is None:
        collector.note("unreadable_attributes")
    counts.update(key for key, value in fields.items() if value)
    if region.caption is None and collector.split == TRAIN:
        collector.reject("no_caption", f"region {region.region_id} has no caption", region)
        return
    if region.caption is None:
        collector.note("no_caption")
    if images.units in (None, "pixels"):  # in other units, so is a polygon
        region = replace(region, mask=region_mask(row, image, collector))
    collector.add(region, image)


def _id_of(row: Row, key: str) -> int:
    try:
        return whole_number(row.get(key))
    except ValueError as error:
        raise InputError(f"{key}: {error}") from None


class _ImageProblem(Exception):
    """Why the regions of an image are rejected; `reason` as in `Rejection`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class _CustomImages(ImageRows):
    """The images listed in a json; those without a size are measured.

    Args:
        rows: entries of `images` by their id.
        folder: what `file_name` is relative to.
        units: of the boxes.
    """

    def __init__(
        self, rows: Mapping[int, Row], folder: ImageFolder, units: str | None = None
    ) -> None:
        super().__init__(rows, folder)
        self.units = units
        self.sizes = SizeCheck()
        self.turns = ImageTurns()
        self.used: set[int] = set()

    def get(self, image_id: int) -> ImageRecord:
        """An image by its id.

        Raises:
            InputError: `images` does not list it.
            _ImageProblem: its file is missing, or is no image and has to be measured.
        """
        if image_id not in self.rows:
            raise InputError(f"image_id {image_id} is not listed in 'images'")
        self.used.add(image_id)
        return super().get(image_id)

    def read(self, image_id: int) -> ImageRecord:
        """The image itself, which `get` keeps."""
        row = self.rows[image_id]
        try:
            name = entry_name(row)
        except InputError as error:
            raise _ImageProblem("missing_image", f"image {image_id}: {error}") from error
        path = None if name is None else self.folder.find(*_places(row, name))
        if name is None or path is None:
            detail = "no file_name"
            if name is not None:
                detail = f"no file {Path(self.folder.root, name)}{self.folder.near(name)}"
            raise _ImageProblem("missing_image", f"image {image_id}: {detail}")
        annotated = _annotated_size(row)
        try:
            actual = self.turns.measure(image_id, path)
        except IMAGE_ERRORS as error:
            if annotated:  # found again when the image is needed, and `on_error` decides
                return ImageRecord(image_id, path, *annotated)
            raise _ImageProblem("unreadable_image", f"image {image_id}: {error}") from error
        problem = size_problem(annotated, actual, self.units) if annotated else None
        if annotated:
            self.sizes.add(image_id, problem)
        if problem:
            raise _ImageProblem("other_size", f"image {image_id}: {problem}")
        return ImageRecord(image_id, path, *actual)


def _places(row: Row, name: str) -> list[str]:
    """Where the file of an image may be, in the folder of images; the most likely place first.

    Of the folder that a layout notes, the end is enough. A name that has folders itself needs none.
    Last comes the whole name of which the layout kept the end.
    """
    folder, given = row.get("folder"), row.get("given_name")
    parts = folder.split("/") if isinstance(folder, str) and not name.startswith("/") else []
    places = ["/".join([*parts[start:], name]) for start in range(len(parts) + 1)]
    if isinstance(given, str):
        above = "/".join(name_parts(given)).rpartition("../")[2]
        places.append(f"/{above}" if ".." in name_parts(given) else given)
    return places


def _annotated_size(row: Row) -> Size | None:
    """Width and height in pixels, if the json gives both.

    Raises:
        _ImageProblem: they are not valid sides.
    """
    try:
        return entry_size(row)
    except InputError as error:
        raise _ImageProblem("no_size", f"image {shown(row)}: {error}") from error
