from __future__ import annotations

import pytest

from lavis_dynrefer.lab.caption_grading import (
    CaptionGrade,
    grade_caption,
    grade_captions,
)
from lavis_dynrefer.synthetic.scene_captions import facts, full_caption
from lavis_dynrefer.synthetic.scene_layout import make_scene
from lavis_dynrefer.synthetic.scene_world import WORLDS

MUG = {
    "colour": "red",
    "pattern": "striped",
    "size": "medium",
    "finish": "shiny",
    "border": "outlined",
    "pose": "upright",
    "category": "mug",
    "surface": "grass",
    "location": "top left",
    "relation": "left of",
    "reference_colour": "blue",
    "reference_category": "house",
}
ALONE = {**MUG, "relation": None, "reference_colour": None, "reference_category": None}
RIGHT = CaptionGrade(own=True, relation=True, reference=True, full=True)


@pytest.mark.parametrize(
    "caption",
    [
        "a striped red mug left of a blue house",
        "red striped mug left of the blue house",
        "a medium striped red mug left of a blue house",
        "the mug is striped and red to the left of a blue house",
        "A mug with red stripes left of a blue house.",
        "a shiny striped red mug left of a blue house",
    ],
)
def test_all_phrasings_of_the_facts_are_right(caption):
    assert grade_caption(MUG, caption) == RIGHT


@pytest.mark.parametrize(
    ("caption", "own", "relation", "reference"),
    [
        ("a large striped red mug left of a blue house", False, True, True),
        ("a red mug left of a blue house", False, True, True),
        ("a striped red mug above a blue house", True, False, True),
        ("a striped red mug left of a green house", True, True, False),
        ("a striped red mug left of a blue tree", True, True, False),
        ("a striped red mug left of the house", True, True, False),
        ("a striped red mug left of a striped blue house", True, True, False),
        ("a striped red mug on the grass", True, False, False),
        ("a striped red mug", True, False, False),
        ("", False, False, False),
    ],
)
def test_a_mistake_makes_its_part_and_the_whole_wrong(caption, own, relation, reference):
    assert grade_caption(MUG, caption) == CaptionGrade(own, relation, reference, full=False)


@pytest.mark.parametrize(
    "caption",
    ["a matte striped red mug", "a striped red red mug", "a striped red mug mug", "a nice red mug"],
)
def test_false_repeated_and_unknown_words_make_the_own_phrase_wrong(caption):
    assert not grade_caption(MUG, caption).own


def test_without_a_reference_the_surface_must_be_named():
    assert grade_caption(ALONE, "a striped red mug on the grass") == CaptionGrade(
        own=True, relation=None, reference=None, full=True
    )
    assert not grade_caption(ALONE, "a striped red mug on the sand").full
    assert not grade_caption(ALONE, "a striped red mug left of a blue house").full


@pytest.mark.parametrize("world", WORLDS)
def test_full_captions_of_scenes_are_right(world):
    scenes = [make_scene(3, index, world) for index in range(1, 12)]
    grades = [
        grade_caption(facts(scene, number), full_caption(scene, number))
        for scene in scenes
        for number in range(len(scene.objects))
    ]
    assert all(grade.own and grade.full for grade in grades)
    assert all(grade.relation in (True, None) for grade in grades)


def test_columns_by_hand():
    rows = [{"image_id": 1, "facts": MUG}, {"image_id": 2, "facts": ALONE}]
    answers = ["a striped red mug left of a blue tree", "a striped red mug on the grass"]
    assert grade_captions(rows, answers) == {
        "own": [True, True],
        "relation": [True, None],
        "reference": [False, None],
        "full": [False, True],
        "full_related": [False, None],
    }


def test_rejects_different_numbers_of_rows_and_captions():
    with pytest.raises(ValueError, match="each of 1 rows, got 2"):
        grade_captions([{"image_id": 1, "facts": MUG}], ["a", "b"])
