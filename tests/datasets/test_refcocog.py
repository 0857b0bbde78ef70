from __future__ import annotations

import json
import os
import pickle

import pytest

from lavis_dynrefer.datasets.sources.raw_files import DatasetError
from lavis_dynrefer.datasets.sources.refcocog import read_refcocog


def reference(number, split="val", **keys):
    return {
        "ref_id": number,
        "ann_id": 5,
        "image_id": 1,
        "split": split,
        "file_name": "COCO_train2014_000000000001_0.jpg",
        "sentences": [
            {"sent_id": 10 * number + n, "sent": f"a dog {n}", "raw": "?"} for n in (0, 1)
        ],
        **keys,
    }


@pytest.fixture
def write(tmp_path):
    instances = {
        "images": [{"id": 1, "file_name": "COCO_1.jpg", "width": 100, "height": 80}],
        "annotations": [{"id": 5, "image_id": 1, "bbox": [10, 20, 30, 40]}],
    }
    (tmp_path / "COCO_1.jpg").touch()
    (tmp_path / "instances.json").write_text(json.dumps(instances), encoding="utf-8")

    def _write(content):
        (tmp_path / "refs.p").write_bytes(content)
        return tmp_path / "refs.p", tmp_path / "instances.json", tmp_path

    return _write


def test_every_sentence_is_a_region_of_its_own(write):
    files = write(pickle.dumps([reference(1), reference(2, split="train")], protocol=2))

    (found,) = read_refcocog(*files, splits=["val"]).values()

    assert [(item.region_id, item.caption) for item in found.regions] == [
        (10, "a dog 0"),
        (11, "a dog 1"),
    ]
    assert {item.box for item in found.regions} == {(10, 20, 40, 60)}
    assert found.name == "refcocog-umd-val"


@pytest.mark.parametrize("keys", [{"ann_id": 6}, {"image_id": 2}, {"sentences": None}])
def test_references_that_do_not_fit_the_boxes_are_counted(write, keys):
    files = write(pickle.dumps([reference(1), reference(2, **keys)], protocol=2))

    (found,) = read_refcocog(*files, splits=["val"]).values()

    assert found.rejection_counts() == {"unreadable_record": 1}


class Foreign:
    def __reduce__(self):
        return os.getcwd, ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps([Foreign()]), r"asks for \w+\.getcwd"),
        (b"", "no list of references"),
        (b"<html>", "no list of references"),
        (pickle.dumps({"a": 1}), "expected a list of references"),
    ],
)
def test_a_pickle_of_anything_else_is_refused(write, content, message):
    with pytest.raises(DatasetError, match=message):
        read_refcocog(*write(content))


def test_a_split_that_another_partition_uses_is_empty(write):
    files = write(pickle.dumps([reference(1, split="testA")], protocol=2))

    with pytest.raises(DatasetError, match="no usable region"):
        read_refcocog(*files, splits=["test"])


def test_the_real_layout_is_read(shared):
    root = shared / "fixtures/refcocog_format"
    refs = pickle.loads((root / "refcocog/refs(umd).p").read_bytes())  # our own fixture
    sentences = [row for ref in refs if ref["split"] == "train" for row in ref["sentences"]]

    found = read_refcocog(
        root / "refcocog/refs(umd).p",
        root / "refcocog/instances.json",
        root / "images/train2014",
        splits=["train"],
    )

    assert [item.caption for item in found["train"].regions] == [row["sent"] for row in sentences]
    assert found["train"].rejected == []
