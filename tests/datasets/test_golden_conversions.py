"""Real files of Visual Genome are converted exactly as by the released data's own conversion.

The golden files were made by its rules: images, captions and boxes in order, nothing more and
nothing less. Tags are compared in tests/vocab/test_golden_tags.py.
"""

from __future__ import annotations

import json

import pytest

from lavis_dynrefer.datasets.prepared import (
    RawDataset,
    open_prepared,
    prepare,
)
from lavis_dynrefer.datasets.sources.visual_genome import read_visual_genome

SPLITS = ("train", "val", "test")
FIVE = "five images, v1.2"
CASES = [FIVE, "nine images, v1.0", "nine images, v1.2"]
WAYS = ["reader", "tables"]


@pytest.fixture(params=CASES)
def case(request, shared, tmp_path):
    """The raw dataset and its golden file."""
    fixtures = shared / "fixtures"
    version = request.param[-4:]
    if request.param == FIVE:
        # The images themselves are not there: sizes are those of image_data.json.
        folder, golden = fixtures / "vg_raw_5images/vg1.2", "vg1.2_5images"
        images, splits = tmp_path / "images", tmp_path / "splits.json"
        images.mkdir()
        for number in range(1, 6):
            (images / f"{number}.jpg").touch()
        splits.write_text(
            json.dumps({"train": list(range(1, 6)), "val": [], "test": []}), encoding="utf-8"
        )
    else:
        folder, golden = fixtures / "vg_format_e2e" / f"vg{version[1:]}", "vg_format_e2e"
        images, splits = folder.parent / "images", folder.parent / "densecap_splits.json"
    sources = {
        "region_descriptions": folder / "region_descriptions.json",
        "image_data": folder / "image_data.json",
        "densecap_splits": splits,
    }

    def read(splits, stores, opener):
        return read_visual_genome(
            *sources.values(),
            images,
            version=version,
            splits=splits,
            stores=stores,
            opener=opener,
        )

    raw = RawDataset("vg_region", version, None, sources, images, read)
    path = fixtures / "golden" / f"{golden}_dynrefer.json"
    return raw, json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(params=WAYS)
def converted(request, case, tmp_path):
    """The region sets of a raw dataset in the order of its splits, and the golden file."""
    raw, golden = case
    splits = SPLITS if len(golden["images"]) == 9 else ("train",)
    if request.param == "reader":
        found = read_visual_genome(
            *raw.sources.values(), raw.images, version=raw.type, splits=splits
        )
    else:
        prepare(raw, splits, tmp_path / "prepared")
        found = open_prepared(tmp_path / "prepared", splits)
    return list(found.values()), golden


def regions_of(parts):
    return [region for part in parts for region in part.regions]


def test_images_are_those_of_the_golden_file(converted):
    parts, golden = converted

    images = [image for part in parts for image in part.images.values()]

    assert [(item.image_id, item.width, item.height) for item in images] == [
        (row["id"], row["width"], row["height"]) for row in golden["images"]
    ]
    assert [item.path.rpartition("/")[2] for item in images] == [
        row["file_name"] for row in golden["images"]
    ]


def test_captions_and_boxes_are_those_of_the_golden_file_in_its_order(converted):
    parts, golden = converted

    assert [(item.image_id, item.caption, item.box) for item in regions_of(parts)] == [
        (row["image_id"], row["caption"], tuple(row["bbox"])) for row in golden["annotations"]
    ]


def test_boxes_are_those_of_the_golden_segmentation(converted):
    """The released code takes its boxes from there, and widens those of a pixel or less."""
    parts, golden = converted
    polygons = [row["segmentation"][0] for row in golden["annotations"]]

    corners = [(min(p[::2]), min(p[1::2]), max(p[::2]), max(p[1::2])) for p in polygons]

    assert [item.box for item in regions_of(parts)] == corners
    assert min(min(x2 - x1, y2 - y1) for x1, y1, x2, y2 in corners) > 1


def test_nothing_is_dropped_or_noted(converted):
    parts, golden = converted

    assert sum(len(part.regions) for part in parts) == len(golden["annotations"])
    assert [part.rejection_counts() for part in parts] == [{} for _ in parts]
    assert [dict(part.noted) for part in parts] == [{} for _ in parts]


def test_region_ids_are_those_of_the_raw_file(case, converted):
    raw, _ = case
    parts, _ = converted
    entries = json.loads(raw.sources["region_descriptions"].read_text(encoding="utf-8"))
    rows = [row for entry in entries for row in entry["regions"]]

    assert [item.region_id for item in regions_of(parts)] == [
        row.get("region_id", row.get("id")) for row in rows
    ]
