"""Visual Genome region descriptions from the raw files of versions 1.0 and 1.2.

Captions and boxes are converted as in ControlCap and DynRefer, which is also the ground truth of
GRiT's dense captioning numbers.
"""

from __future__ import annotations

import logging
import string
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from lavis_dynrefer.datasets.sources.annotation_rows import rows_by_id, rows_with_ids
from lavis_dynrefer.datasets.sources.raw_files import (
    ImageFolder,
    Opener,
    RawFile,
    iter_json_list,
    open_binary,
    read_json,
)
from lavis_dynrefer.datasets.sources.region_collector import RegionCollector, Stores, in_memory
from lavis_dynrefer.formats.reading.strict_values import (
    ROW_ERRORS,
    Row,
    shown,
    side_length,
    text_of,
    whole_number,
    xyxy,
)
from lavis_dynrefer.structures import Box, ImageRecord, RegionRecord, RegionSet

logger = logging.getLogger(__name__)

_SITE = "https://homes.cs.washington.edu/~ranjay/visualgenome/api.html"
REGION_DESCRIPTIONS = RawFile("region_descriptions", "region_descriptions.json", _SITE)
IMAGE_DATA = RawFile("image_data", "image_data.json", _SITE)
SPLITS_FILE = RawFile(
    "densecap_splits",
    "densecap_splits.json",
    "https://github.com/jcjohnson/densecap (info/densecap_splits.json)",
)
IMAGES = RawFile("images.storage", "images", f"{_SITE} (images.zip and images2.zip)")

SPLITS = ("train", "val", "test")
PROTOCOLS = {  # type -> protocol id of the reports
    "v1.2": "vg1.2-densecap-gt",
    "v1.0": "vg1.0-densecap-gt",
    "vgcoco": "vgcoco-densecap-gt",
}
ID_KEYS = ("image_id", "id")  # "id" in version 1.0, and in the region descriptions of 1.2 as well
OLD_KEYS, NEW_KEYS = "v1.0_keys", "v1.2_keys"  # noted if a region has those of the other version
MAX_CAPTION_WORDS = 15  # ControlCap and GRiT drop longer ones
_CAPTION_TABLE = str.maketrans(  # no punctuation, and DenseCap's replacements
    {
        **dict.fromkeys(string.punctuation, ""),
        "\u00bd": "half",
        "\u2014": "",
        "\u2122": "",
        "\u00a2": "cent",
        "\u00e7": "c",
        "\u00fb": "u",
        "\u00e9": "e",
        "\u00b0": " degree",
        "\u00e8": "e",
        "\u2026": "",
    }
)


def read_visual_genome(
    region_descriptions: str | Path,
    image_data: str | Path,
    densecap_splits: str | Path,
    images: str | Path,
    *,
    version: str = "v1.2",
    splits: Sequence[str] = SPLITS,
    name: str | None = None,
    stores: Stores = in_memory,
    opener: Opener = open_binary,
) -> dict[str, RegionSet]:
    """Split name -> regions of one version.

    Args:
        region_descriptions: in the layout of version 1.0 or 1.2.
        image_data: with size, url and COCO id of every image.
        densecap_splits: with the image ids of train, val and test.
        images: has VG_100K and VG_100K_2, or all images side by side.
        version: "v1.2", "v1.0", or "vgcoco": the images of 1.2 that are also in COCO.
        opener: opens the largest file; a caller can pass one that shows progress.
    """
    protocol = name or PROTOCOLS[version]
    collectors = {split: RegionCollector(protocol, split, stores) for split in splits}
    every = list(collectors.values())
    folder = ImageFolder(images, IMAGES)
    split_of = _read_splits(densecap_splits, collectors)
    listed = iter_json_list(image_data, IMAGE_DATA)
    listed_images = rows_by_id(listed, "image of image_data", IMAGE_DATA, every, ID_KEYS)
    if version == "vgcoco":
        split_of = _coco_images(split_of, listed_images, image_data)
    missing = dict(split_of)
    entries = iter_json_list(region_descriptions, REGION_DESCRIPTIONS, opener)
    for image_id, entry in rows_with_ids(
        entries, "image of region_descriptions", REGION_DESCRIPTIONS, every, ID_KEYS
    ):
        regions = entry.get("regions")
        if image_id not in split_of or not regions:
            continue
        collector = collectors[split_of[image_id]]
        if missing.pop(image_id, None) is None:
            collector.note("image_listed_twice")
        image = _find_image(image_id, listed_images.get(image_id, {}), folder)
        _add_regions(collector, image_id, image, regions, is_old=version == "v1.0")
    for image_id, split in missing.items():
        detail = f"image {image_id} of the split has no region in {region_descriptions}"
        collectors[split].leave_out("no_regions", detail, image_id)
    found = {split: collector.finish() for split, collector in collectors.items()}
    _warn_of_other_keys(found, region_descriptions, version)
    return found


def clean_caption(phrase: str) -> str:
    """A phrase as used in training and grading: no punctuation, lower case, single spaces.

    >>> clean_caption(' The "STOP" sign.  ')
    'the stop sign'
    """
    return " ".join(phrase.translate(_CAPTION_TABLE).lower().split())


