"""Numbers a run is expected to reach, from the `expected` section of its yaml.

    expected:
      source: where the numbers were published
      test: {map: [47.6, 0.3]} # split of the run: metric: [value, tolerance], all in percent

A run compares its reports with them and shows which were met; it never fails because of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field, Strict

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.metrics.calibration_metrics import THRESHOLD_METRICS
from lavis_dynrefer.metrics.dense_caption import IOU_THRESHOLDS, SIMILARITY_THRESHOLDS
from lavis_dynrefer.metrics.report_table import plain_table
from lavis_dynrefer.settings import SettingsError, from_mapping, settings

SOURCE = "source"
_ROUNDING = 1e-9  # 47.6 - 0.3 is a little more than 47.3
_FREQUENCIES = ("map", "map_head", "map_medium", "map_tail")

# Metrics of each evaluator; attributes also have "map_<group>" for every parent type of their
# vocabulary.
METRIC_NAMES: dict[str, tuple[str, ...]] = {
    "dense_caption": (
        *("map", "detmap"),
        *(
            f"iou_{iou}_meteor_{similarity:g}"
            for iou in IOU_THRESHOLDS
            for similarity in SIMILARITY_THRESHOLDS
        ),
        *(f"iou_{iou}" for iou in IOU_THRESHOLDS),
    ),
    "reg": ("meteor", "cider", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l"),
    "attributes": (
        *_FREQUENCIES,
        *(f"{name}_area50" for name in _FREQUENCIES),
        *("map_single", "map_multiple"),
        *THRESHOLD_METRICS,
    ),
    "categories": ("acc", "acc_official", *THRESHOLD_METRICS),
}


class ExpectedNumber(NamedTuple):
    """One number.

    Args:
        split: its name in the run.
        metric: its name in the report.
        value: in percent.
        tolerance: largest difference in percentage points at which the number counts as met.
    """

    split: str
    metric: str
    value: float
    tolerance: float

    def verdict(self, found: float | None) -> str:
        """`found` in words.

        >>> ExpectedNumber("test", "map", 47.6, 0.3).verdict(47.1)
        'missed, below'
        """
        if found is None or not math.isfinite(found):
            return "missed, not reported"
        if abs(found - self.value) <= self.tolerance + _ROUNDING:
            return "met"
        return "missed, above" if found > self.value else "missed, below"


def _check_pair(value: Any) -> Any:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError(f"expected [value, tolerance] in percent, got {value!r}")
    return value


_Pair = Annotated[
    tuple[float, Annotated[float, Field(ge=0)]], Strict(False), BeforeValidator(_check_pair)
]


@settings
class Expected:
    """All expected numbers of a run: split -> metric -> (value, tolerance)."""

    source: str = Field(min_length=1)  # where they come from
    splits: Mapping[str, Annotated[Mapping[str, _Pair], Field(min_length=1)]] = Field(min_length=1)

    @property
    def numbers(self) -> list[ExpectedNumber]:
        """In the order of the yaml."""
        return [
            ExpectedNumber(split, metric, *pair)
            for split, metrics in self.splits.items()
            for metric, pair in metrics.items()
        ]


def parse_expected(section: Mapping[str, Any] | None) -> Expected | None:
    """Read the section; None means that nothing was published.

    Raises:
        InputError: no source, or other values than pairs of numbers; names the place.
    """
    if section is None:
        return None
    if not isinstance(section, Mapping):
        raise InputError(f"expected: expected a mapping or null, got {section!r}")
    splits = {str(name): value for name, value in section.items() if name != SOURCE}
    try:
        return from_mapping(
            Expected, {SOURCE: section.get(SOURCE), "splits": splits}, where="expected"
        )
    except SettingsError as error:  # the splits stand beside the source
        problems = [problem.replace("expected.splits", "expected", 1) for problem in error.problems]
        raise SettingsError(problems) from None


def render_comparison(expected: Expected, found: Mapping[str, Mapping[str, Any] | None]) -> str:
    """A table of what was expected and what was found.

    Args:
        expected: the numbers.
        found: split -> metric -> value, as a run returns them.
    """
    rows = []
    for number in expected.numbers:
        value = (found.get(number.split) or {}).get(number.metric)
        reached = float(value) if isinstance(value, (int, float)) else None
        expected_range = f"{number.value:.2f} +- {number.tolerance:.2f}"
        shown = "-" if reached is None else f"{reached:.2f}"
        rows.append((number.split, number.metric, expected_range, shown, number.verdict(reached)))
    heads = ("split", "metric", "expected", "found", "verdict")
    return f"expected: {expected.source}\n{plain_table(heads, rows)}"
