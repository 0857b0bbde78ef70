"""Evaluators: pure functions of a region set and its predictions; no model, no LAVIS.

All metrics are in percent. To add an evaluator, write a function like `Evaluator` and enter its
module and name in `_FUNCTIONS`; dataset yamls choose it by the key. The names of its metrics go
into `expected.METRIC_NAMES`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from lavis_dynrefer.lazy_names import lazy_names
from lavis_dynrefer.structures import MetricReport, RegionPrediction, RegionSet

if TYPE_CHECKING:
    from lavis_dynrefer.metrics.report_table import plain_table, render_table


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
            InputError: nothing to grade, a prediction for an unknown region, or scores that cannot
                be ranked.
        """


_FUNCTIONS = {
    "dense_caption": ("dense_caption", "evaluate_dense_caption"),
    "reg": ("caption_scores", "evaluate_reg"),
    "attributes": ("attribute_metrics", "evaluate_attributes"),
    "categories": ("category_metrics", "evaluate_categories"),
}


class _Evaluators(Mapping[str, Evaluator]):
    """Name -> evaluator; its module is imported on first use, so that the names cost nothing."""

    def __getitem__(self, name: str) -> Evaluator:
        module, function = _FUNCTIONS[name]
        return cast(Evaluator, getattr(import_module(f"{__name__}.{module}"), function))

    def __iter__(self) -> Iterator[str]:
        return iter(_FUNCTIONS)

    def __len__(self) -> int:
        return len(_FUNCTIONS)


EVALUATORS: Mapping[str, Evaluator] = _Evaluators()

__all__ = ["EVALUATORS", "Evaluator", "plain_table", "render_table"]

__getattr__ = lazy_names(__name__, {"report_table": ("plain_table", "render_table")})
