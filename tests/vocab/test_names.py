from __future__ import annotations

import json

import pytest

from lavis_dynrefer.paths import find_resource
from lavis_dynrefer.vocab import load_names


def test_names_keep_their_order_and_lose_blank_lines(tmp_path):
    path = tmp_path / "tags.txt"
    path.write_text("\ufeffdog\n\n hot dog \ncat", encoding="utf-8")

    assert load_names(path) == ["dog", "hot dog", "cat"]


@pytest.mark.parametrize("content", [b"", b" \n", b"dog\ndog\n", b"\xff\xfe\x00"])
def test_unusable_lists_are_refused(tmp_path, content):
    path = tmp_path / "tags.txt"
    path.write_bytes(content)

    with pytest.raises(ValueError, match=r"tags\.txt"):
        load_names(path)


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.txt"):
        load_names(tmp_path / "absent.txt")


def test_shipped_categories_are_those_of_coco_in_file_order(shared):
    path = shared / "fixtures/coco_ovad_e2e/annotations/instances_val2017.json"
    document = json.loads(path.read_text(encoding="utf-8"))

    shipped = load_names(find_resource("vocab/data/coco_categories.txt"))

    assert shipped == [category["name"] for category in document["categories"]]
