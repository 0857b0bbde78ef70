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
    """An evaluator, why it was chosen, and whether it can grade the split."""

    evaluator: str
    reason: str  # "3 of 9 regions have a caption"
    can_grade: bool = True


def fitting_evaluator(region_set: RegionSet) -> Choice:
    """The first of captions, attributes and categories that a split can be graded on."""
    found = [
        (evaluator, _Counts.of(region_set, _GRADED_BY[evaluator]))
        for evaluator in (_DEFAULT, "attributes", "categories")
    ]
    for evaluator, counts in found:
        if counts.usable:
            return Choice(evaluator, counts.text)
    for evaluator, counts in found:
        if counts.labelled:  # attributes, none of them present
            return Choice(evaluator, counts.text, can_grade=False)
    return Choice(_DEFAULT, "no region has a caption, an attribute or a category", can_grade=False)


def grading_problem(region_set: RegionSet, evaluator: str) -> str | None:
    """Why an evaluator cannot grade a split; None if it can, or is not one of the package."""
    label = _GRADED_BY.get(evaluator)
    if label is None:
        return None
    counts = _Counts.of(region_set, label)
    if counts.usable:
        return None
    split, fitting = region_set.split, fitting_evaluator(region_set)
    cure = (
        f"{fitting.evaluator} can ({fitting.reason}): set `build_info.evaluator`, or of "
        f"custom_region `build_info.evaluators: {{{split}: {fitting.evaluator}}}`"
        if fitting.can_grade
        else "nor can any other; leave it out of run.valid_splits and run.test_splits"
    )
    return f"evaluator {evaluator} cannot grade split {split!r}: {counts.text}; {cure}"


class _Counts(NamedTuple):
    labelled: int  # regions that have the label
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
            return cls(labelled, labelled, text)
        present = _present(column)
        return cls(labelled, present, f"{text}; labels that are 1: {present or 'none'}")


def _present(column: pa.ChunkedArray) -> int:
    """Labels that are 1: without one there is no average precision."""
    parts = (pc.list_flatten(chunk.drop_null()) for chunk in column.chunks)
    return sum(pc.sum(pc.equal(part, 1)).as_py() or 0 for part in parts)