def clamp_box(box: Box, width: int, height: int) -> Box:
    """Clamp an xyxy box to an image, its upper left corner at least one pixel inside.

    The result may be empty if the region lies outside.
    """
    x1, y1, x2, y2 = box
    # Comparisons instead of min and max: this runs five million times.
    x1, y1 = (x1 if x1 > 1 else 1), (y1 if y1 > 1 else 1)
    return (
        float(x1 if x1 < width - 1 else width - 1),
        float(y1 if y1 < height - 1 else height - 1),
        float(x2 if x2 < width else width),
        float(y2 if y2 < height else height),
    )


def _read_splits(path: str | Path, collectors: Mapping[str, RegionCollector]) -> dict[int, str]:
    """Image id -> split, for the splits wanted; an image in two splits is not trained on."""
    document = read_json(path, SPLITS_FILE)
    split_of: dict[int, str] = {}
    for split in SPLITS:
        if not isinstance(document.get(split), list):
            raise SPLITS_FILE.error(f"{path}: expected a list of image ids under {split!r}")
        for value in document[split]:
            try:
                image_id = whole_number(value)
            except ValueError as error:
                if split in collectors:
                    detail = f"{path}, split '{split}': image id: {error}"
                    collectors[split].leave_out("unreadable_entry", detail, None)
                continue
            loser = split_of.get(image_id)
            if loser not in (None, split) and loser in collectors:
                detail = f"image {image_id} is in the splits {loser} and {split}"
                collectors[loser].leave_out("in_two_splits", detail, image_id)
            split_of[image_id] = split
    return {image_id: split for image_id, split in split_of.items() if split in collectors}


def _coco_images(
    split_of: Mapping[int, str], images: Mapping[int, Row], path: str | Path
) -> dict[int, str]:
    """The images that are also in COCO; those without image data stay and are counted."""
    if not any("coco_id" in row for row in images.values()):
        raise IMAGE_DATA.error(f"{path}: no image has a 'coco_id', which type vgcoco needs")
    return {
        image_id: split
        for image_id, split in split_of.items()
        if image_id not in images or _has_coco_id(images[image_id])
    }


def _has_coco_id(row: Row) -> bool:
    try:
        whole_number(row.get("coco_id"))
    except ValueError:  # null, or NaN if the file once was a table of numbers
        return False
    return True


def _find_image(image_id: int, row: Row, folder: ImageFolder) -> ImageRecord | None:
    """The image, with an empty path if its file is missing; None without its size."""
    try:
        width, height = side_length(row["width"]), side_length(row["height"])
    except ROW_ERRORS:
        return None
    url, name = row.get("url"), f"{image_id}.jpg"
    parts = PurePosixPath(url).parts[-2:] if isinstance(url, str) else ()
    stem = PurePosixPath(parts[-1]).stem if parts else ""
    if not parts or (stem.isdecimal() and stem.lstrip("0") != str(image_id)):
        parts = (*parts[:-1], name)  # no url, or the url of another image
    bases = dict.fromkeys((parts[-1], name))
    names = [f"{parent}{base}" for base in bases for parent in ("", "VG_100K/", "VG_100K_2/")]
    return ImageRecord(image_id, folder.find("/".join(parts), *names) or "", width, height)


def _add_regions(
    collector: RegionCollector,
    image_id: int,
    image: ImageRecord | None,
    rows: Any,
    *,
    is_old: bool,
) -> None:
    """Give the regions of one image to the collector; `is_old`: version 1.0 was asked for."""
    if not isinstance(rows, list):
        detail = f"image {image_id}: expected a list of regions, got {shown(rows)}"
        collector.leave_out("unreadable_record", detail, image_id)
        return
    for row in rows:
        try:
            region, original = _read_region(row, image_id, image)
        except ROW_ERRORS as error:
            detail = f"region {shown(row)} of image {image_id}: {error!r}"
            collector.leave_out("unreadable_record", detail, image_id)
            continue
        if (region.caption or "").count(" ") >= MAX_CAPTION_WORDS:  # cleaned: single spaces
            detail = f"caption of region {region.region_id} has over {MAX_CAPTION_WORDS} words"
            collector.leave_out("long_caption", detail, image_id)
            continue
        _note_keys(collector, image_id, row, is_old)
        collector.add(region, image, original=original)


def _read_region(row: Row, image_id: int, image: ImageRecord | None) -> tuple[RegionRecord, Box]:
    """A region with the protocol's box and caption, and the xyxy box as the file has it.

    Raises `ROW_ERRORS`.
    """
    region_id = whole_number(row["region_id"] if "region_id" in row else row["id"])
    caption = clean_caption(text_of(row["phrase"]))
    original = xyxy([row["x"], row["y"], row["width"], row["height"]])
    box = clamp_box(original, image.width, image.height) if image else original
    return RegionRecord(region_id, image_id, box, caption), original


def _note_keys(collector: RegionCollector, image_id: int, row: Row, is_old: bool) -> None:
    has_old = "region_id" not in row
    if has_old is not is_old:
        collector.note(OLD_KEYS if has_old else NEW_KEYS)
    inner = row.get("image" if has_old else "image_id", image_id)
    if inner != image_id and str(inner) != str(image_id):
        collector.note("other_image_inside")  # the image it is listed under counts


def _warn_of_other_keys(found: Mapping[str, RegionSet], path: str | Path, version: str) -> None:
    for keys, other in ((OLD_KEYS, "1.0"), (NEW_KEYS, "1.2")):
        number = sum(region_set.noted.get(keys, 0) for region_set in found.values())
        if number:
            logger.warning(
                "%s: %d regions have the keys of version %s, expected %s; is it the file of the "
                "other version? Its regions differ, and so do the metrics measured on them",
                *(path, number, other, version),
            )
