"""Which regions an evaluation grades, and what was answered for each of them.

Two modes. `strict` grades every region that carries the truth asked for, rejected ones included: no
answer is a wrong answer. `official` leaves out what the released DynRefer leaves out; each
evaluator's docstring says what that is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Optional

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.structures import NamedScore, RegionPrediction, RegionRecord, RegionSet

STRICT = "strict"
OFFICIAL = "official"

Answer = tuple[RegionRecord, Optional[RegionPrediction]]
CaptionPair = tuple[str, Sequence[str]]  # a candidate and its references


def check_request(
    region_set: RegionSet, predictions: Mapping[int, RegionPrediction], mode: str
) -> None:
    """Refuse a request whose result could not be trusted.

    Raises:
        ValueError: unknown mode, two regions with one id, or a prediction for no region.
    """
    where = f"{region_set.name}/{region_set.split}"
    if mode not in (STRICT, OFFICIAL):
        raise InputError(f"mode must be {STRICT!r} or {OFFICIAL!r}, got {mode!r}")
    asked = {region.region_id for region in region_set.regions}
    if len(asked) != len(region_set.regions):
        raise InputError(
            f"{where}: {len(region_set.regions)} regions share {len(asked)} region ids; "
            "give every region its own id when the annotations are read"
        )
    unknown = sorted(set(predictions) - asked)
    if unknown:
        raise InputError(
            f"{where}: {len(unknown)} predictions are for no region of this set, "
            f"first ids {unknown[:3]}; evaluate them with the set they were made for"
        )


def graded_regions(
    region_set: RegionSet, mode: str, has_truth: Callable[[RegionRecord], bool], what: str
) -> list[RegionRecord]:
    """Regions that carry truth: all of them when strict, without the rejected ones when official.

    Args:
        region_set: the split that is graded.
        mode: "strict" or "official".
        has_truth: whether a region carries the truth asked for.
        what: that truth in words, for the error text.

    Raises:
        ValueError: no region is left.
    """
    dropped = {id(item.region) for item in region_set.rejected} if mode == OFFICIAL else set()
    regions = [
        region for region in region_set.truth() if id(region) not in dropped and has_truth(region)
    ]
    if not regions:
        raise InputError(
            f"{region_set.name}/{region_set.split}: expected regions with {what}, found none among "
            f"{len(region_set.regions)} regions; check the annotation file and the split, or "
            "choose another evaluator"
        )
    return regions


def pair_answers(
    region_set: RegionSet,
    predictions: Mapping[int, RegionPrediction],
    regions: Iterable[RegionRecord],
) -> list[Answer]:
    """Each region with its prediction, None where there is none.

    A rejected region was never asked about, so it has no prediction even if a usable region bears
    the same id.
    """
    rejected = {id(item.region) for item in region_set.rejected}
    return [
        (region, None if id(region) in rejected else predictions.get(region.region_id))
        for region in regions
    ]


def count_answers(
    region_set: RegionSet, regions: Sequence[RegionRecord], answered: int
) -> dict[str, int]:
    """The counts every report carries.

    Args:
        region_set: the split that is graded.
        regions: the regions graded.
        answered: how many of them have an answer that can be graded.
    """
    return {
        "images": len({region.image_id for region in regions}),
        "regions": len(regions),
        "missing": len(regions) - answered,
        "rejected": len(region_set.rejected),
    }


def check_scores(region: RegionRecord, scores: Sequence[NamedScore], what: str) -> None:
    """Refuse scores that cannot be ranked.

    Raises:
        ValueError: a score is not a finite number, or a name comes twice; names the region.
    """
    bad = [name for name, score in scores if not math.isfinite(score)]
    if bad:
        raise InputError(
            f"region {region.region_id}: the {what} scores of {bad[:3]} are not finite; the model "
            "diverged or its weights are damaged, so no metric is computed"
        )
    if len({name for name, _ in scores}) != len(scores):
        raise InputError(f"region {region.region_id}: a {what} is scored twice, expected once each")
