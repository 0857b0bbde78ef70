"""Attributes of a region as yes-or-no decisions: precision, recall and their kin.

The OVAD benchmark prints these beside the mean average precision, once for scores above a threshold
and once for the k best attributes of each region. They describe an operating point, they do not
rank models, so no report carries them; call these functions for a closer look.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lavis_dynrefer.metrics.attributes import Bools, Floats, attribute_groups
from lavis_dynrefer.structures import AttributeInfo


def official_threshold(scores: Floats) -> float:
    """The threshold of the released evaluation: the mean score, rounded up to a tenth."""
    return math.ceil(10 * float(scores.mean())) / 10


def official_top_k(labels: NDArray[np.int_]) -> int:
    """The k of the released evaluation: the mean number of attributes present, rounded down."""
    return int((labels == 1).sum(axis=1).mean())


def best_k(scores: Floats, k: int) -> Bools:
    """Mark the k best scores of every row; the first of equal ones.

    >>> best_k(np.array([[0.2, 0.9, 0.5]]), 2)
    array([[False,  True,  True]])
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    marked = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(marked, best, True, axis=1)
    return marked


def decision_metrics(
    decided: Bools, labels: NDArray[np.int_], attributes: Sequence[AttributeInfo]
) -> dict[str, dict[str, float]]:
    """Precision, recall and their kin of every group of attributes, in percent.

    Args:
        decided: (R, A), True where the attribute is said to be present.
        labels: (R, A) of 1, 0, -1; unknown labels are not graded.
        attributes: the A attributes, in column order.

    Returns:
        group of `attribute_groups` -> {"pooled_<name>", "mean_<name>"}: pooled over all decisions
        of the group (precision, recall, f1, tnr, rand_precision), and the mean over its attributes
        (precision, recall, f1, bacc, rand_precision). tnr is the true negative rate, bacc the
        balanced accuracy, rand_precision the precision of guessing. An attribute never decided has
        precision 1; where a value is undefined the attribute leaves the mean, and a group without
        any defined value is nan.

    Raises:
        ValueError: shapes differ.
    """
    if decided.shape != labels.shape or labels.shape[1:] != (len(attributes),):
        raise ValueError(
            f"expected decisions and labels of shape (R, {len(attributes)}), "
            f"got {decided.shape} and {labels.shape}"
        )
    counts = np.stack(  # (4, A): true positive, false positive, false negative, true negative
        [
            (decided & (labels == 1)).sum(axis=0),
            (decided & (labels == 0)).sum(axis=0),
            (~decided & (labels == 1)).sum(axis=0),
            (~decided & (labels == 0)).sum(axis=0),
        ]
    ).astype(float)
    each = _rates(counts)
    result = {}
    for group, members in attribute_groups(attributes).items():
        pooled = _rates(counts[:, members].sum(axis=1, keepdims=True))
        result[group] = {
            **{f"pooled_{name}": 100 * float(pooled[name][0]) for name in _POOLED},
            **{f"mean_{name}": 100 * _defined_mean(each[name][members]) for name in _PER_ATTRIBUTE},
        }
    return result


_POOLED = ("precision", "recall", "f1", "tnr", "rand_precision")
_PER_ATTRIBUTE = ("precision", "recall", "f1", "bacc", "rand_precision")


def _rates(counts: Floats) -> dict[str, Floats]:
    tp, fp, fn, tn = counts
    with np.errstate(invalid="ignore"):  # 0 / 0 is nan: undefined
        precision = np.where(tp + fp > 0, tp / (tp + fp), 1.0)
        recall = tp / (tp + fn)
        tnr = tn / (tn + fp)
        return {
            "precision": precision,
            "recall": recall,
            "f1": 2 * precision * recall / (precision + recall),
            "tnr": tnr,
            "bacc": (recall + tnr) / 2,
            "rand_precision": (tp + fn) / (tp + fp + fn + tn),
        }


def _defined_mean(values: Floats) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan
