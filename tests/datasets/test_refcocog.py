from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest

from lavis_dynrefer.datasets.sources.raw_files import DatasetError
from lavis_dynrefer.datasets.sources.refcocog import SPLITS, read_refcocog


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
def read(tmp_path):
    """Writes a pickle, or what to pickle, and reads it with one image and one box."""
    (tmp_path / "COCO_1.jpg").touch()

    def _read(content, splits=("val",), images=(), annotations=(), document=None):
        instances = {
            "images": [
                {"id": 1, "file_name": "COCO_1.jpg", "width": 100, "height": 80},
                *images,
            ],
            "annotations": [{"id": 5, "image_id": 1, "bbox": [10, 20, 30, 40]}, *annotations],
            **(document or {}),
        }
        (tmp_path / "instances.json").write_text(json.dumps(instances), encoding="utf-8")
        is_pickle = isinstance(content, bytes)
        pickled = content if is_pickle else pickle.dumps(content, protocol=2)
        (tmp_path / "refs.p").write_bytes(pickled)
        found = read_refcocog(
            tmp_path / "refs.p", tmp_path / "instances.json", tmp_path, splits=splits
        )
        return found if len(splits) > 1 else found[splits[0]]

    return _read


def test_every_sentence_is_a_region_of_its_own(read, tmp_path):
    found = read([reference(1), reference(2, split="train")])

    assert [(item.region_id, item.caption) for item in found.regions] == [
        (10, "a dog 0"),
        (11, "a dog 1"),
    ]
    assert {item.box for item in found.regions} == {(10, 20, 40, 60)}
    assert found.name == "refcocog-umd-val"
    # The reference's own file name has a number added.
    assert found.images[1].path == str(tmp_path / "COCO_1.jpg")


@pytest.mark.parametrize(
    ("keys", "count"),
    [
        ({"ann_id": 6}, 2),  # one for each sentence
        ({"ann_id": None}, 2),
        ({"image_id": 2}, 2),  # the box is on image 1
        ({"sentences": []}, 1),
        ({"sentences": "a dog"}, 1),
        ({"sentences": [{"sent_id": 20, "sent": "a cat"}, {"sent_id": 21, "sent": b"a dog"}]}, 1),
    ],
)
def test_unreadable_sentences_are_counted_one_by_one(read, keys, count):
    found = read(pickle.dumps([reference(1), reference(2, **keys)]))

    assert found.rejection_counts() == {"unreadable_record": count}
    assert len(found.regions) in (2, 3)


@pytest.mark.parametrize("row", [None, 5, "val", [], {}, {"split": None}, {"split": ["val"]}])
def test_a_reference_without_a_split_is_counted_in_every_split(read, row):
    found = read([reference(1), reference(2, split="train"), row], splits=["train", "val"])

    assert [part.rejection_counts() for part in found.values()] == 2 * [{"unreadable_entry": 1}]


def test_damage_that_no_reference_uses_costs_no_region(read):
    found = read(
        [reference(1)],
        images=[{"file_name": "x.jpg"}, None, {"id": 1, "file_name": "other.jpg"}],
        annotations=[{"id": 5, "bbox": [0, 0, 1, 1]}, {"id": 8}, {"id": "x"}],
    )

    assert found.rejection_counts() == {"unreadable_entry": 3, "duplicate_entry": 2}
    assert {item.box for item in found.regions} == {(10, 20, 40, 60)}


@pytest.mark.parametrize("key", ["images", "annotations"])
def test_instances_of_another_layout_are_named(read, key):
    with pytest.raises(DatasetError, match=f"expected '{key}' with a list.*Set `instances`"):
        read([reference(1)], document={key: 5})


class Foreign:
    def __init__(self, call, *arguments):
        self.call = call, arguments

    def __reduce__(self):
        return self.call


def nested(depth):
    return b"]" * depth + b"a" * (depth - 1) + b"."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps([Foreign(os.getcwd)]), r"asks for \w+\.getcwd"),
        (pickle.dumps([Foreign(eval, "1")], protocol=0), r"asks for __builtin__\.eval"),
        (pickle.dumps([{"a": np.zeros(2)}]), r"asks for numpy\.[\w.]*(_reconstruct|_frombuffer)"),
        (pickle.dumps([{"a": {1}}], protocol=2), r"asks for __builtin__\.set"),
        (pickle.dumps([{"a": b"1"}], protocol=2), r"asks for _codecs\.encode"),
        (b"\x80\x02]q\x00(\x82\x01e.", "not a list of references"),  # extension 1 of the registry
        (b"Pforeign\n.", "not a list of references"),  # a persistent id
        (b"", "not a list of references"),
        (b"<html>", "not a list of references"),
        (b"(lp0\nS'caf\xe9'\na.", "not a list of references"),  # neither ASCII nor UTF-8
        (pickle.dumps([reference(1)])[:-40], "not a list of references"),
        (pickle.dumps({"a": 1}), "expected a list of references"),
        (pickle.dumps(None), "expected a list of references"),
        (nested(10**5), "none of"),  # deep, and no reference
    ],
)
def test_other_pickles_are_refused(read, content, message):
    with pytest.raises(DatasetError, match=message) as caught:
        read(content, SPLITS)

    assert "Set `refs`" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [("absent.p", r"refs: no file or folder .*absent\.p"), ("", "not a list of references")],
)
def test_a_missing_pickle_or_a_folder_is_named(tmp_path, name, message):
    with pytest.raises(DatasetError, match=f"{message}.*Set `refs`"):
        read_refcocog(tmp_path / name, tmp_path / "instances.json", tmp_path)


def test_a_malicious_pickle_runs_nothing(read, tmp_path):
    with pytest.raises(DatasetError, match=r"asks for \w+\.system; a list of references needs"):
        read([reference(1), Foreign(os.system, f"touch {tmp_path / 'hacked'}")])

    assert not (tmp_path / "hacked").exists()


# As Python 2 writes them: strings are bytes, unicode strings are not, keys are strings, too.
PYTHON_2 = {
    0: "(lp0\n(dp1\nS'split'\nS'val'\nsS'image_id'\nI1\nsS'ann_id'\nL5L\nsS'sentences'\n"
    "(lp2\n(dp3\nS'sent_id'\nI7\nsS'sent'\nVcaf\xe9\nsasa.",
    2: "\x80\x02]q\x00}q\x01(U\x05splitU\x03valU\x08image_idK\x01U\x06ann_idK\x05U\tsentences]"
    "q\x02}q\x03(U\x07sent_idK\x07U\x04sentU\x05caf\xc3\xa9uaua.",
}


@pytest.mark.parametrize("protocol", PYTHON_2)
def test_pickles_of_python_2_are_read(read, protocol):
    found = read(PYTHON_2[protocol].encode("latin-1"))

    assert [(item.region_id, item.caption) for item in found.regions] == [(7, "caf\u00e9")]
    assert found.noted == {"non_ascii_caption": 1}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_is_read(read, protocol):
    assert len(read(pickle.dumps([reference(1)], protocol=protocol)).regions) == 2


def test_a_split_missing_in_a_partition_is_refused(read):
    google = [reference(1), reference(2, split="train")]  # its test part was never published

    with pytest.raises(
        DatasetError, match=r"has references of \['train', 'val'\], none of \['test'\]"
    ):
        read(google, SPLITS)


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


def test_a_real_reference_is_read(shared, read):
    path = shared / "fixtures/refcocog_format/real_ref_519404.json"
    real = json.loads(path.read_text(encoding="utf-8"))
    keys = ("image_id", "ann_id", "split", "sentences")

    found = read(
        [{key: real[key] for key in keys}],
        splits=["train"],
        images=[{"id": real["image_id"], "file_name": "COCO_1.jpg", "width": 640, "height": 480}],
        annotations=[{"id": real["ann_id"], "image_id": real["image_id"], "bbox": real["bbox"]}],
    )

    captions = [row["sent"] for row in real["sentences"]]
    assert [item.caption for item in found.regions] == captions
    assert "eatting" in captions[0]  # as it was typed
    assert [item.box for item in found.regions] == 2 * [pytest.approx((0, 45.95, 238.92, 454.59))]
    assert found.noted == {}
