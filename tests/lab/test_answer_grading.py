"""All answers about synthetic regions."""

from __future__ import annotations

import numpy as np
import pytest

from lavis_dynrefer.lab.answer_grading import grade, statistics_of
from lavis_dynrefer.metrics.attribute_metrics import average_precisions
from lavis_dynrefer.structures import RegionPrediction
from lavis_dynrefer.synthetic.raw_formats import truth_rows
from lavis_dynrefer.synthetic.scene_layout import make_scene
from lavis_dynrefer.synthetic.scene_vocabulary import attribute_labels
from lavis_dynrefer.synthetic.scene_world import CATEGORIES


@pytest.fixture(scope="module")
def truth():
    """Thirty scenes of the test split; held-out pairs are among them."""
    scenes = [make_scene(0, 2_000_001 + number, "landmark") for number in range(30)]
    return [row for scene in scenes for row in truth_rows(scene) if row["form"] == "full"]


def answer(row, *, category=None, caption=None, inverted=False):
    scores = {
        name: (1 - value if inverted else value) if value >= 0 else 0.5
        for name, value in attribute_labels(row["facts"]).items()
    }
    return RegionPrediction(
        box=(0.0, 0.0, 1.0, 1.0),
        caption=row["phrase"] if caption is None else caption,
        attributes=tuple(scores.items()),
        categories=((category or row["facts"]["category"], 1.0),),
    )


def test_the_truth_scores_100(truth):
    grades = grade(truth, [answer(row) for row in truth], rounds=20)
    assert set(grades) == {"all", "held_out", "held_out_reference"}
    assert {one.value for numbers in grades.values() for one in numbers.values()} == {100.0}
    assert grades["all"]["full"].count == len(truth)


def test_tasks_are_graded_independently(truth):
    wrong = [
        answer(row, category=CATEGORIES[CATEGORIES.index(row["facts"]["category"]) - 1])
        for row in truth
    ]
    numbers = grade(truth, wrong, rounds=20)["all"]
    assert numbers["category"].value == 0.0
    assert numbers["full"].value == numbers["attribute_map"].value == 100.0


def test_inverted_attribute_scores_are_worse_than_chance(truth):
    numbers = grade(truth, [answer(row, inverted=True) for row in truth], rounds=20)["all"]
    assert numbers["attribute_map"].value < 30


def test_two_models_are_averaged(truth):
    right, silent = [answer(row) for row in truth], [answer(row, caption="") for row in truth]
    assert grade(truth, right, silent, rounds=20)["all"]["own"].value == 50.0


def test_the_attribute_map_is_that_of_the_metric(truth):
    rng = np.random.default_rng(0)
    names = list(attribute_labels(truth[0]["facts"]))
    scores = rng.integers(8, size=(len(truth), len(names))) / 8  # with ties
    answers = [
        RegionPrediction(box=(0.0, 0.0, 1.0, 1.0), attributes=tuple(zip(names, row.tolist())))
        for row in scores
    ]
    labels = np.array([list(attribute_labels(row["facts"]).values()) for row in truth])
    measure = statistics_of(truth, answers)["attribute_map"].measure
    rows = rng.integers(len(truth), size=len(truth))
    for chosen in (np.arange(len(truth)), rows, rows[:5]):
        expected = 100 * np.nanmean(average_precisions(scores[chosen], labels[chosen]))
        assert measure(chosen) == pytest.approx(expected)
