"""Visual Genome region descriptions from the raw files of versions 1.0 and 1.2.

Captions and boxes are treated as the authors of ControlCap and DynRefer treat them, which is also
the ground truth of GRiT's dense captioning numbers.
"""

from __future__ import annotations

import logging
import string
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from lavis_dynrefer.datasets.sources.collector import RegionCollector, Stores, in_memory
from lavis_dynrefer.datasets.sources.raw_files import (
    Opener,
    PictureFolder,
    RawFile,
    iter_json_list,
    open_binary,
    read_json,
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
MAX_CAPTION_WORDS = 15  # ControlCap and GRiT drop longer ones
_CAPTION_TABLE = str.maketrans(  # DenseCap's replacements, then no punctuation
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
    """Read the splits of one version.

    Args:
        region_descriptions: json in the layout of version 1.0 or 1.2.
        image_data: json with size, url and COCO id of every picture.
        densecap_splits: json with the picture ids of train, val and test.
        images: folder with VG_100K and VG_100K_2, or with all pictures side by side.
        version: "v1.2", "v1.0", or "vgcoco": the pictures of 1.2 that are COCO pictures too.
        splits: which of "train", "val", "test".
        name: protocol id; None for the version's own.
        stores: where the regions of each split go.
        opener: opens the largest file, so that a caller can watch the progress.

    Returns:
        Split name -> regions.

    Raises:
        DatasetError: a file is missing or of another kind, or a split has no usable region.
    """
    protocol = name or PROTOCOLS[version]
    collectors = {split: RegionCollector(protocol, split, stores) for split in splits}
    folder = PictureFolder(images, IMAGES)
    split_of = _read_splits(densecap_splits, collectors)
    rows = {_picture_id(row, IMAGE_DATA): row for row in iter_json_list(image_data, IMAGE_DATA)}
    if version == "vgcoco":
        coco = {image_id for image_id, row in rows.items() if row.get("coco_id") is not None}
        split_of = {image_id: split for image_id, split in split_of.items() if image_id in coco}
    missing = dict(split_of)
    layouts: set[str] = set()
    for entry in iter_json_list(region_descriptions, REGION_DESCRIPTIONS, opener):
        image_id = _picture_id(entry, REGION_DESCRIPTIONS)
        regions = entry.get("regions")
        if image_id in split_of and regions:
            missing.pop(image_id, None)
            image = _find_picture(image_id, rows.get(image_id), folder)
            for row in regions:
                layouts.add("v1.2" if "region_id" in row else "v1.0")
                _add_region(collectors[split_of[image_id]], image_id, image, row)
    for image_id, split in missing.items():
        detail = f"picture {image_id} of the split has no region in {region_descriptions}"
        collectors[split].leave_out("no_regions", detail, image_id)
    if layouts - {"v1.0" if version == "v1.0" else "v1.2"}:
        logger.warning("%s has the keys of %s, asked for %s", region_descriptions, layouts, version)
    return {split: collector.finish() for split, collector in collectors.items()}


def clean_caption(phrase: str) -> str:
    """A phrase as it is trained on and graded: no punctuation, lower case, single blanks.

    >>> clean_caption(' The "STOP" sign.  ')
    'the stop sign'
    """
    return " ".join(phrase.translate(_CAPTION_TABLE).lower().split())


def clamp_box(x: float, y: float, w: float, h: float, width: int, height: int) -> Box:
    """Corner and size to xyxy, the upper left corner at least one pixel inside the picture.

    The result may be empty where the region lies outside.
    """
    x1, y1 = min(max(x, 1), width - 1), min(max(y, 1), height - 1)
    return float(x1), float(y1), float(min(x + w, width)), float(min(y + h, height))


def _read_splits(path: str | Path, collectors: Mapping[str, RegionCollector]) -> dict[int, str]:
    """Picture id -> split, for the splits asked for; a picture in two splits is tested on."""
    document = read_json(path, SPLITS_FILE)
    split_of: dict[int, str] = {}
    for split in SPLITS:
        if not isinstance(document.get(split), list):
            raise SPLITS_FILE.error(f"{path}: expected a list of picture ids under {split!r}")
        for image_id in map(int, document[split]):
            loser = split_of.get(image_id)
            if loser not in (None, split) and loser in collectors:
                detail = f"picture {image_id} is in the splits {loser} and {split}"
                collectors[loser].leave_out("in_two_splits", detail, image_id)
            split_of[image_id] = split
    return {image_id: split for image_id, split in split_of.items() if split in collectors}


def _picture_id(row: Mapping[str, Any], source: RawFile) -> int:
    # "id" everywhere in version 1.0; "image_id" in image_data.json of 1.2
    value = row.get("image_id", row.get("id"))
    if value is None:
        raise source.error(f"{source.setting}: expected 'image_id' or 'id', got {sorted(row)}")
    return int(value)


def _find_picture(
    image_id: int, row: Mapping[str, Any] | None, folder: PictureFolder
) -> ImageRecord | None:
    """The picture, with an empty path where its file is missing; None without its size."""
    if row is None or not row.get("width") or not row.get("height"):
        return None
    parts = PurePosixPath(row.get("url") or f"{image_id}.jpg").parts[-2:]
    names = [
        "/".join(parts),
        *(f"{parent}{parts[-1]}" for parent in ("", "VG_100K/", "VG_100K_2/")),
    ]
    return ImageRecord(
        image_id, folder.find(*names) or "", width=int(row["width"]), height=int(row["height"])
    )


def _add_region(
    collector: RegionCollector, image_id: int, image: ImageRecord | None, row: Mapping[str, Any]
) -> None:
    try:
        region_id = int(row.get("region_id", row.get("id")))
        caption = clean_caption(row["phrase"])
        x, y, w, h = (float(row[key]) for key in ("x", "y", "width", "height"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        detail = f"region {row!r:.200} of picture {image_id}: {error!r}"
        collector.leave_out("unreadable_record", detail, image_id)
        return
    if len(caption.split()) > MAX_CAPTION_WORDS:
        detail = f"caption of region {region_id} has more than {MAX_CAPTION_WORDS} words"
        collector.leave_out("long_caption", detail, image_id)
        return
    given = (x, y, x + w, y + h)
    box = clamp_box(x, y, w, h, image.width, image.height) if image else given
    region = RegionRecord(region_id, image_id, box, caption)
    if image is None:
        collector.reject("no_image_data", f"picture {image_id} has no size in image_data", region)
    elif not caption:
        collector.reject("empty_caption", f"region {region_id} has no word in its caption", region)
    else:
        collector.add(region, image, given=given)
