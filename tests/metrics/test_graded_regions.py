import pytest

from lavis_dynrefer.metrics import EVALUATORS
from lavis_dynrefer.metrics.graded_regions import (
    check_request,
    check_scores,
    count_answers,
    graded_regions,
    pair_answers,
)
from lavis_dynrefer.structures import RegionPrediction, RegionRecord, RegionSet, Rejection

BOX = (0.0, 0.0, 10.0, 10.0)
ANSWER = RegionPrediction(BOX)
USABLE = RegionRecord(1, 7, BOX, caption="a dog")
UNLABELLED = RegionRecord(2, 7, BOX)
REJECTED = RegionRecord(1, 8, BOX, caption="a cat")  # the id of a usable region, met twice


def region_set(*regions):
    rejections = [
        Rejection("duplicate_id", "met twice", 8, REJECTED),
        Rejection("bad_file", "gone"),
    ]
    return RegionSet("made-up", "test", {}, regions, rejections)


def has_caption(region):
    return region.caption is not None


@pytest.mark.parametrize(
    ("mode", "expected"), [("strict", [USABLE, REJECTED]), ("official", [USABLE])]
)
def test_only_the_strict_mode_grades_rejected_regions(mode, expected):
    regions = graded_regions(region_set(USABLE, UNLABELLED), mode, has_caption, "a caption")

    assert regions == expected


def test_rejected_region_never_borrows_the_answer_of_its_namesake():
    given = region_set(USABLE)

    pairs = pair_answers(given, {1: ANSWER}, given.truth())

    assert pairs == [(USABLE, ANSWER), (REJECTED, None)]


def test_counts_name_what_is_missing_and_what_was_rejected():
    counts = count_answers(region_set(USABLE), [USABLE, REJECTED], answered=1)

    assert counts == {"images": 2, "regions": 2, "missing": 1, "rejected": 2}


def test_prediction_for_no_region_is_refused():
    with pytest.raises(ValueError, match=r"1 predictions are for no region .* \[99\]"):
        check_request(region_set(USABLE), {1: ANSWER, 99: ANSWER}, "strict")


def test_two_regions_with_one_id_are_refused():
    with pytest.raises(ValueError, match="2 regions share 1 region ids"):
        check_request(region_set(USABLE, USABLE), {}, "strict")


@pytest.mark.parametrize("evaluator", EVALUATORS.values(), ids=EVALUATORS)
def test_unknown_mode_is_refused(evaluator):
    with pytest.raises(ValueError, match="mode must be"):
        evaluator(region_set(USABLE), {}, mode="loose")


@pytest.mark.parametrize("evaluator", EVALUATORS.values(), ids=EVALUATORS)
def test_set_without_truth_is_refused_with_the_cure(evaluator):
    with pytest.raises(ValueError, match=r"made-up/test: expected regions with .*annotation file"):
        evaluator(RegionSet("made-up", "test", {}, [UNLABELLED]), {2: ANSWER})


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_score_that_cannot_be_ranked_is_refused(score):
    with pytest.raises(ValueError, match=r"region 1: the category scores of \['dog'\]"):
        check_scores(USABLE, [("cat", 0.5), ("dog", score)], "category")


def test_name_scored_twice_is_refused():
    with pytest.raises(ValueError, match="region 1: a category is scored twice"):
        check_scores(USABLE, [("cat", 0.5), ("cat", 0.4)], "category")
