"""Grade all answers about synthetic regions: attributes, category and caption."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lavis_dynrefer.lab.bootstrap_estimates import Estimate, Statistic, bootstrap, percentage
from lavis_dynrefer.lab.caption_grading import grade_captions
from lavis_dynrefer.structures import RegionPrediction
from lavis_dynrefer.synthetic.crowded_places import OCCLUDED, SHARED_IOU
from lavis_dynrefer.synthetic.scene_vocabulary import attribute_labels
from lavis_dynrefer.synthetic.scene_world import held_out_pairs

Truth = Mapping[str, Any]  # a row of `read_truth`
_MAP = "attribute_map"
_MAP_ROUNDS = 0.1  # share of the rounds, because average precision is slow


def grade(
    truth: Sequence[Truth], *answers: Sequence[RegionPrediction], rounds: int = 1000
) -> dict[str, dict[str, Estimate]]:
    """All numbers of the embedded model's card.

    Args:
        truth: R rows.
        answers: R predictions of each model; numbers of several models are averaged.
        rounds: of the bootstrap; for "attribute_map" a tenth of them.

    Returns:
        Group of regions, see `groups_of` -> number -> estimate.
    """
    by_model = [statistics_of(truth, one) for one in answers]
    images = [row["image_id"] for row in truth]
    return {
        group: {
            name: bootstrap(
                [replace(one[name], graded=one[name].graded & chosen) for one in by_model],
                images,
                rounds=max(1, round(rounds * (_MAP_ROUNDS if name == _MAP else 1))),
            )
            for name in by_model[0]
        }
        for group, chosen in groups_of(truth).items()
    }


def groups_of(truth: Sequence[Truth]) -> dict[str, np.ndarray]:
    """Groups of regions, each as R bools; empty ones are left out.

    "all"; "held_out", the regions whose colour and category never occur together in training;
    "held_out_reference", those whose reference object is such a pair; "occluded", of which less
    than 60 % is visible; "shared_box", whose box nearly is that of another object, too; and if the
    regions are of several worlds, each of these.
    """
    pairs = held_out_pairs()
    members = {
        "all": [True for _ in truth],
        "held_out": [row["held_out"] for row in truth],
        "held_out_reference": [
            (row["facts"]["reference_colour"], row["facts"]["reference_category"]) in pairs
            for row in truth
        ],
        "occluded": [row["visible"] < OCCLUDED for row in truth],
        "shared_box": [row["overlap"] >= SHARED_IOU for row in truth],
    }
    worlds = list(dict.fromkeys(row["world"] for row in truth))
    if len(worlds) > 1:
        members.update({world: [row["world"] == world for row in truth] for world in worlds})
    return {name: np.array(chosen, dtype=bool) for name, chosen in members.items() if any(chosen)}


def statistics_of(
    truth: Sequence[Truth], answers: Sequence[RegionPrediction]
) -> dict[str, Statistic]:
    """Numbers of one model: "attribute_map", "category", and those of `grade_captions`."""
    named = [
        bool(answer.categories) and answer.categories[0][0] == row["facts"]["category"]
        for row, answer in zip(truth, answers)
    ]
    captions = grade_captions(truth, [answer.caption or "" for answer in answers])
    return {
        _MAP: _attribute_map(truth, answers),
        "category": percentage(named),
        **{name: percentage(column) for name, column in captions.items()},
    }


def _attribute_map(truth: Sequence[Truth], answers: Sequence[RegionPrediction]) -> Statistic:
    names = list(dict(answers[0].attributes or ()))
    labels = np.array([[attribute_labels(row["facts"])[name] for name in names] for row in truth])
    by_name = [dict(answer.attributes or ()) for answer in answers]
    scores = np.array([[row[name] for name in names] for row in by_name])
    precisions = [_precision_of(scores[:, k], labels[:, k]) for k in range(len(names))]

    def measure(rows: np.ndarray) -> float:
        times = np.bincount(rows, minlength=len(truth))
        return 100 * float(np.nanmean([precision(times) for precision in precisions]))

    return Statistic(np.full(len(truth), bool(names)), measure)


def _precision_of(scores: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], float]:
    """How often each region counts -> what `average_precisions` says of one attribute.

    Sorted once, for the rounds of a bootstrap; sklearn takes 8 ms a round and attribute.
    """
    known = np.flatnonzero(labels >= 0)
    order = known[np.argsort(-scores[known], kind="stable")]
    ranked = scores[order]
    last = np.flatnonzero(
        np.append(ranked[1:] != ranked[:-1], [True] * bool(len(known)))
    )  # of ties
    positive = labels[order] == 1

    def precision(times: np.ndarray) -> float:
        found = (times[order] * positive).cumsum()[last]
        named = times[order].cumsum()[last]
        if not found.any():
            return float("nan")
        steps = np.diff(found, prepend=0)
        return float((steps * found / named.clip(min=1)).sum() / found[-1])

    return precision
