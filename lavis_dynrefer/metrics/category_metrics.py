"""Naming a region's category: top-1 accuracy over a closed list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.metrics.calibration_metrics import (
    expected_calibration_error,
    threshold_metrics,
)
from lavis_dynrefer.metrics.graded_regions import (
    OFFICIAL,
    STRICT,
    Answer,
    answers_to_labelled,
    check_request,
    check_scores,
    count_answers,
)
from lavis_dynrefer.structures import MetricReport, RegionPrediction, RegionRecord, RegionSet


def evaluate_categories(
    region_set: RegionSet,
    predictions: Mapping[int, RegionPrediction],
    *,
    mode: str = STRICT,
) -> MetricReport:
    """Top-1 accuracy in percent; a missing answer is wrong.

    Metrics: `acc` over single objects (36,335 boxes of COCO val2017), `acc_official` over all
    annotations, crowds included (36,781), as the released code counts. The mode only chooses which
    of the two is primary. Where the answers have probabilities, also those of `threshold_metrics`:
    precision and recall over all names, the calibration error of the best one.

    Raises:
        InputError: no category to grade, a prediction for an unknown region, scores that are not
            finite or that leave out the region's own category.
    """
    check_request(region_set, predictions, mode)
    # The official accuracy counts failed samples too, so both modes grade every region.
    answers = answers_to_labelled(region_set, predictions, "category")
    named = [
        best_category(region, prediction) if prediction and prediction.categories else None
        for region, prediction in answers
    ]
    right = [name == region.category for name, (region, _) in zip(named, answers)]
    right_singles = [hit for hit, (region, _) in zip(right, answers) if not region.iscrowd]
    metrics = {"acc_official": 100 * (sum(right) / len(right))}
    if right_singles:
        metrics["acc"] = 100 * (sum(right_singles) / len(right_singles))
    metrics.update(_of_probabilities(answers))
    primary = "acc_official" if mode == OFFICIAL or not right_singles else "acc"
    counts = {
        **count_answers(region_set, answers, len(named) - named.count(None)),
        "crowds": len(right) - len(right_singles),
    }
    return MetricReport("categories", region_set.name, mode, primary, metrics, counts)


def _of_probabilities(answers: Sequence[Answer]) -> dict[str, float]:
    """Precision, recall and calibration; without probabilities none. No answer is a no."""
    pairs: list[tuple[float, bool]] = []
    best: list[tuple[float, bool]] = []
    for region, prediction in answers:
        if prediction is None or not prediction.categories:
            pairs.append((0.0, True))
            continue
        for place, one in enumerate(prediction.categories):
            if one.probability is None:
                return {}
            pair = (one.probability, one.name == region.category)
            pairs.append(pair)
            if place == 0:
                best.append(pair)
    if not best:
        return {}
    return threshold_metrics(*zip(*pairs), error=expected_calibration_error(*zip(*best)))


def best_category(region: RegionRecord, prediction: RegionPrediction) -> str:
    """Name with the highest score; the first one of equals.

    Raises:
        InputError: a score is not finite, a category is scored twice, or the region's own category
            has no score.
    """
    check_scores(region, prediction.categories, "category")
    choices = [name for name, _ in prediction.categories]
    if region.category not in choices:
        raise InputError(
            f"region {region.region_id}: its category {region.category!r} is not among the "
            f"{len(choices)} scored, {choices[:3]} ...; predict with the categories of the "
            "annotation file"
        )
    return max(prediction.categories, key=lambda pair: pair[1])[0]
