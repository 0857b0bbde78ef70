"""View policies: how the scales of a region's views are chosen.

A policy is any object with `plan(image, boxes) -> ViewPlan`; adding one is one class here and one
line in `POLICIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.views.hashing import BITS, HASH_SIDE, HASHES
from lavis_dynrefer.views.model_priors import ConfidencePrior, LearnedPrior
from lavis_dynrefer.views.nesting import nest_boxes, whole_pixels
from lavis_dynrefer.views.view_plan import (
    CANDIDATES,
    check_candidates,
    check_scales,
    check_task_scales,
)
from lavis_dynrefer.views.view_plan import ViewPlan as ViewPlan
from lavis_dynrefer.views.view_plan import ViewPolicy as ViewPolicy

if TYPE_CHECKING:
    import imagehash

# Scales each task gains most from, best first, as the paper reports them: attributes 0.1, captions
# 0.4 to 0.5, recognition in between, nothing above 0.5. Not measured by us.
BY_LOSS = "loss"  # weights of random scales
RECOGNITION = (0.2, 0.3, 0.1, 0.4, 0.5)
TASK_SCALES = {
    "caption": (0.4, 0.5, 0.3, 0.2, 0.1),
    "tags": RECOGNITION,
    "attributes": (0.1, 0.2, 0.3, 0.4, 0.5),
    "categories": RECOGNITION,
}


class RandomScales:
    """Training: the region, then distinct random scales.

    Args:
        num_views: V, with the region itself.
        candidates: scales to sample from.
        weights: how often, a number above 0 for each candidate; or "loss": in proportion to the
            caption loss at each scale, which the runner of this package tells as `shares` from time
            to time (with another runner they stay equal). None: all alike.
        rng: generator; None means torch's default one, which a data loader seeds per worker.
    """

    def __init__(
        self,
        num_views: int,
        *,
        candidates: Sequence[float] = CANDIDATES,
        weights: Sequence[float] | str | None = None,
        rng: torch.Generator | None = None,
    ) -> None:
        check_candidates(candidates, num_views)
        self.num_views = num_views
        self.candidates = torch.tensor(candidates)
        self.by_loss = weights == BY_LOSS
        self.shares = None if weights is None else _shares(weights, len(candidates))
        self.rng = rng

    def plan(self, image: Image.Image, boxes: Tensor) -> ViewPlan:
        """See `ViewPolicy`."""
        del image
        rows = [self.candidates[self._order()] for _ in range(len(boxes))]
        sampled = torch.zeros(len(boxes), self.num_views)  # the first stays 0, the region
        for row, order in zip(sampled, rows):
            row[1:] = order[: self.num_views - 1]
        return ViewPlan(sampled)

    def _order(self) -> Tensor:
        """Some candidates, as they are drawn."""
        if self.shares is None:
            return torch.randperm(len(self.candidates), generator=self.rng)
        # One by one, as `multinomial` does, without those that are drawn already.
        return torch.multinomial(self.shares, self.num_views - 1 or 1, generator=self.rng)


class FixedScales:
    """The same scales for every region.

    Args:
        scales: V numbers in [0, 1], the first 0.
    """

    def __init__(self, scales: Sequence[float]) -> None:
        check_scales(scales)
        self.scales = torch.tensor([float(scale) for scale in scales])

    def plan(self, image: Image.Image, boxes: Tensor) -> ViewPlan:
        """See `ViewPolicy`."""
        del image
        return ViewPlan(self.scales.repeat(len(boxes), 1))


class ImagePrior:
    """Views whose content differs from the region, with a preference for small scales.

    Takes, n - 1 times, the candidate with the largest Hamming(h(region), h(view)) / scale.

    Args:
        num_views: V, with the region itself.
        hash: "phash" (imagehash) or "official" (the released code's bits).
        candidates: scales to choose from.
    """

    def __init__(
        self, num_views: int, *, hash: str = "phash", candidates: Sequence[float] = CANDIDATES
    ) -> None:
        check_candidates(candidates, num_views)
        if not all(candidates):  # scores are divided by it
            raise InputError(f"candidates: expected numbers above 0, got {list(candidates)}")
        if hash not in list(HASHES):  # it may be a list
            raise InputError(f"hash: expected one of {sorted(HASHES)}, got {hash!r}")
        self.num_views = num_views
        self.hash_image = HASHES[hash]
        # The released code may take a scale twice where no view differs at all; so does the policy
        # that reproduces it.
        self.taken = 0.0 if hash == "official" else -1.0
        self.candidates = np.asarray(candidates)

    def hashes(self, image: Image.Image, boxes: Tensor) -> list[list[imagehash.ImageHash]]:
        """R lists: the hash of the region, then those of its view at every candidate."""
        from imagehash import ImageHash

        hash_crops = self.hash_image(image)
        return [
            [ImageHash(bits.reshape(HASH_SIDE, HASH_SIDE)) for bits in hash_crops(views)]
            for views in self._frames(image, boxes)
        ]

    def scores(self, image: Image.Image, boxes: Tensor) -> NDArray[np.float64]:
        """Selection scores (R, candidates) of boxes (R, 4)."""
        return self._best_scores(image, boxes, len(self.candidates))

    def plan(self, image: Image.Image, boxes: Tensor) -> ViewPlan:
        """See `ViewPolicy`."""
        scores = self._best_scores(image, boxes, self.num_views - 1)
        scales = np.zeros((len(boxes), self.num_views), dtype=np.float32)
        rows = np.arange(len(boxes))
        for column in range(1, self.num_views):
            best = scores.argmax(axis=1)
            scales[:, column] = self.candidates[best]
            scores[rows, best] = self.taken
        return ViewPlan(torch.from_numpy(scales))

    def _frames(self, image: Image.Image, boxes: Tensor) -> NDArray[np.int64]:
        """(R, 1 + candidates, 4): the region in whole pixels, then its view at every candidate."""
        sizes = torch.tensor([image.size], dtype=torch.float32).expand(len(boxes), 2)
        scales = torch.tensor([0.0, *self.candidates], dtype=torch.float32).repeat(len(boxes), 1)
        frames: NDArray[np.int64] = whole_pixels(
            nest_boxes(boxes.float(), sizes, scales), *image.size
        ).numpy()
        return frames

    def _best_scores(self, image: Image.Image, boxes: Tensor, count: int) -> NDArray[np.float64]:
        """Scores (R, candidates), `count` of each row the best ones; -inf where it is below them.

        Large views cost most, and their scores are low: from the smallest scale on, a view is
        hashed only while the best score that it can have would be among the best.
        """
        scores = np.full((len(boxes), len(self.candidates)), -np.inf)
        if not count or not len(boxes):
            return scores
        frames = self._frames(image, boxes)
        hash_crops = self.hash_image(image)
        regions = hash_crops(frames[:, 0])
        for column in self.candidates.argsort(kind="stable"):
            worst = np.partition(scores, -count, axis=1)[:, -count]  # of the best ones so far
            (rows,) = (worst <= BITS / self.candidates[column]).nonzero()
            if not len(rows):
                break
            bits = hash_crops(frames[rows, 1 + column])
            scores[rows, column] = (bits != regions[rows]).sum(axis=1) / self.candidates[column]
        return scores


class TaskPrior:
    """Each task uses its own scales; every scale is encoded once.

    Args:
        scales: task -> scales, each list beginning with 0 and of the same length; None for the
            first of `TASK_SCALES`.
        num_views: V; None: that of the scales, or 3.

    Raises:
        InputError: scales that are not possible, or of another number.
    """

    def __init__(
        self, scales: Mapping[str, Sequence[float]] | None = None, *, num_views: int | None = None
    ) -> None:
        if scales is None:
            scales = default_task_scales(3 if num_views is None else num_views)
        check_task_scales(scales)
        own = len(next(iter(scales.values())))
        if num_views not in (None, own):
            raise InputError(
                f"num_views: expected {own}, as many as each task has scales, got {num_views!r}"
            )
        union = sorted({float(scale) for row in scales.values() for scale in row})
        self.scales = torch.tensor(union)
        self.routes = {
            task: tuple(union.index(float(scale)) for scale in row) for task, row in scales.items()
        }

    def plan(self, image: Image.Image, boxes: Tensor) -> ViewPlan:
        """See `ViewPolicy`."""
        del image
        return ViewPlan(self.scales.repeat(len(boxes), 1), self.routes)


def _shares(weights: Sequence[float] | str, count: int) -> Tensor:
    if weights == BY_LOSS:
        return torch.full((count,), 1 / count)
    numbers = not isinstance(weights, str) and isinstance(weights, Sequence)
    if not numbers or len(weights) != count or not all(_is_weight(weight) for weight in weights):
        raise InputError(
            f"weights: expected {BY_LOSS!r}, or a number above 0 for each of {count} candidates, "
            f"got {weights!r}"
        )
    given = torch.tensor([float(weight) for weight in weights])
    return given / given.sum()


def _is_weight(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < float("inf")


def default_task_scales(num_views: int) -> dict[str, tuple[float, ...]]:
    """The region and the best scales of each task, smallest first.

    >>> default_task_scales(3)["caption"]
    (0.0, 0.4, 0.5)
    """
    check_candidates(RECOGNITION, num_views)
    return {task: (0.0, *sorted(scales[: num_views - 1])) for task, scales in TASK_SCALES.items()}


MODEL_PRIORS: dict[str, type[ConfidencePrior | LearnedPrior]] = {
    "confidence": ConfidencePrior,
    "learned": LearnedPrior,
}
POLICIES: dict[str, Callable[..., ViewPolicy]] = {
    "random": RandomScales,
    "fixed": FixedScales,
    "image": ImagePrior,
    "task": TaskPrior,
    **MODEL_PRIORS,
}


def build_policy(name: str, options: Mapping[str, Any]) -> ViewPolicy:
    """Make the policy `name` from its own options.

    Raises:
        InputError: no such policy, or options it does not take; names the choices.
    """
    if name not in list(POLICIES):  # it may be a list
        raise InputError(f"view policy: expected one of {sorted(POLICIES)}, got {name!r}")
    try:
        policy: ViewPolicy = POLICIES[name](**options)
    except TypeError as error:  # an option the policy does not have, or one it lacks
        raise InputError(f"view policy {name!r}: {error}") from error
    return policy


def views_by_task(policy: ViewPolicy, tasks: Collection[str] = ()) -> set[int]:
    """Numbers of views that the tasks get from a policy; without tasks, of all views."""
    if isinstance(policy, (RandomScales, ImagePrior)):  # a plan would cost hashes
        return {policy.num_views}
    return _any_plan(policy).counts(tasks)


def crops_of(policy: ViewPolicy) -> int:
    """Number of views that are cropped of each region."""
    return int(_any_plan(policy).scales.shape[1])


def _any_plan(policy: ViewPolicy) -> ViewPlan:
    return policy.plan(Image.new("RGB", (8, 8)), torch.tensor([[2.0, 2.0, 6.0, 6.0]]))


def check_policy_name(views: Any) -> None:
    """Refuse what is neither a policy, nor the name of one, nor None.

    Raises:
        InputError: says what the choices are.
    """
    if isinstance(views, str):
        name, _, scales = views.partition(":")
        if name == "fixed":
            _fixed_scales(views, scales)
        elif views not in POLICIES:
            raise InputError(f"views: expected one of {sorted(POLICIES)}, got {views!r}")
    elif views is not None and not hasattr(views, "plan"):
        raise InputError(f"views: expected a name or an object with `plan`, got {views!r}")


def parse_policy(
    text: str,
    *,
    num_views: int,
    own: ViewPolicy | None = None,
    candidates: Sequence[float] | None = None,
) -> ViewPolicy:
    """Make a policy from one word: "image", "task", "random", or scales as in "fixed:0,0.5".

    Args:
        text: the word.
        num_views: V, of a task.
        own: policy that the model has been evaluated with; where the views of captions alone are
            chosen by the model, those of the other tasks stay as they are there.
        candidates: what the model's `scale_prior` chooses among.

    Raises:
        InputError: no such policy, or invalid scales.

    >>> parse_policy("fixed:0,0.5", num_views=2).scales
    tensor([0.0000, 0.5000])
    """
    name, _, scales = text.partition(":")
    if name == "fixed":
        return _fixed_scales(text, scales)
    options: dict[str, Any] = {"num_views": num_views}
    if name in MODEL_PRIORS:
        options["scales"] = _scales_without_captions(own)
    if name == "learned" and candidates is not None:
        options["candidates"] = candidates
    return build_policy(text, options)


def _scales_without_captions(policy: ViewPolicy | None) -> dict[str, list[float]] | None:
    if not isinstance(policy, (TaskPrior, ConfidencePrior, LearnedPrior)):
        return None
    routes = {task: route for task, route in policy.routes.items() if task != "caption"}
    scales = [round(scale, 6) for scale in policy.scales.tolist()]  # they are float32
    return {task: [scales[view] for view in route] for task, route in routes.items()} or None


def _fixed_scales(text: str, scales: str) -> FixedScales:
    try:
        return FixedScales([float(scale) for scale in scales.split(",")])
    except ValueError as error:
        raise InputError(f"views: expected scales as in fixed:0,0.5, got {text!r}") from error
