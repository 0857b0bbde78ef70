"""Grade all answers about synthetic regions: attributes, category and caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lavis_dynrefer.lab.bootstrap_estimates import Estimate, Statistic, bootstrap, percentage
from lavis_dynrefer.lab.caption_grading import grade_captions
from lavis_dynrefer.metrics.attribute_metrics import average_precisions
from lavis_dynrefer.structures import RegionPrediction
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
        Group of regions -> number -> estimate. Groups are "all"; "held_out", the regions whose
        colour and category never occur together in training; and "held_out_reference", those whose
        reference object is such a pair. Empty groups are left out.
    """
    by_model = [statistics_of(truth, one) for one in answers]
    pairs = held_out_pairs()
    groups = {
        "all": np.ones(len(truth), dtype=bool),
        "held_out": np.array([bool(row["held_out"]) for row in truth]),
        "held_out_reference": np.array(
            [
                (row["facts"]["reference_colour"], row["facts"]["reference_category"]) in pairs
                for row in truth
            ]
        ),
    }
    images = [row["image_id"] for row in truth]
    return {
        group: {
            name: bootstrap(
                [Statistic(one[name].graded & chosen, one[name].measure) for one in by_model],
                images,
                rounds=max(1, round(rounds * (_MAP_ROUNDS if name == _MAP else 1))),
            )
            for name in by_model[0]
        }
        for group, chosen in groups.items()
        if chosen.any()
    }


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

    def measure(rows: np.ndarray) -> float:
        return 100 * float(np.nanmean(average_precisions(scores[rows], labels[rows])))

    return Statistic(np.full(len(truth), bool(names)), measure)
