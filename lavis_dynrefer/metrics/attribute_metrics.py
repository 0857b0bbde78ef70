"""Attributes of a region: mean average precision over an OVAD-style vocabulary.

Labels are 1 (present), 0 (absent) and -1 (unknown, never graded). An attribute without a positive
label has no average precision and is left out of the mean (one of 117 in OVAD).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images import boxes
from lavis_dynrefer.metrics.calibration_metrics import threshold_metrics
from lavis_dynrefer.metrics.graded_regions import (
    OFFICIAL,
    STRICT,
    Answer,
    answers_to_labelled,
    check_request,
    check_scores,
    count_answers,
)
from lavis_dynrefer.structures import (
    AttributeInfo,
    MetricReport,
    RegionPrediction,
    RegionRecord,
    RegionSet,
)

MIN_AREA = 50  # square pixels; the box-oracle protocol of OVAD drops smaller boxes

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def average_precisions(scores: Floats, labels: NDArray[np.int_]) -> Floats:
    """Average precision of every attribute over the regions where it is labelled.

    Args:
        scores: (R, A), higher is more likely.
        labels: (R, A) of 1, 0, -1.

    Returns:
        (A,) in [0, 1]; nan where no region is labelled 1.
    """
    from sklearn.metrics import average_precision_score  # takes a second to import

    result = np.full(labels.shape[1], np.nan)
    for column in range(labels.shape[1]):
        known = labels[:, column] >= 0
        positive = labels[known, column] == 1
        if positive.any():
            result[column] = average_precision_score(positive, scores[known, column])
    return result


def attribute_groups(attributes: Sequence[AttributeInfo]) -> dict[str, Bools]:
    """Members of each reported group.

    Returns:
        group -> (A,) bool: "all"; the frequencies "head", "medium", "tail"; the parent types; and
        "single" and "multiple" by the number of synonyms. Empty groups are left out.
    """
    groups = {"all": np.ones(len(attributes), dtype=bool)}
    for name in ("head", "medium", "tail"):
        groups[name] = np.array([item.frequency == name for item in attributes], dtype=bool)
    for name in dict.fromkeys(item.parent_type for item in attributes):
        groups[name] = np.array([item.parent_type == name for item in attributes], dtype=bool)
    groups["multiple"] = np.array(["/" in item.name for item in attributes], dtype=bool)
    groups["single"] = ~groups["multiple"]
    return {name: members for name, members in groups.items() if members.any()}


def attribute_map(
    scores: Floats,
    labels: NDArray[np.int_],
    attributes: Sequence[AttributeInfo],
    *,
    mode: str = STRICT,
) -> dict[str, float]:
    """Mean average precision of each group of attributes, in percent.

    Args:
        scores: (R, A).
        labels: (R, A) of 1, 0, -1.
        attributes: the A attributes, in column order.
        mode: "strict", or "official", which clips scores to [0, 1] as OVAD's evaluator does: all
            scores above 1 then rank alike.

    Returns:
        "map" over all attributes and "map_<group>" for the other groups of `attribute_groups`;
        a group in which no attribute has a positive label is left out.

    Raises:
        InputError: shapes differ, a score is not finite, or no label is 1.
    """
    if scores.shape != labels.shape or labels.shape[1:] != (len(attributes),):
        raise InputError(
            f"expected scores and labels of shape (R, {len(attributes)}), "
            f"got {scores.shape} and {labels.shape}"
        )
    if not np.isfinite(scores).all():
        raise InputError(f"expected finite scores, {(~np.isfinite(scores)).sum()} are not")
    if not (labels == 1).any():
        raise InputError(f"none of {labels.size} attribute labels is 1; check the annotation file")
    if mode == OFFICIAL:
        scores = scores.clip(0, 1)
    precisions = average_precisions(scores, labels)
    graded = ~np.isnan(precisions)
    return {
        "map" if group == "all" else f"map_{group.replace(' ', '_')}": 100
        * float(precisions[members & graded].mean())
        for group, members in attribute_groups(attributes).items()
        if (members & graded).any()
    }


def evaluate_attributes(
    region_set: RegionSet,
    predictions: Mapping[int, RegionPrediction],
    *,
    mode: str = STRICT,
) -> MetricReport:
    """Mean average precision of attributes, in percent.

    Metrics: `map` and the groups of `attribute_map` over all regions (protocol `ovad-14300`, what
    DynRefer reports), then `map_area50`, `map_head_area50`, ... over the boxes of at least 50
    square pixels (`ovad-14074`, the box-oracle setting of the OVAD benchmark). In both modes a
    region without an answer scores 0 for every attribute; official scores are clipped to [0, 1].
    Where the answers have probabilities, also those of `threshold_metrics` over all labels that
    are known.

    Raises:
        InputError: nothing to grade, a prediction for an unknown region, or scores that are missing
            or not finite.
    """
    check_request(region_set, predictions, mode)
    answers, scores, labels, answered = labelled_scores(region_set, predictions)
    corners = torch.tensor([region.box for region, _ in answers], dtype=torch.float64)
    large = boxes.area(corners).numpy() >= MIN_AREA
    metrics = attribute_map(scores, labels, region_set.attributes, mode=mode)
    if (labels[large] == 1).any():
        subset = attribute_map(scores[large], labels[large], region_set.attributes, mode=mode)
        for name in ("map", "map_head", "map_medium", "map_tail"):
            if name in subset:
                metrics[f"{name}_area50"] = subset[name]
    metrics.update(_of_probabilities(answers, labels, region_set.attributes))
    counts = {
        **count_answers(region_set, answers, answered),
        "regions_area50": int(large.sum()),
    }
    return MetricReport("attributes", region_set.name, mode, "map", metrics, counts)


def _of_probabilities(
    answers: Sequence[Answer], labels: NDArray[np.int_], attributes: Sequence[AttributeInfo]
) -> dict[str, float]:
    """Precision, recall and calibration; without probabilities none. No answer is a no."""
    names = [item.name for item in attributes]
    probabilities = np.zeros(labels.shape)
    for row, (_, prediction) in enumerate(answers):
        if prediction is not None and prediction.attributes:
            given = {one.name: one.probability for one in prediction.attributes}
            if any(given[name] is None for name in names):
                return {}
            probabilities[row] = [given[name] for name in names]
    known = labels >= 0
    return threshold_metrics(probabilities[known], labels[known] == 1)


def labelled_scores(
    region_set: RegionSet, predictions: Mapping[int, RegionPrediction]
) -> tuple[list[Answer], Floats, NDArray[np.int_], int]:
    """The scores to grade beside their labels.

    Returns:
        The R regions with attribute labels and their predictions; scores (R, A), 0 without an
        answer; labels (R, A) of 1, 0, -1; number of regions with an answer.

    Raises:
        InputError: no region has labels, or scores are missing or not finite.
    """
    answers = answers_to_labelled(region_set, predictions, "attributes")
    names = [item.name for item in region_set.attributes]
    labels = np.array([_labels(region, len(names)) for region, _ in answers], dtype=int)
    scores = np.zeros(labels.shape)
    answered = 0
    for row, (region, prediction) in enumerate(answers):
        if prediction is not None and prediction.attributes:
            scores[row] = _scores(region, prediction, names)
            answered += 1
    return answers, scores, labels, answered


def _labels(region: RegionRecord, width: int) -> tuple[int, ...]:
    labels = region.attributes or ()
    if len(labels) != width:
        raise InputError(
            f"region {region.region_id}: expected {width} attribute labels, one per attribute "
            f"of the vocabulary, got {len(labels)}"
        )
    return labels


def _scores(
    region: RegionRecord, prediction: RegionPrediction, names: Sequence[str]
) -> list[float]:
    check_scores(region, prediction.attributes, "attribute")
    given = dict(prediction.attributes)
    lacking = [name for name in names if name not in given]
    if lacking:
        raise InputError(
            f"region {region.region_id}: no score for {len(lacking)} of {len(names)} attributes, "
            f"first {lacking[:3]}; predict with the vocabulary of the annotation file"
        )
    return [given[name] for name in names]
