import pytest

from lavis_dynrefer.metrics import EVALUATORS
from lavis_dynrefer.metrics.graded_regions import (
    answers_to_labelled,
    check_request,
    check_scores,
    count_answers,
)
from lavis_dynrefer.structures import RegionPrediction, RegionRecord, RegionSet, Rejection

BOX = (0.0, 0.0, 10.0, 10.0)
ANSWER = RegionPrediction(BOX)
USABLE = RegionRecord(1, 7, BOX, caption="a dog")
UNLABELLED = RegionRecord(2, 7, BOX)
REJECTED = RegionRecord(1, 8, BOX, caption="a cat")  # same id as a usable region


def region_set(*regions):
    rejections = [
        Rejection("duplicate_id", "met twice", 8, REJECTED),
        Rejection("bad_file", "gone"),
    ]
    return RegionSet("made-up", "test", {}, regions, rejections)


@pytest.mark.parametrize(
    ("skip_rejected", "expected"),
    [(False, [(USABLE, ANSWER), (REJECTED, None)]), (True, [(USABLE, ANSWER)])],
)
def test_a_rejected_region_has_no_answer_even_if_its_id_has_one(skip_rejected, expected):
    answers = answers_to_labelled(
        region_set(USABLE, UNLABELLED), {1: ANSWER}, "caption", skip_rejected=skip_rejected
    )

    assert answers == expected


def test_counts_tell_missing_and_rejected_regions():
    counts = count_answers(region_set(USABLE), [(USABLE, ANSWER), (REJECTED, None)], answered=1)

    assert counts == {"images": 2, "regions": 2, "missing": 1, "rejected": 2}


def test_rejects_predictions_for_unknown_regions():
    with pytest.raises(ValueError, match=r"1 predictions are for unknown regions.* \[99\]"):
        check_request(region_set(USABLE), {1: ANSWER, 99: ANSWER}, "strict")


def test_rejects_two_regions_with_one_id():
    with pytest.raises(ValueError, match="2 regions share 1 region ids"):
        check_request(region_set(USABLE, USABLE), {}, "strict")


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_rejects_an_unknown_mode(evaluator):
    with pytest.raises(ValueError, match="mode must be"):
        EVALUATORS[evaluator](region_set(USABLE), {}, mode="loose")


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_rejects_a_set_without_labels(evaluator):
    with pytest.raises(ValueError, match=r"made-up/test: none of 1 regions has .*annotation file"):
        EVALUATORS[evaluator](RegionSet("made-up", "test", {}, [UNLABELLED]), {2: ANSWER})


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_rejects_scores_that_cannot_be_ranked(score):
    with pytest.raises(ValueError, match=r"region 1: the category scores of \['dog'\]"):
        check_scores(USABLE, [("cat", 0.5), ("dog", score)], "category")


def test_rejects_a_name_scored_twice():
    with pytest.raises(ValueError, match="region 1: a category is scored twice"):
        check_scores(USABLE, [("cat", 0.5), ("cat", 0.4)], "category")
