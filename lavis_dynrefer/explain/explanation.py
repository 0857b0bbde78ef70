"""Why an answer: the views the model saw, which task used which, and what each view adds.

What a view adds is measured by leaving it out: another view of the same region takes its place, the
region's own view for the others and the next smallest for the region's own, so that the model still
sees as many views as it was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lavis_dynrefer.images.mask_cover import FULL
from lavis_dynrefer.models.answering import Answerer, EncodedRegions
from lavis_dynrefer.models.region_encoder import ViewFeatures
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.questions import TASKS, Questions
from lavis_dynrefer.structures import Box, NamedScore, RegionPrediction
from lavis_dynrefer.views.nesting import nest_boxes, whole_pixels
from lavis_dynrefer.views.samples import MASKS

SCORED = ("attributes", "categories")


@dataclass(frozen=True)
class ViewExplanation:
    """One view of a region.

    Args:
        scale: 0 the region, 1 the whole image.
        frame: what the view shows, xyxy in pixels of the image.
        crop: what the model saw, S x S pixels, RGB.
        region: the region in pixels of the crop.
        tasks: the tasks that use this view.
        caption_gain: log-likelihood of the caption with all its views minus that without this one,
            in nats per token; positive where the view supports the caption. None where the caption
            does not use it.
        attributes: (name, score with all views minus score without this one), largest change first.
        categories: the same for the categories' logits.
    """

    scale: float
    frame: Box
    crop: Image.Image
    region: Box
    tasks: tuple[str, ...]
    caption_gain: float | None
    attributes: tuple[NamedScore, ...]
    categories: tuple[NamedScore, ...]


@dataclass(frozen=True)
class RegionExplanation:
    """A region's answers and the views they come from.

    Args:
        prediction: as `RegionPredictor.predict` returns it.
        views: the encoded views, smallest scale first.
        mask: if the region's cells counted by its mask, how much of each cell of a grid over the
            region is mask: rows of numbers from 0 to 255.
    """

    prediction: RegionPrediction
    views: tuple[ViewExplanation, ...]
    mask: tuple[tuple[int, ...], ...] | None = None


def explain(
    predictor: RegionPredictor,
    encoded: EncodedRegions,
    *,
    predictions: Sequence[RegionPrediction] | None = None,
    questions: Questions | None = None,
    **asked: Any,
) -> list[RegionExplanation]:
    """Say what each view contributed to the answers about encoded regions.

    With V views this takes about V times as long as answering; no view is encoded again.

    Args:
        predictor: encoded the regions.
        encoded: what `RegionPredictor.encode` returned.
        predictions: what `RegionPredictor.answer` returned to the same questions; None: computed
            here.
        questions: what is answered; or name the fields of `Questions` as keyword arguments.

    Returns:
        One explanation per region, in order.

    Raises:
        InputError: invalid questions, or other views than those encoded.
    """
    questions = encoded.check(Questions.from_arguments(questions, **asked), predictor.model)
    if predictions is None:
        predictions = predictor.answer(encoded, questions)
    steering: Sequence[RegionPrediction] = predictions
    steered = "caption" in questions.tasks and predictor.model.caption_config.steer_by_tags
    if steered and "tags" not in questions.tasks:
        steering = predictor.answer(encoded, replace(questions, tasks=("tags",)))
    explanations: list[RegionExplanation] = []
    for sample, features in zip(encoded.samples, encoded.features):
        rows = slice(len(explanations), len(explanations) + len(sample["views"]))
        with predictor.using_model():
            part = _Examination(
                predictor.answerer,
                sample,
                features,
                questions,
                predictions[rows],
                [prediction.tags for prediction in steering[rows]],
            )
            explanations += part.explain(encoded.image_size)
    return explanations


@dataclass
class _Examination:
    """A few encoded regions of one image, decoded without each view in turn."""

    answerer: Answerer
    sample: Mapping[str, Any]
    features: ViewFeatures
    questions: Questions
    predictions: Sequence[RegionPrediction]
    tags: Sequence[Sequence[NamedScore]]  # that steered the captions

    def __post_init__(self) -> None:
        self._known_queries: dict[tuple[int, ...], Tensor] = {}
        every = list(range(self.sample["views"].shape[1]))
        routes = self.sample["routes"]
        self.routes = {
            task: routes[task][0].tolist() if task in routes else every for task in TASKS
        }

    def explain(self, image_size: tuple[int, int]) -> list[RegionExplanation]:
        """One explanation per region."""
        scales = self.sample["scales"]
        sizes = torch.tensor([image_size], dtype=torch.float32).expand(len(scales), 2)
        nested = nest_boxes(self.sample["image_boxes"], sizes, scales)
        frames = whole_pixels(nested, *image_size).tolist()
        without = [self._without(view) for view in range(scales.shape[1])]
        masks = [_mask_or_none(grid) for grid in self.sample.get(MASKS, [None] * len(frames))]
        return [
            RegionExplanation(
                prediction,
                tuple(
                    self._view(row, view, frames[row][view], without[view])
                    for view in scales[row].argsort(stable=True).tolist()
                ),
                mask,
            )
            for row, (prediction, mask) in enumerate(zip(self.predictions, masks))
        ]

    def _view(
        self, row: int, view: int, frame: Sequence[int], without: Mapping[str, Sequence[Any]]
    ) -> ViewExplanation:
        prediction, sample = self.predictions[row], self.sample
        changes = {}
        for task in SCORED:
            rest = dict(without[task][row]) if task in without else {}
            changes[task] = _largest_first(
                [(name, score - rest[name]) for name, score in getattr(prediction, task) if rest]
            )
        return ViewExplanation(
            scale=round(float(sample["scales"][row, view]), 4),
            frame=(frame[0], frame[1], frame[2], frame[3]),
            crop=Image.fromarray(sample["views"][row, view].permute(1, 2, 0).numpy()),
            region=tuple(sample["boxes"][row, view].tolist()),
            tasks=tuple(task for task in self.questions.tasks if view in self.routes[task]),
            caption_gain=without["caption"][row] if "caption" in without else None,
            attributes=changes["attributes"],
            categories=changes["categories"],
        )

    def _without(self, view: int) -> dict[str, Sequence[Any]]:
        """Answers without a view, for the tasks that use it; for captions its gain."""
        tasks = [
            task for task in self.questions.tasks if view in self.routes[task] and task != "tags"
        ]
        queries = {task: self._queries(self._route_without(task, view)) for task in tasks}
        scored = tuple(task for task in tasks if task in SCORED)
        found = dict(self.answerer.decode(queries, replace(self.questions, tasks=scored)))
        if "caption" in tasks:
            less = self._log_likelihoods(queries["caption"])
            found["caption"] = [full - rest for full, rest in zip(self._full_likelihoods, less)]
        return found

    @cached_property
    def _full_likelihoods(self) -> list[float]:
        """Log-likelihoods of the captions with all their views."""
        return self._log_likelihoods(self._queries(self.routes["caption"]))

    def _route_without(self, task: str, view: int) -> list[int]:
        route = self.routes[task]
        others = [index for index in route if index != view]
        stand_in = others[0] if others else view
        return [stand_in if index == view else index for index in route]

    def _queries(self, route: Sequence[int]) -> Tensor:
        """Queries (B, Q, D) from the views of a route; tasks and views share them."""
        key = tuple(route)
        if key not in self._known_queries:
            rows = {"all": torch.tensor([route] * len(self.predictions))}
            found = self.answerer.queries_by_task(self.features, rows, rows)
            self._known_queries[key] = found["all"]
        return self._known_queries[key]

    def _log_likelihoods(self, queries: Tensor) -> list[float]:
        """Of the captions, per token, steered by the same words as when they were generated."""
        prompts = [self.answerer.prompt(self.questions.controls, tags) for tags in self.tags]
        captions = [prediction.caption or "" for prediction in self.predictions]
        return (-self.answerer.caption_losses(queries, prompts, captions)).tolist()


def _mask_or_none(grid: Tensor | None) -> tuple[tuple[int, ...], ...] | None:
    """A grid as rows of numbers; None for that of a region without a mask."""
    if grid is None or bool((grid == FULL).all()):
        return None
    return tuple(map(tuple, grid.tolist()))


def _largest_first(changes: Sequence[NamedScore]) -> tuple[NamedScore, ...]:
    return tuple(sorted(changes, key=lambda change: -abs(change[1])))
