from __future__ import annotations

import json
from collections import Counter

import pytest

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


@pytest.mark.parametrize("labels", [[1], [1, 0, 0], [1, 2], []])
def test_labels_that_do_not_fit_the_vocabulary_are_counted(write, labels):
    found = read_ovad(*write([[1, 0], labels]))

    assert found.rejection_counts() == {"unreadable_record": 1}


@pytest.mark.parametrize("attributes", [None, ["wet"], [{"name": "wet"}]])
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
