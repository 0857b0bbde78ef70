"""Which evaluator fits a split of your own, and whether an evaluator can grade a split at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from lavis_dynrefer.datasets.tables import columns_of
from lavis_dynrefer.structures import RegionSet

_GRADED_BY: Mapping[str, str] = {  # evaluator -> the label it needs; others are not known here
    "dense_caption": "caption",
    "reg": "caption",
    "attributes": "attributes",
    "categories": "category",
}
_DEFAULT = "dense_caption"


class Choice(NamedTuple):
    """An evaluator and why it was chosen."""

    evaluator: str
    reason: str  # "3 of 9 regions have a caption"


def fitting_evaluator(region_set: RegionSet) -> Choice:
    """The first of captions, attributes and categories that a split can be graded on."""
    for evaluator in (_DEFAULT, "attributes", "categories"):
        counts = _Counts.of(region_set, _GRADED_BY[evaluator])
        if counts.usable:
            return Choice(evaluator, counts.text)
    return Choice(_DEFAULT, "no region has a caption, an attribute or a category")


def grading_problem(region_set: RegionSet, evaluator: str) -> str | None:
    """Why an evaluator cannot grade a split; None if it can, or is not one of the package."""
    label = _GRADED_BY.get(evaluator)
    if label is None:
        return None
    counts = _Counts.of(region_set, label)
    if counts.usable:
        return None
    fitting = fitting_evaluator(region_set)
    cure = (
        f"{fitting.evaluator} can: {fitting.reason}"
        if fitting.evaluator != evaluator and not fitting.reason.startswith("no ")
        else "so can no other evaluator; leave the split out of the evaluation"
    )
    return f"evaluator {evaluator} cannot grade split {region_set.split!r}: {counts.text}; {cure}"


class _Counts(NamedTuple):
    usable: int  # labels that count
    text: str

    @classmethod
    def of(cls, region_set: RegionSet, label: str) -> _Counts:
        """How many of the regions that are graded have a label."""
        regions = region_set.truth_regions or region_set.regions
        column = columns_of(regions)[label]
        labelled = len(column) - column.null_count
        what = {"caption": "a caption", "category": "a category", "attributes": "attributes"}[label]
        text = f"{labelled or 'none'} of {len(column)} regions have {what}"
        if label != "attributes" or not labelled:
            return cls(labelled, text)
        present = _present(column)
        return cls(present, f"{text}, {present or 'none'} of their labels is 1")


def _present(column: pa.ChunkedArray) -> int:
    """Labels that are 1: without one there is no average precision."""
    parts = (pc.list_flatten(chunk.drop_null()) for chunk in column.chunks)
    return sum(pc.sum(pc.equal(part, 1)).as_py() or 0 for part in parts)
