"""Files in COCO's layout: instances with categories, and regions with captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Optional

from lavis_dynrefer.datasets.sources.annotation_rows import rows_by_id
from lavis_dynrefer.datasets.sources.raw_files import ImageFolder, RawFile, read_json
from lavis_dynrefer.datasets.sources.region_collector import RegionCollector, Stores, in_memory
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.reading.strict_values import (
    ROW_ERRORS,
    Row,
    shown,
    side_length,
    text_of,
    whole_number,
    xyxy,
)
from lavis_dynrefer.formats.result_parts.region_masks import fits_image, read_mask
from lavis_dynrefer.images.mask_encoding import compress_counts
from lavis_dynrefer.images.masks import box_from_rle
from lavis_dynrefer.structures import Box, ImageRecord, RegionRecord, RegionSet

_SITE = "https://cocodataset.org/#download"
INSTANCES = RawFile("annotations", "annotations/instances_val2017.json", _SITE)
IMAGES = RawFile("images.storage", "val2017", _SITE)
VG_REG_CAPTIONS = RawFile(
    "annotations", "test_caption.json", "the GLaMM project (VG region captions, test_caption.json)"
)
UNUSABLE_MASK = "unusable_mask"  # noted
Describe = Callable[[Row, Optional[ImageRecord]], dict[str, Any]]
"""Annotation and its image -> more fields of its `RegionRecord`; may replace the box."""


def read_coco_instances(
    annotations: str | Path,
    images: str | Path,
    *,
    name: str = "coco-36781",
    split: str = "val",
    stores: Stores = in_memory,
) -> RegionSet:
    """Every annotated object with the name of its category; crowds are marked."""
    document = read_json(annotations, INSTANCES)
    categories = read_categories(document, INSTANCES)

    def describe(row: Row, image: ImageRecord | None) -> dict[str, Any]:
        fields = {"category": category_of(row, categories), "iscrowd": is_crowd(row)}
        if fields["iscrowd"] and image is not None:
            fields["box"] = crowd_box(row, image)
        return fields

    collector = RegionCollector(name, split, stores)
    collect_regions(document, images, collector, describe, INSTANCES)
    return collector.finish(category_names=tuple(categories.values()))


def read_coco_captions(
    annotations: str | Path,
    images: str | Path,
    *,
    name: str,
    split: str,
    stores: Stores = in_memory,
) -> RegionSet:
    """Boxes with a caption each, taken as written: GLaMM's VG test file."""

    def describe(row: Row, image: ImageRecord | None) -> dict[str, Any]:
        del image
        return {"caption": text_of(row["caption"])}

    document = read_json(annotations, VG_REG_CAPTIONS)
    collector = RegionCollector(name, split, stores)
    collect_regions(document, images, collector, describe, VG_REG_CAPTIONS)
    return collector.finish()


def read_categories(document: Row, source: RawFile) -> dict[int, str]:
    """Category id -> name, in file order.

    Raises:
        DatasetError: the document lists no categories, or two with the same id or name.
    """
    names: dict[int, str] = {}
    for number, name, row in category_rows(document, source):
        if name in names.values():
            raise source.error(f"{source.setting}: two 'categories' have the name of {shown(row)}")
        names[number] = name
    return names


def category_rows(document: Row, source: RawFile) -> list[tuple[int, str, Row]]:
    """Id, name and row of each category, in file order; names may repeat.

    Raises:
        DatasetError: the document lists no categories, or two with the same id.
    """
    found: dict[int, tuple[int, str, Row]] = {}
    for row in list_of_rows(document, "categories", source):
        try:
            number, name = whole_number(row["id"]), text_of(row["name"])
        except ROW_ERRORS as error:
            raise source.error(
                f"{source.setting}: expected 'categories' with id and name, got {shown(row)}: "
                f"{error!r}"
            ) from error
        if number in found:
            raise source.error(f"{source.setting}: two 'categories' have the id of {shown(row)}")
        found[number] = (number, name, row)
    return list(found.values())


def category_of(row: Row, categories: Mapping[int, str]) -> str:
    """Name of an annotation's category.

    Raises:
        InputError: the file does not list it.
    """
    try:
        return categories[whole_number(row["category_id"])]
    except KeyError as error:
        raise InputError(f"category {shown(row.get('category_id'))} is not listed") from error


def is_crowd(row: Row) -> bool:
    """Whether an annotation is a crowd: many objects of a category under one mask.

    Raises:
        InputError: `iscrowd` is neither 0 nor 1.
    """
    value = row.get("iscrowd")
    number = int(value or 0) if value is None or isinstance(value, bool) else whole_number(value)
    if number not in (0, 1):
        raise InputError(f"iscrowd: expected 0 or 1, got {shown(value)}")
    return bool(number)


