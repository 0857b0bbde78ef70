import json

import numpy as np
import pytest

from lavis_dynrefer.metrics.attribute_metrics import (
    attribute_groups,
    attribute_map,
    average_precisions,
    evaluate_attributes,
)
from lavis_dynrefer.structures import (
    AttributeInfo,
    RegionPrediction,
    RegionRecord,
    RegionSet,
    Rejection,
)

BIG, SMALL = (0.0, 0.0, 10.0, 5.0), (0.0, 0.0, 7.0, 7.0)  # 50 and 49 square pixels
RED = AttributeInfo("color:red/crimson", "color", "color", "is", "head")
WET = AttributeInfo("state:wet", "state", "optical property", "is", "tail")
NAMES = ("color:red/crimson", "state:wet")


def region(region_id, labels, box=BIG):
    return RegionRecord(region_id, 1, box, attributes=labels)


def answer(*scores, names=NAMES):
    return RegionPrediction(BIG, attributes=tuple(zip(names, scores)))


def region_set(*regions, rejected=()):
    return RegionSet("ovad", "val", {}, regions, rejected, attributes=(RED, WET))


def test_average_precision_by_hand():
    # ranked: right, wrong, right -> precision 1 at recall 1/2 and 2/3 at recall 1
    precisions = average_precisions(np.array([[0.9], [0.8], [0.7]]), np.array([[1], [0], [1]]))

    assert precisions[0] == pytest.approx((1 + 2 / 3) / 2)


def test_unknown_labels_are_not_graded():
    precisions = average_precisions(np.array([[0.9], [0.8], [0.7]]), np.array([[-1], [1], [0]]))

    assert precisions[0] == 1.0


def test_the_precision_of_a_constant_score_is_the_share_of_positives():
    precisions = average_precisions(np.zeros((5, 1)), np.array([[1], [0], [0], [-1], [1]]))

    assert precisions[0] == pytest.approx(2 / 4)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        # ranked: right, wrong, right -> precision 1 at recall 1/2 and 2/3 at recall 1
        ("strict", (1 + 2 / 3) / 2),
        # 1.8 and 1.2 both become 1: a right and a wrong one at rank 1 -> precision 1/2, then 2/3
        ("official", (1 / 2 + 2 / 3) / 2),
    ],
)
def test_only_the_official_mode_clips_scores(mode, expected):
    given = region_set(region(1, (1, -1)), region(2, (0, -1)), region(3, (1, -1)))
    answers = {1: answer(1.8, 0.0), 2: answer(1.2, 0.0), 3: answer(0.5, 0.0)}

    report = evaluate_attributes(given, answers, mode=mode)

    assert report.metrics["map"] == pytest.approx(100 * expected)


def test_an_attribute_without_a_positive_is_left_out_of_the_mean():
    scores = np.array([[0.9, 0.9], [0.1, 0.1]])
    labels = np.array([[1, 0], [0, -1]])

    assert attribute_map(scores, labels, [RED, WET]) == {
        "map": 100.0,
        "map_head": 100.0,
        "map_color": 100.0,
        "map_multiple": 100.0,
    }


def test_groups_follow_frequency_parent_type_and_synonyms():
    groups = {name: members.tolist() for name, members in attribute_groups([RED, WET]).items()}

    assert groups == {
        "all": [True, True],
        "head": [True, False],
        "tail": [False, True],
        "color": [True, False],
        "optical property": [False, True],
        "multiple": [True, False],
        "single": [False, True],
    }


def test_the_order_of_regions_does_not_matter():
    rng = np.random.default_rng(0)
    scores, labels = rng.random((40, 2)), rng.integers(-1, 2, (40, 2))
    order = rng.permutation(40)

    assert attribute_map(scores, labels, [RED, WET]) == pytest.approx(
        attribute_map(scores[order], labels[order], [RED, WET])
    )


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.zeros((3, 2)), np.zeros((3, 2), int), "none of 6 attribute labels is 1"),
        (np.full((1, 2), np.nan), np.ones((1, 2), int), "finite scores, 2 are not"),
        (np.zeros((3, 1)), np.ones((3, 2), int), r"shape \(R, 2\)"),
    ],
)
def test_rejects_matrices_that_cannot_be_graded(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        attribute_map(scores, labels, [RED, WET])


@pytest.mark.parametrize("mode", ["strict", "official"])
def test_missing_and_rejected_regions_score_zero(mode):
    rejected = Rejection("empty_box", "no area", 1, region(4, (1, 0)))
    given = region_set(region(1, (1, 0)), region(2, (0, 1)), region(3, (1, 1)), rejected=[rejected])

    report = evaluate_attributes(given, {1: answer(0.9, 0.2), 2: answer(0.5, 0.8)}, mode=mode)

    # red: .9 right, .5 wrong, two right at 0 -> 1/3 x 1 + 2/3 x 3/4; wet: .8 right, .2 wrong,
    # then one right and one wrong at 0 -> 1/2 x 1 + 1/2 x 2/4
    assert report.metrics["map_color"] == pytest.approx(100 * (1 / 3 + 2 / 3 * 3 / 4))
    assert report.metrics["map_optical_property"] == pytest.approx(100 * (1 / 2 + 1 / 2 * 2 / 4))
    assert report.counts["missing"] == 2


def test_only_map_area50_drops_small_boxes():
    given = region_set(region(1, (1, 1)), region(2, (0, 0), SMALL))

    report = evaluate_attributes(given, {1: answer(0.1, 0.1), 2: answer(0.9, 0.9)})

    assert report.metrics["map"] == 50.0
    assert report.metrics["map_area50"] == 100.0
    assert report.counts["regions_area50"] == 1


def test_scores_are_matched_by_name():
    given = region_set(region(1, (1, 0)), region(2, (0, 1)))
    turned = {1: answer(0.1, 0.9, names=NAMES[::-1]), 2: answer(0.9, 0.1, names=NAMES[::-1])}

    assert evaluate_attributes(given, turned).metrics["map"] == 100.0


def test_rejects_an_answer_without_part_of_the_vocabulary():
    with pytest.raises(ValueError, match=r"region 1: no score for 1 of 2 .*state:wet"):
        evaluate_attributes(region_set(region(1, (1, 0))), {1: answer(0.5)})


def test_rejects_labels_of_another_length():
    with pytest.raises(ValueError, match=r"region 1: expected 2 attribute labels.* got 3"):
        evaluate_attributes(region_set(region(1, (1, 0, 0))), {})


# the chance row of the OVAD paper, except that it counts the attribute without a positive as 0
@pytest.mark.parametrize(
    ("metric", "percent"),
    [("map", 8.6847), ("map_head", 36.0054), ("map_medium", 7.3285), ("map_tail", 0.6282)],
)
def test_constant_scores_give_the_chance_row_of_ovad(chance, metric, percent):
    assert chance[metric] == pytest.approx(percent, abs=5e-5)


@pytest.fixture(scope="module")
def chance(shared):
    rows = json.loads((shared / "fixtures/ovad_full_stats.json").read_text(encoding="utf-8"))[
        "per_attribute"
    ]
    vocabulary = [AttributeInfo(row["name"], "t", "t", "is", row["freq_set"]) for row in rows]
    columns = [[1] * row["pos"] + [0] * row["neg"] + [-1] * row["unk"] for row in rows]
    labels = np.array(columns).T
    return attribute_map(np.full(labels.shape, 0.5), labels, vocabulary)
