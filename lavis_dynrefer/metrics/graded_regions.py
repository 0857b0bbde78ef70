"""Which regions an evaluation grades, and the answer to each of them.

Two modes. `strict` grades every region with a label, rejected ones included: no answer is a wrong
answer. `official` leaves out what the released DynRefer leaves out; see each evaluator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Optional

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.structures import NamedScore, RegionPrediction, RegionRecord, RegionSet

STRICT = "strict"
OFFICIAL = "official"

Answer = tuple[RegionRecord, Optional[RegionPrediction]]
CaptionPair = tuple[str, Sequence[str]]  # a candidate and its references
_LABELS = {"caption": "captions", "category": "categories", "attributes": "attribute labels"}


def check_request(
    region_set: RegionSet, predictions: Mapping[int, RegionPrediction], mode: str
) -> None:
    """Refuse a request whose result could not be trusted.

    Raises:
        InputError: unknown mode, two regions with one id, or a prediction for an unknown region.
    """
    where = f"{region_set.name}/{region_set.split}"
    if mode not in (STRICT, OFFICIAL):
        raise InputError(f"mode must be {STRICT!r} or {OFFICIAL!r}, got {mode!r}")
    known = {region.region_id for region in region_set.regions}
    if len(known) != len(region_set.regions):
        raise InputError(
            f"{where}: {len(region_set.regions)} regions share {len(known)} region ids; "
            "give every region its own id when reading the annotations"
        )
    unknown = sorted(set(predictions) - known)
    if unknown:
        raise InputError(
            f"{where}: {len(unknown)} predictions are for unknown regions, first ids "
            f"{unknown[:3]}; evaluate them with the set they were made for"
        )


def answers_to_labelled(
    region_set: RegionSet,
    predictions: Mapping[int, RegionPrediction],
    label: str,
    *,
    skip_rejected: bool = False,
) -> list[Answer]:
    """Each region with a label and its prediction, or None.

    A rejected region was never asked about, so it has no prediction even if a usable region has
    the same id.

    Args:
        region_set: the split to grade.
        predictions: region id -> prediction.
        label: field of `RegionRecord` that must not be None.
        skip_rejected: whether rejected regions are left out.

    Raises:
        InputError: no region is left.
    """
    rejected = {id(item.region) for item in region_set.rejected}
    answers = [
        (region, None if id(region) in rejected else predictions.get(region.region_id))
        for region in region_set.truth()
        if getattr(region, label) is not None and not (skip_rejected and id(region) in rejected)
    ]
    if not answers:
        raise InputError(
            f"{region_set.name}/{region_set.split}: none of {len(region_set.regions)} regions has "
            f"{_LABELS[label]}; check the annotation file and the split, or choose another "
            "evaluator"
        )
    return answers


def count_answers(
    region_set: RegionSet, answers: Sequence[Answer], answered: int
) -> dict[str, int]:
    """The counts of every report; `answered` is how many answers can be graded."""
    return {
        "images": len({region.image_id for region, _ in answers}),
        "regions": len(answers),
        "missing": len(answers) - answered,
        "rejected": len(region_set.rejected),
    }


def check_scores(region: RegionRecord, scores: Sequence[NamedScore], what: str) -> None:
    """Refuse scores that cannot be ranked.

    Raises:
        InputError: a score is not finite, or a name occurs twice.
    """
    bad = [name for name, score in scores if not math.isfinite(score)]
    if bad:
        raise InputError(
            f"region {region.region_id}: the {what} scores of {bad[:3]} are not finite; the model "
            "diverged or its weights are damaged, so no metric is computed"
        )
    if len({name for name, _ in scores}) != len(scores):
        raise InputError(f"region {region.region_id}: a {what} is scored twice, expected once each")
