"""What annotation tools write about themselves, and what their exporters add, is no label."""

from __future__ import annotations

import json
import logging

import pytest
from PIL import Image

from lavis_dynrefer.datasets.custom_source import Custom
from lavis_dynrefer.datasets.evaluator_choice import fitting_evaluator, grading_problem
from lavis_dynrefer.datasets.sources.custom_json import read_custom
from lavis_dynrefer.datasets.sources.custom_labels import is_tool_field
from lavis_dynrefer.datasets.sources.raw_files import DatasetError

TREE = [
    {"id": 0, "name": "balloon", "supercategory": "none"},
    {"id": 1, "name": "square", "supercategory": "balloon"},
    {"id": 2, "name": "disc", "supercategory": "balloon"},
]
PLAIN = [{"id": 1, "name": "square"}, {"id": 2, "name": "disc"}]


@pytest.fixture
def write(tmp_path):
    """Writes a json whose annotations have these fields beside a box each."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (100, 80)).save(tmp_path / "images/1.png")

    def _write(*fields, **keys):
        rows = [
            {"id": number, "image_id": 1, "bbox": [10, 20, 30, 40], **own}
            for number, own in enumerate(fields)
        ]
        image = {"id": 1, "file_name": "1.png", "width": 100, "height": 80}
        path = tmp_path / "own.json"
        path.write_text(
            json.dumps({"images": [image], "annotations": rows, **keys}), encoding="utf-8"
        )
        return path

    return _write


@pytest.fixture
def read(write, tmp_path):
    return lambda *fields, split="val", **keys: read_custom(
        write(*fields, **keys), tmp_path / "images", name="own", split=split
    )


def labelled(number, **attributes):
    return {"category_id": number, "attributes": attributes}


@pytest.mark.parametrize(
    ("fields", "attributes", "evaluator"),
    [
        # CVAT: a flag for every annotation, true or false, and an angle
        ([labelled(1, occluded=False), labelled(2, occluded=False)], (), "categories"),
        ([labelled(1, occluded=True), labelled(2, occluded=False)], (), "categories"),
        ([labelled(1, occluded=True, rotation=0.0)], (), "categories"),
        ([labelled(1, track_id=5, keyframe=True, outside=False)], (), "categories"),
        ([labelled(1, isOccluded=1, **{"is-group-of": 0})], (), "categories"),
        ([{"category_id": 1, "attributes": ["truncated"]}], (), "categories"),
        # attributes of the user beside them
        ([labelled(1, occluded=False, wet=1)], ("wet",), "attributes"),
        ([labelled(1, rotation=0.0, wet=True), labelled(2)], ("wet",), "attributes"),
        # none is present: no average precision, so categories are graded
        ([labelled(1, wet=0), labelled(2, wet=False)], ("wet",), "categories"),
    ],
)
def test_fields_of_tools_are_never_attributes(read, fields, attributes, evaluator):
    found = read(*fields, categories=PLAIN)

    assert tuple(item.name for item in found.attributes) == attributes
    assert fitting_evaluator(found).evaluator == evaluator
    assert grading_problem(found, evaluator) is None
    assert "unreadable_attributes" not in found.noted


def test_a_field_that_the_file_itself_lists_is_an_attribute(read):
    found = read(labelled(1, occluded=True), attributes=["occluded"], categories=PLAIN)

    assert [region.attributes for region in found.regions] == [(1,)]
    assert fitting_evaluator(found).evaluator == "attributes"
    assert fitting_evaluator(found).reason == (
        "1 of 1 regions have attributes; labels that are 1: 1"
    )


@pytest.mark.parametrize("name", ["striped", "wet", "in the shade", "rotating", "old", "id card"])
def test_words_that_people_use_are_no_fields_of_tools(name):
    assert not is_tool_field(name)


def test_the_root_of_an_exporter_is_no_candidate(read, caplog):
    caplog.set_level(logging.INFO)

    found = read({"category_id": 1}, {"category_id": 1}, categories=TREE)

    assert found.category_names == ("square", "disc")
    assert "['balloon'] have no annotations and are only parents of other categories" in caplog.text
    assert "2 names of categories; 1 have no region: ['disc']" in caplog.text


@pytest.mark.parametrize(
    ("categories", "used", "names"),
    [
        (TREE, 0, ("balloon", "square", "disc")),  # it has an annotation
        ([{"id": 1, "name": "person", "supercategory": "person"}, PLAIN[1]], 2, ("person", "disc")),
        # Roboflow's project and its only class share a name
        ([{"id": 0, "name": "a"}, {"id": 1, "name": "a", "supercategory": "a"}], 1, ("a",)),
        # one name under two supercategories is one candidate
        (
            [{"id": n, "name": "bat", "supercategory": s} for n, s in ((1, "x"), (2, "y"))],
            1,
            ("bat",),
        ),
    ],
)
def test_which_categories_are_candidates(read, categories, used, names):
    found = read({"category_id": used, "caption": "a thing"}, categories=categories)

    assert found.category_names == names
    assert found.regions[0].category in names


def test_two_categories_of_one_id_are_refused(read):
    with pytest.raises(DatasetError, match="two 'categories' have the id of"):
        read({"category_id": 1}, categories=[*PLAIN, {"id": 1, "name": "bat"}])


@pytest.mark.parametrize(
    ("fields", "evaluator", "problem"),
    [
        ({"attributes": {"wet": 0}}, "attributes", "have attributes; labels that are 1: none"),
        (
            {"caption": "a dog"},
            "categories",
            "none of 1 regions have a category; dense_caption can (1 of 1 regions have a caption): "
            "set `build_info.evaluator`, or of custom_region `build_info.evaluators: "
            "{val: dense_caption}`",
        ),
        ({"category_id": 1}, "reg", "none of 1 regions have a caption; categories can (1 of 1"),
        ({"attributes": {"wet": 0}}, "reg", "nor can any other; leave it out of run.valid_splits"),
        ({"category_id": 1}, "their_own", None),
    ],
)
def test_an_evaluator_that_cannot_grade_a_split_is_named_at_reading(
    read, fields, evaluator, problem
):
    found = grading_problem(read(fields, categories=PLAIN), evaluator)

    assert found is None if problem is None else problem in found


def test_the_log_says_once_which_evaluator_grades_a_split_and_why(write, tmp_path, caplog):
    from omegaconf import OmegaConf

    caplog.set_level(logging.INFO)
    write(labelled(1, occluded=True), categories=PLAIN)
    info = {"root": str(tmp_path), "annotations": {"val": "own.json", "quiz": "own.json"}}
    named = {**info, "evaluators": {"quiz": "categories"}}
    source = Custom(OmegaConf.create({"type": "default", "build_info": named}))

    source.read_splits()
    source.read_splits()

    told = [record.getMessage() for record in caplog.records if "is graded by" in record.msg]
    assert told == [
        "split 'val' is graded by evaluator categories: 1 of 1 regions have a category; to choose "
        "another, set `evaluators: {val: NAME}`, one of dense_caption, reg, attributes, categories"
    ]
    assert source.evaluator_of("val") == "categories"
