"""Tags of 1278 + 42 captions against those in the released data.

The golden files hold line numbers of RAM's list. golden_tag_names.txt names the 278 that occur
(recognize-anything, Apache-2.0); if DYNREFER_TAGS names the file of all 4,585, that list is tested
as well. docs/tags.md explains the differences.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lavis_dynrefer.vocab import build_tagger, load_names

VG = "vg1.2_5images_dynrefer.json"
SMALL = "vg_format_e2e_dynrefer.json"
NAMES = Path(__file__).with_name("golden_tag_names.txt")
MODULES = {"match": "re", "scene_graph": "sng_parser"}


@pytest.fixture(scope="module")
def names() -> dict[int, str]:
    lines = NAMES.read_text(encoding="utf-8").splitlines()
    return {int(number): name for number, name in (line.split(" ", 1) for line in lines)}


@pytest.fixture(scope="module")
def all_names() -> list[str]:
    path = os.environ.get("DYNREFER_TAGS")
    if not path:
        pytest.skip("DYNREFER_TAGS does not name a file with RAM's 4,585 tags")
    found = load_names(path)
    if len(found) != 4585:
        pytest.skip(f"DYNREFER_TAGS names {len(found)} tags, RAM's list has 4,585")
    return found


def compare(path, tagger, names):
    """Tags in both, only ours, only theirs; captions with equal tags."""
    both = ours = theirs = alike = 0
    for row in json.loads(path.read_text(encoding="utf-8"))["annotations"]:
        numbers = row["extra_info"]["parser_result"]
        golden = {names[number] for number in numbers["tag_set1"] + numbers["tag_set2"]}
        found = set(tagger(row["caption"]))
        both += len(found & golden)
        ours += len(found - golden)
        theirs += len(golden - found)
        alike += found == golden
    return both, ours, theirs, alike


@pytest.mark.parametrize(
    ("method", "file", "counts"),
    [
        ("match", VG, (2215, 445, 15, 883)),
        ("match", SMALL, (94, 12, 0, 32)),
        ("scene_graph", VG, (2230, 0, 0, 1278)),
        ("scene_graph", SMALL, (94, 0, 0, 42)),
    ],
)
def test_number_of_tags_that_differ_from_the_golden_ones(shared, names, method, file, counts):
    require(method)
    tagger = build_tagger(method, list(names.values()))

    assert compare(shared / "fixtures/golden" / file, tagger, names) == counts


@pytest.mark.parametrize(
    ("method", "counts"),
    [
        ("match", (2213, 558, 17, 808)),
        ("scene_graph", (2230, 0, 0, 1278)),
    ],
)
def test_number_of_tags_that_differ_with_the_whole_list(shared, names, all_names, method, counts):
    require(method)
    assert {number: all_names[number] for number in names} == names

    assert (
        compare(shared / "fixtures/golden" / VG, build_tagger(method, all_names), names) == counts
    )


def require(method):
    pytest.importorskip(MODULES[method], reason=f"tag method {method!r} is not installed")
    if method == "scene_graph":
        spacy = pytest.importorskip("spacy")
        if spacy.__version__ < "3.8":
            pytest.skip("spaCy before 3.8 takes 'leaves' for the plural of 'leave'")
