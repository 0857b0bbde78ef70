"""Numbers a run is expected to reach, from the `expected` section of its yaml.

    expected:
      source: where the numbers were published
      test: {map: [47.6, 0.3]} # split of the run: metric: [value, tolerance], all in percent

A run compares its reports with them and shows which were met; it never fails because of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.metrics.dense_caption import IOU_THRESHOLDS, SIMILARITY_THRESHOLDS
from lavis_dynrefer.metrics.report_table import plain_table

SOURCE = "source"
_ROUNDING = 1e-9  # 47.6 - 0.3 is a little more than 47.3
_FREQUENCIES = ("map", "map_head", "map_medium", "map_tail")

# Metrics of each evaluator; attributes also have "map_<group>" for every parent type of their
# vocabulary.
METRIC_NAMES: dict[str, tuple[str, ...]] = {
    "dense_caption": (
        *("map", "detmap"),
        *(
            f"iou_{iou}_meteor_{least:g}"
            for iou in IOU_THRESHOLDS
            for least in SIMILARITY_THRESHOLDS
        ),
        *(f"iou_{iou}" for iou in IOU_THRESHOLDS),
    ),
    "reg": ("meteor", "cider", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l"),
    "attributes": (
        *_FREQUENCIES,
        *(f"{name}_area50" for name in _FREQUENCIES),
        *("map_single", "map_multiple"),
    ),
    "categories": ("acc", "acc_official"),
}


@dataclass(frozen=True)
class ExpectedNumber:
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


@dataclass(frozen=True)
class Expected:
    """All expected numbers of a run.

    Args:
        source: where they come from.
        numbers: in the order of the yaml.
    """

    source: str
    numbers: tuple[ExpectedNumber, ...]


def parse_expected(section: Mapping[str, Any] | None) -> Expected | None:
    """Read the section; None means that nothing was published.

    Raises:
        InputError: no source, or other values than pairs of numbers; names the place.
    """
    if section is None:
        return None
    if not isinstance(section, Mapping):
        raise InputError(f"expected: expected a mapping or null, got {section!r}")
    source = section.get(SOURCE)
    if not isinstance(source, str) or not source:
        raise InputError(f"expected.{SOURCE}: say where the numbers come from, got {source!r}")
    numbers = []
    for split, metrics in section.items():
        if split == SOURCE:
            continue
        if not isinstance(metrics, Mapping) or not metrics:
            raise InputError(f"expected.{split}: expected metrics of that split, got {metrics!r}")
        numbers += [
            ExpectedNumber(str(split), str(metric), *_pair(pair, f"expected.{split}.{metric}"))
            for metric, pair in metrics.items()
        ]
    if not numbers:
        raise InputError("expected: names no number; write null if none is known")
    return Expected(source, tuple(numbers))


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
        wanted = f"{number.value:.2f} +- {number.tolerance:.2f}"
        shown = "-" if reached is None else f"{reached:.2f}"
        rows.append((number.split, number.metric, wanted, shown, number.verdict(reached)))
    heads = ("split", "metric", "expected", "found", "verdict")
    return f"expected: {expected.source}\n{plain_table(heads, rows)}"


def _pair(value: Any, where: str) -> tuple[float, float]:
    numbers = isinstance(value, (list, tuple)) and all(
        isinstance(item, (int, float)) and not isinstance(item, bool) and math.isfinite(item)
        for item in value
    )
    if not numbers or len(value) != 2 or value[1] < 0:
        raise InputError(f"{where}: expected [value, tolerance] in percent, got {value!r}")
    return float(value[0]), float(value[1])
