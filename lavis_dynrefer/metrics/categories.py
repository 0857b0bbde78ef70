"""Naming a region's category: top-1 accuracy over a closed list."""

from __future__ import annotations

from collections.abc import Mapping

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.metrics.graded_regions import (
    OFFICIAL,
    STRICT,
    check_request,
    check_scores,
    count_answers,
    graded_regions,
    pair_answers,
)
from lavis_dynrefer.structures import MetricReport, RegionPrediction, RegionRecord, RegionSet


def top1_accuracy(predicted: Mapping[int, str], truth: Mapping[int, str]) -> float:
    """Share of regions named right; a region without a prediction counts as wrong.

    Args:
        predicted: region id -> best category.
        truth: region id -> category.

    Returns:
        Fraction in [0, 1].

    Raises:
        ValueError: there is no truth.

    >>> top1_accuracy({1: "dog", 2: "cat"}, {1: "dog", 2: "dog", 3: "cat", 4: "dog"})
    0.25
    """
    if not truth:
        raise InputError("top1_accuracy needs at least one region with a category, got none")
    return sum(predicted.get(region) == name for region, name in truth.items()) / len(truth)


def evaluate_categories(
    region_set: RegionSet,
    predictions: Mapping[int, RegionPrediction],
    *,
    mode: str = STRICT,
) -> MetricReport:
    """Top-1 accuracy, in percent.

    Metrics: `acc` over single objects (36,335 boxes of COCO val2017), `acc_official` over all
    annotations, crowds included (36,781), as the released code counts. The mode only chooses which
    of the two is primary: in both a missing answer is wrong.

    Raises:
        ValueError: no category to grade, a prediction for no region, scores that are not finite or
            that leave out the region's own category.
    """
    check_request(region_set, predictions, mode)
    # The official accuracy counts failed samples too, so both modes grade every region.
    regions = graded_regions(region_set, STRICT, _has_category, "a category")
    truth: dict[int, str] = {}
    predicted: dict[int, str] = {}
    singles: set[int] = set()
    for row, (region, prediction) in enumerate(pair_answers(region_set, predictions, regions)):
        truth[row] = str(region.category)
        if not region.iscrowd:
            singles.add(row)
        if prediction is not None and prediction.categories:
            predicted[row] = best_category(region, prediction)
    metrics = {"acc_official": 100 * top1_accuracy(predicted, truth)}
    if singles:
        metrics["acc"] = 100 * top1_accuracy(predicted, {row: truth[row] for row in singles})
    return MetricReport(
        evaluator="categories",
        protocol=region_set.name,
        mode=mode,
        primary="acc_official" if mode == OFFICIAL or not singles else "acc",
        metrics=metrics,
        counts={
            **count_answers(region_set, regions, len(predicted)),
            "crowds": len(regions) - len(singles),
        },
    )


def best_category(region: RegionRecord, prediction: RegionPrediction) -> str:
    """Name with the highest score; the first of several.

    Raises:
        ValueError: a score is not finite, a category is scored twice, or the region's own category
            was not among the choices.
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


def _has_category(region: RegionRecord) -> bool:
    return region.category is not None
