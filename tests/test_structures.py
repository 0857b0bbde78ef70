"""Names with scores and probabilities, and what a prediction says of them."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from lavis_dynrefer.structures import RegionPrediction, ScoredName, familiarity_remark

BOX = (0.0, 0.0, 9.0, 9.0)


def test_a_scored_name_is_a_pair_and_more():
    red = ScoredName("red", 0.65, 0.99)
    name, score = red

    assert (name, score) == (red.name, red.score) == ("red", 0.65)
    assert red[0] == "red"
    assert len(red) == 2
    assert red == ("red", 0.65)
    assert dict([red]) == {"red": 0.65}
    assert json.dumps([red]) == '[["red", 0.65]]'


@pytest.mark.parametrize("passed_on", [copy.copy, copy.deepcopy])
def test_copies_keep_the_probability(passed_on):
    assert passed_on(ScoredName("red", 0.65, 0.99)).probability == 0.99


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_keep_the_probability(protocol):
    red = pickle.loads(pickle.dumps(ScoredName("red", 0.65, 0.99), protocol))

    assert (red, red.probability) == (("red", 0.65), 0.99)


def test_plain_pairs_become_scored_names_without_a_probability():
    answer = RegionPrediction(BOX, tags=(("red", 0.9),), categories=(ScoredName("mug", 1.0, 0.8),))

    assert (answer.tags[0].name, answer.tags[0].probability) == ("red", None)
    assert answer.categories[0].probability == 0.8


def test_what_categories_leave_is_none_of_these():
    categories = (ScoredName("mug", 1.0, 0.5), ScoredName("car", 0.0, 0.25))

    assert RegionPrediction(BOX, categories=categories).none_of_these == 0.25
    assert RegionPrediction(BOX, categories=(*categories, ("hat", -1.0))).none_of_these is None
    assert RegionPrediction(BOX).none_of_these is None


def test_probabilities_survive_json_by_name():
    answer = RegionPrediction(
        BOX,
        tags=(ScoredName("red", 0.9, 0.7),),
        attributes=(("wet", 0.6),),
        categories=(ScoredName("mug", 1.0, 0.5),),
        familiarity=0.25,
    )
    row = json.loads(json.dumps(answer.to_dict()))
    back = RegionPrediction.from_dict(row)

    assert row["probabilities"] == {"tags": {"red": 0.7}, "categories": {"mug": 0.5}}
    assert row["tags"] == [["red", 0.9]]
    assert back == answer
    assert back.tags[0].probability == 0.7
    assert back.attributes[0].probability is None
    assert (back.none_of_these, back.familiarity) == (0.5, 0.25)


def test_rows_of_earlier_versions_are_read():
    row = RegionPrediction(BOX, tags=(("red", 0.9),)).to_dict()
    for key in ("probabilities", "none_of_these", "familiarity"):
        del row[key]

    assert RegionPrediction.from_dict(row) == RegionPrediction(BOX, tags=(("red", 0.9),))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.5, None], None),
        ([0.01], None),
        ([0.009], "The region looks unlike"),
        ([0.0, 0.0], "Both regions look unlike"),
        ([0.0, 0.0, 0.0], "All 3 regions look unlike"),
        ([0.0, 0.5], "1 of 2 regions looks unlike"),
        ([0.0, 0.0, 0.5], "2 of 3 regions look unlike"),
    ],
)
def test_regions_below_the_threshold_are_told(values, said):
    found = familiarity_remark([RegionPrediction(BOX, familiarity=value) for value in values])

    assert (found or "None").startswith(str(said))
