"""Files in COCO's layout: instances with categories, and regions with captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis_dynrefer.datasets.sources.collector import RegionCollector, Stores, in_memory
from lavis_dynrefer.datasets.sources.raw_files import PictureFolder, RawFile, read_json
from lavis_dynrefer.geometry.masks import box_from_rle
from lavis_dynrefer.structures import Box, ImageRecord, RegionRecord, RegionSet

_SITE = "https://cocodataset.org/#download"
INSTANCES = RawFile("annotations", "annotations/instances_val2017.json", _SITE)
IMAGES = RawFile("images.storage", "val2017", _SITE)
VG_REG_CAPTIONS = RawFile(
    "annotations", "test_caption.json", "the GLaMM project (VG region captions, test_caption.json)"
)
Row = Mapping[str, Any]


def read_coco_instances(
    annotations: str | Path,
    images: str | Path,
    *,
    name: str = "coco-36781",
    split: str = "val",
    stores: Stores = in_memory,
) -> RegionSet:
    """Every annotated object with the name of its category, crowds marked as such.

    A crowd's box is the extent of its mask as the released DynRefer code takes it, which is one
    pixel short on the right and at the bottom.

    Args:
        annotations: instances json.
        images: folder of the pictures.
        name: protocol id.
        split: split name.
        stores: where the regions go.

    Raises:
        DatasetError: a file is missing or of another kind, or no region is usable.
    """
    document = read_json(annotations, INSTANCES)
    categories = category_names(document, INSTANCES)

    def describe(row: Row) -> dict[str, Any]:
        fields = {"category": category_of(row, categories), "iscrowd": bool(row.get("iscrowd"))}
        if fields["iscrowd"]:
            fields["box"] = box_from_rle(row["segmentation"], rule="official")
        return fields

    collector = RegionCollector(name, split, stores)
    collect_regions(document, PictureFolder(images, IMAGES), collector, describe, INSTANCES)
    return collector.finish(category_names=tuple(categories.values()))


def read_coco_captions(
    annotations: str | Path,
    images: str | Path,
    *,
    name: str,
    split: str,
    source: RawFile = VG_REG_CAPTIONS,
    stores: Stores = in_memory,
) -> RegionSet:
    """Boxes with a caption each, taken as written: GLaMM's VG test file, or a user's own.

    Args:
        annotations: json in COCO's layout whose annotations have a `caption`.
        images: folder of the pictures.
        name: protocol id.
        split: split name.
        source: what the file is, for errors.
        stores: where the regions go.

    Raises:
        DatasetError: a file is missing or of another kind, or no region is usable.
    """
    document = read_json(annotations, source)
    collector = RegionCollector(name, split, stores)
    folder = PictureFolder(images, IMAGES)
    collect_regions(document, folder, collector, lambda row: {"caption": row["caption"]}, source)
    return collector.finish()


def category_names(document: Row, source: RawFile) -> dict[int, str]:
    """Category id -> name, in file order.

    Raises:
        DatasetError: the document lists no categories.
    """
    try:
        names = {row["id"]: row["name"] for row in document["categories"]}
    except (KeyError, TypeError) as error:
        raise source.error(
            f"{source.setting}: expected 'categories' with id and name, got {sorted(document)}"
        ) from error
    return names


def category_of(row: Row, categories: Mapping[int, str]) -> str:
    """Name of an annotation's category.

    Raises:
        ValueError: the file does not list it.
    """
    try:
        return categories[row["category_id"]]
    except KeyError as error:
        raise ValueError(f"category {row.get('category_id')!r} is not listed") from error


def collect_regions(
    document: Row,
    folder: PictureFolder,
    collector: RegionCollector,
    describe: Callable[[Row], dict[str, Any]],
    source: RawFile,
) -> None:
    """Hand every annotation of a COCO-style document to the collector.

    Args:
        document: with `images` and `annotations`.
        folder: where the pictures lie.
        collector: takes or rejects each region.
        describe: annotation -> further fields of its `RegionRecord`; may replace the box.
        source: what the document is, for errors.

    Raises:
        DatasetError: the document has no `images` or `annotations`.
    """
    for key in ("images", "annotations"):
        rows = document.get(key)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise source.error(f"{source.setting}: no list of objects {key!r}, {sorted(document)}")
    pictures = {row.get("id"): row for row in document["images"]}
    found: dict[int, ImageRecord] = {}
    for row in document["annotations"]:
        image_id = row.get("image_id")
        try:
            if image_id not in found:
                found[image_id] = find_picture(pictures[image_id], folder)
            fields = {"box": xyxy(row["bbox"]), **describe(row)}
            region = RegionRecord(region_id=int(row["id"]), image_id=int(image_id), **fields)
        except (KeyError, TypeError, ValueError) as error:
            brief = {key: row[key] for key in ("id", "image_id", "bbox") if key in row}
            collector.leave_out("unreadable_record", f"annotation {brief}: {error!r}", image_id)
            continue
        collector.add(region, found[image_id])


def find_picture(row: Row, folder: PictureFolder) -> ImageRecord:
    """The picture of an `images` entry, with an empty path where its file is missing."""
    name = row["file_name"]
    # GLaMM's file names Visual Genome pictures without the folder their archive puts them in.
    path = folder.find(name, f"VG_100K/{name}", f"VG_100K_2/{name}") or ""
    return ImageRecord(int(row["id"]), path, int(row["width"]), int(row["height"]))


def xyxy(bbox: Sequence[float]) -> Box:
    """COCO's corner and size to two corners.

    >>> xyxy([10, 20, 4, 3])
    (10.0, 20.0, 14.0, 23.0)
    """
    x, y, w, h = map(float, bbox)
    return x, y, x + w, y + h
