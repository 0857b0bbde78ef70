"""Numbers with confidence intervals, for regions that are not independent within an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Statistic:
    """A number that can be computed for any sample of regions.

    Args:
        graded: (R,) bool, the regions it applies to.
        measure: indices of such regions, with repeats -> percent.
        values: (R,) of which `measure` is the mean, if it is one: then resampling is quick.
    """

    graded: np.ndarray
    measure: Callable[[np.ndarray], float]
    values: np.ndarray | None = None


@dataclass(frozen=True)
class Estimate:
    """A mean with its confidence interval.

    Args:
        value: in percent; nan if nothing was graded.
        low: lower end of the 95 % bootstrap interval.
        high: upper end of it.
        count: number of graded regions.
    """

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}] n={self.count}"


def percentage(right: Sequence[bool | None]) -> Statistic:
    """Percentage of True among the values that are not None."""
    graded = np.array([value is not None for value in right], dtype=bool)
    values = 100 * np.array([bool(value) for value in right], dtype=float)
    return Statistic(graded, lambda rows: float(values[rows].mean()), values)


def bootstrap(
    statistics: Sequence[Statistic],
    images: Sequence[int],
    *,
    seed: int = 0,
    rounds: int = 1000,
) -> Estimate:
    """Mean of a statistic over models, with a 95 % percentile interval.

    Resamples whole images, because their regions share a reference object, and models, if there are
    several: the interval then covers other images and other seeds.

    Args:
        statistics: one for each model, such as those trained from different seeds.
        images: image id of each region.
        seed: of the resampling.
        rounds: number of resamplings.
    """
    graded = np.flatnonzero(statistics[0].graded)
    if not len(graded):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    groups = np.unique(np.asarray(images)[graded], return_inverse=True)[1]
    rows_of = [graded[groups == group] for group in range(groups.max() + 1)]
    measures = [_measure_of_groups(statistic, rows_of) for statistic in statistics]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(rounds):
        drawn = rng.integers(len(rows_of), size=len(rows_of))
        models = rng.integers(len(statistics), size=len(statistics))
        values.append(np.mean([measures[model](drawn) for model in models]))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    value = float(np.mean([statistic.measure(graded) for statistic in statistics]))
    return Estimate(value, float(low), float(high), len(graded))


def _measure_of_groups(
    statistic: Statistic, rows_of: Sequence[np.ndarray]
) -> Callable[[np.ndarray], float]:
    """Numbers of groups of regions, with repeats -> percent."""
    if statistic.values is None:
        return lambda drawn: statistic.measure(np.concatenate([rows_of[i] for i in drawn]))
    values = statistic.values
    sums = np.array([values[rows].sum() for rows in rows_of])
    sizes = np.array([len(rows) for rows in rows_of])
    return lambda drawn: float(sums[drawn].sum() / sizes[drawn].sum())
