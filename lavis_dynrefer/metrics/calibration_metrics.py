"""Whether probabilities are right: reliability curve, expected calibration error, thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lavis_dynrefer.errors import InputError

BINS = 15  # as in Guo et al., ICML 2017
LIKELY = 0.5  # from here on an answer is a yes


class ReliabilityBin(NamedTuple):
    """Answers of about the same probability.

    Args:
        probability: their mean.
        share: of them that are right, in [0, 1].
        answers: how many.
    """

    probability: float
    share: float
    answers: int


class Threshold(NamedTuple):
    """Answers of a probability from `LIKELY` on, taken for yes.

    Args:
        precision: share of them that are right; nan without any.
        recall: share of the right answers that are among them; nan where none is right.
    """

    precision: float
    recall: float


def reliability_curve(
    probabilities: ArrayLike, right: ArrayLike, *, bins: int = BINS, equal_mass: bool = False
) -> list[ReliabilityBin]:
    """Share of right answers by probability.

    Args:
        probabilities: (N,) in [0, 1].
        right: (N,) of 1 and 0.
        bins: how many.
        equal_mass: bins of as many answers each, instead of bins that are as wide.

    Returns:
        From the least probable to the most; bins without answers are left out.

    Raises:
        InputError: no answers, other shapes, or a number outside [0, 1].

    >>> reliability_curve([0.1, 0.2, 0.9], [0, 1, 1], bins=2)[1]
    ReliabilityBin(probability=0.9, share=1.0, answers=1)
    """
    given, hits = _checked(probabilities, right)
    if equal_mass:
        parts: Sequence[Any] = np.array_split(np.argsort(given, kind="stable"), bins)
    else:
        place = np.clip((given * bins).astype(int), 0, bins - 1)
        parts = [np.flatnonzero(place == number) for number in range(bins)]
    return [
        ReliabilityBin(float(given[part].mean()), float(hits[part].mean()), len(part))
        for part in parts
        if len(part)
    ]


def expected_calibration_error(
    probabilities: ArrayLike, right: ArrayLike, *, bins: int = BINS, equal_mass: bool = False
) -> float:
    """Mean distance between probability and share of right answers, in [0, 1].

    The mean is over answers. Arguments and errors as for `reliability_curve`.

    >>> round(expected_calibration_error([0.8, 0.8, 0.8, 0.8, 0.3], [1, 1, 1, 1, 0]), 3)
    0.22
    """
    return error_of_curve(reliability_curve(probabilities, right, bins=bins, equal_mass=equal_mass))


def error_of_curve(curve: Sequence[ReliabilityBin]) -> float:
    """The expected calibration error of a reliability curve."""
    total = sum(one.answers for one in curve)
    return sum(one.answers * abs(one.probability - one.share) for one in curve) / total


def at_threshold(
    probabilities: ArrayLike, right: ArrayLike, *, threshold: float = LIKELY
) -> Threshold:
    """Precision and recall of answers of a probability from `threshold` on.

    Args:
        probabilities: (N,) in [0, 1].
        right: (N,) of 1 and 0.
        threshold: itself included.

    Raises:
        InputError: as for `reliability_curve`.

    >>> at_threshold([0.9, 0.6, 0.2, 0.5], [1, 0, 1, 1])
    Threshold(precision=0.6666666666666666, recall=0.6666666666666666)
    """
    given, hits = _checked(probabilities, right)
    taken = given >= threshold
    found = float((taken & (hits == 1)).sum())
    return Threshold(
        float(found / taken.sum()) if taken.any() else float("nan"),
        float(found / hits.sum()) if hits.any() else float("nan"),
    )


def threshold_metrics(
    probabilities: ArrayLike, right: ArrayLike, *, error: float | None = None
) -> dict[str, float]:
    """What evaluators report of probabilities, in percent.

    Args:
        probabilities: (N,) in [0, 1].
        right: (N,) of 1 and 0.
        error: calibration error in [0, 1]; None: that of these probabilities.

    Returns:
        "precision_likely" and "recall_likely" of answers of a probability from 0.5 on, each left
        out where it has no value; and "calibration_error".
    """
    found = at_threshold(probabilities, right)
    if error is None:
        error = expected_calibration_error(probabilities, right)
    metrics = {
        "precision_likely": 100 * found.precision,
        "recall_likely": 100 * found.recall,
        "calibration_error": 100 * error,
    }
    return {name: value for name, value in metrics.items() if not np.isnan(value)}


THRESHOLD_METRICS = ("precision_likely", "recall_likely", "calibration_error")


def _checked(
    probabilities: ArrayLike, right: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    given = np.asarray(probabilities, dtype=np.float64)
    hits = np.asarray(right, dtype=np.float64)
    if given.ndim != 1 or given.shape != hits.shape or not len(given):
        raise InputError(
            "expected as many probabilities as answers that are right or wrong, at least one, got "
            f"shapes {given.shape} and {hits.shape}"
        )
    if not ((given >= 0) & (given <= 1)).all():  # nan, too
        raise InputError(f"expected probabilities in [0, 1], got {given.min()} to {given.max()}")
    return given, hits
