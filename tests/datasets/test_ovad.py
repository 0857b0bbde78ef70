from __future__ import annotations

import json
from collections import Counter

import pytest

from lavis_dynrefer.datasets.sources.coco_layout import read_coco_instances
from lavis_dynrefer.datasets.sources.ovad import read_ovad
from lavis_dynrefer.datasets.sources.raw_files import DatasetError

KEYS = ("name", "type", "parent_type", "is_has_att", "freq_set")
ATTRIBUTES = [
    dict(zip(KEYS, (f"state:{word}", "state", "state", "is", "tail"))) for word in ("wet", "dry")
]


@pytest.fixture
def read(tmp_path):
    """Writes a file with one box per vector of labels, and reads it."""
    (tmp_path / "1.jpg").touch()

    def _read(labels, **keys):
        document = {
            "images": [{"id": 1, "file_name": "1.jpg", "width": 100, "height": 80}],
            "categories": [{"id": 18, "name": "dog"}],
            "attributes": ATTRIBUTES,
            "annotations": [
                {"id": n, "image_id": 1, "category_id": 18, "bbox": [1, 2, 3, 0.8], "att_vec": row}
                for n, row in enumerate(labels)
            ],
            **keys,
        }
        path = tmp_path / "ovad.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return read_ovad(path, tmp_path)

    return _read


def test_labels_vocabulary_and_category_are_read(read):
    found = read([[1, -1], [-1, -1]])

    assert [region.attributes for region in found.regions] == [(1, -1), (-1, -1)]
    assert [region.category for region in found.regions] == ["dog", "dog"]
    assert [item.name for item in found.attributes] == ["state:wet", "state:dry"]
    assert (found.name, found.split, found.rejected) == ("ovad-14300", "val", [])


@pytest.mark.parametrize(
    "labels",
    [
        *([1], [1, 0, 0], [1, 2], [], "10", {"0": 1, "1": 0}, [1, None], [1, True], [1, 0.5]),
    ],
)
def test_labels_that_do_not_fit_the_vocabulary_are_counted(read, labels):
    assert read([[1, 0], labels]).rejection_counts() == {"unreadable_record": 1}


@pytest.mark.parametrize("label", [0, 0.0, "0"])
def test_labels_may_be_floats_or_strings(read, label):
    (region,) = read([[1, label]]).regions

    assert region.attributes == (1, 0)
    assert [type(value) for value in region.attributes] == [int, int]


@pytest.mark.parametrize(
    "attributes",
    [
        *(None, [], {}, ["wet"], [{"name": "wet"}]),
        [ATTRIBUTES[0], None],
        [ATTRIBUTES[0], ATTRIBUTES[0]],
        [ATTRIBUTES[0], {**ATTRIBUTES[1], "name": 5}],
        [ATTRIBUTES[0], {**ATTRIBUTES[1], "type": None}],
        [ATTRIBUTES[0], {**ATTRIBUTES[1], "is_has_att": ["is"]}],
        [ATTRIBUTES[0], {**ATTRIBUTES[1], "freq_set": "\ud83d"}],
    ],
)
def test_a_file_without_valid_attributes_is_named(read, attributes):
    with pytest.raises(DatasetError, match="is not an OVAD file"):
        read([[1, 0]], attributes=attributes)


# ---- real files ---------------------------------------------------------------------------------


@pytest.fixture
def real(shared):
    """Rows of the real file, and what is read from it."""
    root = shared / "fixtures/coco_ovad_e2e"
    rows = json.loads((root / "ovad2000.json").read_text(encoding="utf-8"))["annotations"]
    return rows, read_ovad(root / "ovad2000.json", root / "val2017")


def test_every_real_box_is_read(real):
    rows, found = real

    assert len(found.regions) == 104
    assert len(found.attributes) == 117
    assert found.rejected == []
    labels = Counter(label for item in found.regions for label in item.attributes)
    assert labels == Counter(label for row in rows for label in row["att_vec"])


def test_attributes_count_as_in_the_statistics_of_the_whole_file(shared, real):
    stats = json.loads((shared / "fixtures/ovad_full_stats.json").read_text(encoding="utf-8"))[
        "per_attribute"
    ]
    _, found = real

    attributes = [(item.name, item.frequency) for item in found.attributes]
    assert attributes == [(row["name"], row["freq_set"]) for row in stats]
    assert Counter(item.frequency for item in found.attributes) == {
        "head": 16,
        "medium": 55,
        "tail": 46,
    }
    columns = [Counter(column) for column in zip(*(item.attributes for item in found.regions))]
    more = [
        row["name"]
        for row, column in zip(stats, columns)
        if column[1] > row["pos"] or column[0] > row["neg"] or column[-1] > row["unk"]
    ]
    assert more == []
    assert sum(1 for column in columns if column[1]) == 73
    assert stats[58]["name"] == "hair color:violet"
    assert (stats[58]["pos"], columns[58][1]) == (0, 0)


def test_boxes_that_differ_from_those_of_coco_are_kept_as_ovad_has_them(shared, real):
    rows, found = real
    root = shared / "fixtures/coco_ovad_e2e"
    coco = read_coco_instances(root / "annotations/instances_val2017.json", root / "val2017")

    corners = [(x, y, x + w, y + h) for x, y, w, h in (row["bbox"] for row in rows)]
    assert [item.box for item in found.regions] == corners
    others = {(item.image_id, item.box) for item in coco.regions}
    redrawn = {item.image_id for item in found.regions if (item.image_id, item.box) not in others}
    assert redrawn == {403385, 434204, 500663, 553664}


def test_the_smallest_real_boxes_are_kept_and_noted(shared, read):
    path = shared / "fixtures/tricky/boxes_real.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["ovad_tiny_real"]
    images = sorted({row["image_id"] for row in rows})

    found = read(
        [],
        images=[{"id": n, "file_name": "1.jpg", "width": 640, "height": 480} for n in images],
        categories=[{"id": n, "name": f"category {n}"} for n in range(1, 91)],
        annotations=[{**row, "att_vec": [0, 1]} for row in rows],
    )

    assert found.rejected == []
    assert 11288 in [item.region_id for item in found.regions]  # 0.86 pixels high
    assert found.noted == {"box_below_2_px": 10}