def crowd_box(row: Row, image: ImageRecord) -> Box:
    """The extent of a crowd's mask in pixels, as the released DynRefer code takes it.

    It is one pixel short on the right and at the bottom; so is the `bbox` of COCO's own crowds.

    Raises:
        KeyError, TypeError, ValueError: no mask, or one of another kind or size, or whose runs do
            not fill it.
    """
    size = [whole_number(side) for side in row["segmentation"]["size"]]
    if size != [image.height, image.width]:
        raise InputError(
            f"the mask has {shown(size)} pixels (height, width), the image has "
            f"{[image.height, image.width]}"
        )
    counts = row["segmentation"]["counts"]
    runs = counts if isinstance(counts, str) else list(map(whole_number, counts))
    return box_from_rle({"size": size, "counts": runs}, rule="official")


def list_of_rows(document: Row, key: str, source: RawFile) -> list[Any]:
    """The list under a key of a document; its items are not checked.

    Raises:
        DatasetError: there is no list.
    """
    rows = document.get(key)
    if not isinstance(rows, list):
        raise source.error(
            f"{source.setting}: expected {key!r} with a list, got an object with {shown(document)}"
        )
    return rows


def collect_regions(
    document: Row,
    image_folder: str | Path,
    collector: RegionCollector,
    describe: Describe,
    source: RawFile,
) -> None:
    """Give every annotation of a COCO-style document to the collector.

    Args:
        document: with `images` and `annotations`.
        image_folder: path of the COCO images, or those of Visual Genome.
        collector: takes or rejects each region.
        describe: what an annotation says besides its ids and its box.
        source: what the document is, for errors.

    Raises:
        DatasetError: the document has no `images` or `annotations`.
    """
    listed = list_of_rows(document, "images", source)
    rows = list_of_rows(document, "annotations", source)
    entries = rows_by_id(listed, "entry of 'images'", source, [collector])
    images = ImageRows(entries, ImageFolder(image_folder, IMAGES))
    for row in rows:
        image_id = None
        try:
            image_id = whole_number(row["image_id"])
            image = images.get(image_id)
            fields = {"box": xyxy(row["bbox"]), **describe(row, image)}
            mask = region_mask(row, image, collector)
            region = RegionRecord(whole_number(row["id"]), image_id, mask=mask, **fields)
        except ROW_ERRORS as error:
            detail = f"annotation {shown(row)}: {error!r}"
            collector.leave_out("unreadable_record", detail, image_id)
            continue
        collector.add(region, image)


def region_mask(row: Row, image: ImageRecord | None, collector: RegionCollector) -> Any:
    """The mask of an annotation: polygons in pixels, or compressed run lengths.

    One that is damaged or as large as another image is None and noted as `unusable_mask`: the box
    is the region, and its mask adds to it.
    """
    segmentation = row.get("segmentation")
    if not segmentation:
        return None
    try:
        mask = _runs(segmentation) if isinstance(segmentation, Mapping) else read_mask(segmentation)
        if image is None or fits_image(mask, (image.width, image.height)):
            return mask
    except ROW_ERRORS:
        pass
    collector.note(UNUSABLE_MASK)
    return None


def _runs(rle: Mapping[str, Any]) -> dict[str, Any]:
    """Run lengths, checked and compressed; those that are compressed are read once, and kept."""
    box_from_rle(rle)
    height, width = rle["size"]
    counts = rle["counts"]
    if not isinstance(counts, (str, bytes)):
        counts = compress_counts(counts)
    text = counts.decode("ascii") if isinstance(counts, bytes) else counts
    return {"size": [height, width], "counts": text}


class ImageRows:
    """The images that a COCO-style document lists.

    Args:
        rows: entries of `images` by their id.
        folder: of the image files.
    """

    def __init__(self, rows: Mapping[int, Row], folder: ImageFolder) -> None:
        self.rows = rows
        self.folder = folder
        self._found: dict[int, ImageRecord | None] = {}

    def get(self, image_id: int) -> ImageRecord | None:
        """An image, with an empty path if its file is missing; None without name and size."""
        if image_id not in self._found:
            self._found[image_id] = self.read(image_id)
        return self._found[image_id]

    def read(self, image_id: int) -> ImageRecord | None:
        """The image itself, which `get` keeps."""
        try:
            row = self.rows[image_id]
            name = text_of(row["file_name"])
            width, height = side_length(row["width"]), side_length(row["height"])
        except ROW_ERRORS:
            return None
        # GLaMM's file names Visual Genome images without the folder of their archive.
        path = self.folder.find(name, f"VG_100K/{name}", f"VG_100K_2/{name}") or ""
        return ImageRecord(image_id, path, width, height)
