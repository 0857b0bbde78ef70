from __future__ import annotations

import json
from collections import Counter

import pytest

from lavis_dynrefer.datasets.sources.coco_layout import read_coco_instances
from lavis_dynrefer.datasets.sources.ovad import read_ovad
from lavis_dynrefer.datasets.sources.raw_files import DatasetError

ATTRIBUTES = [
    {
        "name": f"state:{word}",
        "type": "state",
        "parent_type": "state",
        "is_has_att": "is",
        "freq_set": "tail",
    }
    for word in ("wet", "dry")
]


@pytest.fixture
def write(tmp_path):
    (tmp_path / "1.jpg").touch()

    def _write(labels, **keys):
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
        return path, tmp_path

    return _write


def test_labels_vocabulary_and_category_are_read(write):
    found = read_ovad(*write([[1, -1]]))

    (region,) = found.regions
    assert region.attributes == (1, -1)
    assert region.category == "dog"
    assert [item.name for item in found.attributes] == ["state:wet", "state:dry"]
    assert (found.name, found.split) == ("ovad-14300", "val")


@pytest.mark.parametrize(
    "labels",
    [
        [1],
        [1, 0, 0],
        [1, 2],
        [],
        None,
        "10",
        {"0": 1, "1": 0},
        5,
        [1, None],
        [1, True],
        [1, 0.5],
        [1, float("nan")],
        [1, [0]],
        [1, "absent"],
    ],
)
def test_labels_that_do_not_fit_the_vocabulary_are_counted(write, labels):
    found = read_ovad(*write([[1, 0], labels]))

    assert found.rejection_counts() == {"unreadable_record": 1}


@pytest.mark.parametrize("label", [0, 0.0, "0"])
def test_a_label_is_a_whole_number_however_written(write, label):
    (region,) = read_ovad(*write([[1, label]])).regions

    assert region.attributes == (1, 0)
    assert [type(value) for value in region.attributes] == [int, int]


def test_a_box_of_unknown_attributes_only_is_kept(write):
    found = read_ovad(*write([[-1, -1]]))

    assert found.regions[0].attributes == (-1, -1)
    assert found.rejected == []


@pytest.mark.parametrize(
    "attributes",
    [
        None,
        [],
        {},
        ["wet"],
        [{"name": "wet"}],
        [ATTRIBUTES[0], None],
        [ATTRIBUTES[0], ATTRIBUTES[0]],
        [ATTRIBUTES[0], {**ATTRIBUTES[1], "name": 5}],
        [ATTRIBUTES[0], {**ATTRIBUTES[1], "type": None}],
        [ATTRIBUTES[0], {**ATTRIBUTES[1], "is_has_att": ["is"]}],
        [ATTRIBUTES[0], {**ATTRIBUTES[1], "freq_set": "\ud83d"}],
    ],
)
def test_a_file_without_attributes_is_named(write, attributes):
    with pytest.raises(DatasetError, match="is not an OVAD file"):
        read_ovad(*write([[1, 0]], attributes=attributes))


def test_every_real_box_is_read(shared):
    root = shared / "fixtures/coco_ovad_e2e"
    raw = json.loads((root / "ovad2000.json").read_text(encoding="utf-8"))

    found = read_ovad(root / "ovad2000.json", root / "val2017")

    assert len(found.regions) == 104
    assert len(found.attributes) == 117
    assert found.rejected == []
    labels = Counter(label for item in found.regions for label in item.attributes)
    assert labels == Counter(label for row in raw["annotations"] for label in row["att_vec"])


def test_attributes_count_as_in_the_statistics_of_the_whole_file(shared):
    root = shared / "fixtures/coco_ovad_e2e"
    stats = json.loads((shared / "fixtures/ovad_full_stats.json").read_text())["per_attribute"]

    found = read_ovad(root / "ovad2000.json", root / "val2017")

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


def test_boxes_that_differ_from_those_of_coco_are_kept_as_ovad_has_them(shared):
    root = shared / "fixtures/coco_ovad_e2e"
    raw = json.loads((root / "ovad2000.json").read_text(encoding="utf-8"))["annotations"]

    found = read_ovad(root / "ovad2000.json", root / "val2017").regions
    coco = read_coco_instances(root / "annotations/instances_val2017.json", root / "val2017")

    boxes = [(row["id"], *row["bbox"]) for row in raw]
    assert [(item.region_id, *xywh(item.box)) for item in found] == [
        pytest.approx(box) for box in boxes
    ]
    others = {(item.image_id, item.box) for item in coco.regions}
    redrawn = {item.image_id for item in found if (item.image_id, item.box) not in others}
    assert redrawn == {403385, 434204, 500663, 553664}


def xywh(box):
    x1, y1, x2, y2 = box
    return x1, y1, x2 - x1, y2 - y1


def test_the_smallest_real_boxes_are_kept_and_noted(shared, tmp_path):
    path = shared / "fixtures/tricky/boxes_real.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["ovad_tiny_real"]
    images = sorted({row["image_id"] for row in rows})
    document = {
        "images": [{"id": n, "file_name": "1.jpg", "width": 640, "height": 480} for n in images],
        "categories": [{"id": n, "name": f"category {n}"} for n in range(1, 91)],
        "attributes": ATTRIBUTES,
        "annotations": [{**row, "att_vec": [0, 1]} for row in rows],
    }
    (tmp_path / "1.jpg").touch()
    (tmp_path / "ovad.json").write_text(json.dumps(document), encoding="utf-8")

    found = read_ovad(tmp_path / "ovad.json", tmp_path)

    assert found.rejected == []
    assert 11288 in [item.region_id for item in found.regions]  # 0.86 pixels high
    assert found.noted == {"box_below_2_px": 10}
