"""View policies that leave the choice to the model, which has seen the region by then.

A policy sees image and boxes, not the model, so that views can be cropped anywhere: in the worker
of a loader, in a reader thread, by LAVIS's processors. These policies therefore crop every
candidate and say which of them belong together. The model encodes the region's own view and those
of the other tasks, chooses, and encodes what it chose; the rest is never encoded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeVar

import torch
from PIL import Image
from torch import Tensor

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.views.view_plan import (
    CANDIDATES,
    ModelChoice,
    ViewPlan,
    check_candidates,
    check_task_scales,
)

T = TypeVar("T")


class _ModelPrior:
    """A plan with all candidates.

    Args:
        num_views: V, of a task, with the region itself.
        candidates: scales above 0 to choose from, in ascending order; None: the policy's own. With
            more than two views the model chooses neighbours among them.
        scales: task -> scales of the tasks whose views are not chosen, each beginning with 0.
    """

    chooser: ClassVar[str]
    own_candidates: ClassVar[tuple[float, ...]] = CANDIDATES

    def __init__(
        self,
        num_views: int,
        *,
        candidates: Sequence[float] | None = None,
        scales: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        candidates = self.own_candidates if candidates is None else candidates
        check_candidates(candidates, num_views)
        if num_views < 2:
            raise InputError("num_views: expected at least 2, as there is nothing to choose else")
        ascending = sorted({float(scale) for scale in candidates})
        if list(candidates) != ascending or ascending[0] == 0:
            raise InputError(
                f"candidates: expected different numbers above 0 in order, got {list(candidates)}"
            )
        if scales is not None:
            check_task_scales(scales)
        own = {task: [float(scale) for scale in row] for task, row in (scales or {}).items()}
        union = sorted({0.0, *ascending, *(scale for row in own.values() for scale in row)})
        self.num_views = num_views
        self.candidates = tuple(ascending)
        self.scales = torch.tensor(union)
        self.routes = {task: tuple(map(union.index, row)) for task, row in own.items()}
        columns = tuple(map(union.index, ascending))
        self.choice = ModelChoice(self.chooser, tuple(neighbours(columns, num_views - 1)))

    def plan(self, image: Image.Image, boxes: Tensor) -> ViewPlan:
        """See `ViewPolicy`."""
        del image
        return ViewPlan(self.scales.repeat(len(boxes), 1), self.routes, self.choice)


class ConfidencePrior(_ModelPrior):
    """The model writes a caption from each choice of views, and keeps the views of the likeliest.

    It takes as many captions as there are choices. See `LearnedPrior` for the arguments.
    """

    chooser = "confidence"
    own_candidates = (0.4, 0.5, 0.7, 1.0)  # best on validation (docs/view_policies.md)


class LearnedPrior(_ModelPrior):
    """A small head of the model says how likely a right caption is with each choice of views.

    The head is trained by projects/dynrefer/train_policy_tiny.yaml, and is part of the checkpoint.
    It sees the region's own view, the widest candidate, usually the whole image, and where the
    region is in it: one view and one pass of the Q-Former more, and no caption.

    Args:
        num_views: V, of a task, with the region itself.
        candidates: scales to choose from, as in `model.scale_prior`; in ascending order. With more
            than two views the model chooses neighbours among them.
        scales: task -> scales of the tasks whose views are not chosen, each beginning with 0.
    """

    chooser = "learned"


def neighbours(columns: Sequence[T], count: int) -> list[tuple[T, ...]]:
    """All runs of `count` neighbours.

    >>> neighbours([1, 2, 3], 2)
    [(1, 2), (2, 3)]
    """
    return [tuple(columns[start : start + count]) for start in range(len(columns) - count + 1)]
