"""Evaluators: pure functions of a region set and its predictions; no model, no LAVIS.

Every value of every report is in percent. To add an evaluator write one function of the shape of
`Evaluator` and enter it in `EVALUATORS`; dataset yamls choose it by that name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from lavis_dynrefer.metrics.attributes import evaluate_attributes
from lavis_dynrefer.metrics.caption_scores import evaluate_reg
from lavis_dynrefer.metrics.categories import evaluate_categories
from lavis_dynrefer.metrics.dense_caption import evaluate_dense_caption
from lavis_dynrefer.metrics.table import render_table
from lavis_dynrefer.structures import MetricReport, RegionPrediction, RegionSet


class Evaluator(Protocol):
    """Grades the predictions for one region set."""

    def __call__(
        self,
        region_set: RegionSet,
        predictions: Mapping[int, RegionPrediction],
        *,
        mode: str = "strict",
    ) -> MetricReport:
        """Grade.

        Args:
            region_set: one split; its name is the protocol of the report.
            predictions: region id -> prediction; regions may be missing.
            mode: "strict" (a missing answer is a wrong answer) or "official" (as the released
                code counts).

        Raises:
            ValueError: nothing to grade, a prediction for no region of the set, or scores that
                cannot be ranked.
        """


EVALUATORS: dict[str, Evaluator] = {
    "dense_caption": evaluate_dense_caption,
    "reg": evaluate_reg,
    "attributes": evaluate_attributes,
    "categories": evaluate_categories,
}

__all__ = ["EVALUATORS", "Evaluator", "render_table"]
