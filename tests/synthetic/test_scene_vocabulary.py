from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

import lavis_dynrefer
from lavis_dynrefer.lab.make_assets import build_tokenizer, write_vocabulary
from lavis_dynrefer.synthetic.scene import Look
from lavis_dynrefer.synthetic.scene_captions import facts
from lavis_dynrefer.synthetic.scene_layout import make_scene
from lavis_dynrefer.synthetic.scene_vocabulary import (
    attribute_rows,
    attribute_vector,
    category_rows,
    tags,
    true_labels,
    truth_labels,
)
from lavis_dynrefer.synthetic.scene_world import CATEGORIES

PACKAGE = Path(lavis_dynrefer.__file__).parent
FILES = [
    "synthetic_tags.txt",
    "synthetic_truth.txt",
    "synthetic_categories.txt",
    "synthetic_attributes.json",
]


@pytest.mark.parametrize("name", FILES)
def test_the_shipped_vocabulary_is_up_to_date(name, tmp_path):
    write_vocabulary(tmp_path)
    shipped = PACKAGE / "vocab" / "data" / name
    assert shipped.read_text(encoding="utf-8") == (tmp_path / name).read_text(encoding="utf-8")


@pytest.mark.slow  # draws 500 scenes
def test_the_shipped_tokenizer_is_up_to_date(tmp_path):
    build_tokenizer().save(str(tmp_path / "tokenizer.json"))
    shipped = (PACKAGE / "assets/tiny/tokenizer.json").read_text(encoding="utf-8")
    assert json.loads(shipped) == json.loads(
        (tmp_path / "tokenizer.json").read_text(encoding="utf-8")
    )


def test_attributes_have_the_fields_of_ovad(published_keys):
    assert {tuple(row) for row in attribute_rows()} == {tuple(published_keys["ovad"]["attributes"])}


def test_attributes_are_numbered_and_cover_all_frequencies():
    rows = attribute_rows()
    assert [row["id"] for row in rows] == list(range(21))
    assert {row["freq_set"] for row in rows} == {"head", "medium", "tail"}


def test_a_vector_marks_one_word_of_each_kind():
    look = Look("mug", "blue", "dotted", "large", 64, "shiny", "outlined", 28, False)
    names = [row["name"] for row in attribute_rows()]
    present = [name for name, value in zip(names, attribute_vector(look)) if value == 1]
    assert present == [
        "color:blue",
        "pattern:dotted",
        "size:large",
        "finish:shiny",
        "edge:outlined",
        "pose:tilted",
    ]


def test_the_pose_of_a_symmetric_shape_is_unknown():
    look = Look("star", "blue", "dotted", "large", 64, "shiny", "outlined", 28, False)
    names = [row["name"] for row in attribute_rows()]
    unknown = [name for name, value in zip(names, attribute_vector(look)) if value == -1]
    assert unknown == ["pose:upright", "pose:tilted"]


def test_frequency_sets_match_the_scenes():
    looks = [o.look for index in range(1, 80) for o in make_scene(0, index, "neighbour").objects]
    vectors = [attribute_vector(look) for look in looks]
    shares = [sum(v == 1 for v in column) / len(looks) for column in zip(*vectors)]
    by_set = {
        name: [s for s, row in zip(shares, attribute_rows()) if row["freq_set"] == name]
        for name in ("head", "medium", "tail")
    }
    assert min(by_set["head"]) > max(by_set["tail"])
    assert max(by_set["tail"]) < 0.15


def test_categories_are_numbered_from_one():
    assert [(row["id"], row["name"]) for row in category_rows()] == list(enumerate(CATEGORIES, 1))


def test_tags_are_words_and_relations_without_repeats():
    assert len(tags()) == len(set(tags()))
    assert [tag for tag in tags() if " " in tag] == ["left of", "right of"]


def test_labels_of_the_reference_have_names_of_their_own():
    scene = next(s for s in map(partial(make_scene, 0), range(1, 99)) if s.objects[1].relation)
    true = facts(scene, 1)
    labels = true_labels(true)
    assert {true["colour"], true["category"], true["relation"]} <= set(labels)
    assert {f"by {true['reference_colour']}", f"by {true['reference_category']}"} <= set(labels)
    assert set(labels) <= set(truth_labels())


def test_an_object_without_reference_has_no_reference_labels():
    assert [label for label in true_labels(facts(make_scene(0, 1), 0)) if " " in label] == []
