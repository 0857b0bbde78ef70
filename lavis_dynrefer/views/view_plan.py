"""What a view policy returns, and the checks that policies share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Protocol

import numpy as np
from PIL import Image
from torch import Tensor

from lavis_dynrefer.errors import InputError

CANDIDATES = tuple(step / 10 for step in range(1, 11))  # released code: 0.1, 0.2, ..., 1.0


@dataclass(frozen=True)
class ModelChoice:
    """Views among which the model chooses, when it has seen the region; see `model_priors`.

    Args:
        chooser: how it chooses, a name out of `models.scale_choice.CHOOSERS`.
        choices: (W, n) indices into V: a task gets the region and the n views of one choice.
    """

    chooser: str
    choices: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ViewPlan:
    """The views to crop for each region.

    Args:
        scales: (R, V), the first column is 0.
        routes: task -> indices into V of the views this task uses; other tasks use all views in
            order, or those that the model chooses.
        choice: what the model chooses among, for the tasks without a route.
    """

    scales: Tensor
    routes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    choice: ModelChoice | None = None

    def counts(self, tasks: Collection[str] = ()) -> set[int]:
        """Numbers of views that the tasks get; without tasks, those that belong to no task."""
        free = self.scales.shape[1]
        if self.choice is not None:
            free = 1 + len(self.choice.choices[0])
        return {len(self.routes[task]) if task in self.routes else free for task in tasks or [""]}


class ViewPolicy(Protocol):
    """Chooses scales; may look at the image. Several threads may call it at once."""

    def plan(self, image: Image.Image, boxes: Tensor) -> ViewPlan:
        """Scales for boxes (R, 4) in pixels of `image`."""


def are_scales(values: Any) -> bool:
    """Whether these are numbers in [0, 1]."""
    return isinstance(values, (Sequence, np.ndarray)) and all(
        isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) <= 1
        for value in values
    )


def check_scales(scales: Any, *, where: str = "scales") -> None:
    """Refuse what is no list of scales that begins with 0."""
    if not are_scales(scales) or len(scales) == 0 or scales[0] != 0:
        raise InputError(f"{where}: expected numbers in [0, 1] beginning with 0, got {scales!r}")


def check_task_scales(scales: Any) -> None:
    """Refuse what is not task -> scales, as many for each task."""
    if not isinstance(scales, Mapping) or not scales:
        raise InputError(f"scales: expected a list of numbers for each task, got {scales!r}")
    for task, row in scales.items():
        check_scales(row, where=f"scales.{task}")
    if len({len(row) for row in scales.values()}) != 1:
        raise InputError(f"scales: every task needs the same number of views, got {dict(scales)}")


def check_candidates(candidates: Any, num_views: Any) -> None:
    """Refuse invalid scales, or too few for so many views."""
    if type(num_views) is not int or num_views < 1:
        raise InputError(f"num_views: expected a whole number of at least 1, got {num_views!r}")
    if not are_scales(candidates):
        raise InputError(f"candidates: expected numbers in [0, 1], got {candidates!r}")
    if num_views - 1 > len(candidates):
        raise InputError(
            f"{num_views} views need {num_views - 1} candidates, got {list(candidates)}"
        )
