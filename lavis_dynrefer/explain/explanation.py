"""Why an answer: the views the model saw, which task used which, and what each view adds.

What a view adds is measured by leaving it out: another view of the same region takes its place, the
region's own view for the others and the next smallest for the region's own, so that the model still
sees as many views as it was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lavis_dynrefer.images import open_image
from lavis_dynrefer.images.opening import ImageInput
from lavis_dynrefer.models.answering import (
    TASKS,
    Attribute,
    Questions,
    answer,
    questions_to,
    steering_words,
)
from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.structures import Box, NamedScore, RegionPrediction
from lavis_dynrefer.views.nesting import nest_boxes
from lavis_dynrefer.views.nesting import pixel_boxes as whole_pixels
from lavis_dynrefer.views.policies import ViewPolicy
from lavis_dynrefer.vocab.control_words import control_prompt
from lavis_dynrefer.vocab.word_lists import check_words

SCORED = ("attributes", "categories")


@dataclass(frozen=True)
class ViewExplanation:
    """One view of a region.

    Args:
        scale: 0 the region, 1 the whole image.
        frame: what the view shows, xyxy in pixels of the image.
        crop: what the model saw, S x S pixels, RGB.
        region: the region in pixels of the crop.
        tasks: the tasks that look at this view.
        caption_gain: log-likelihood of the caption with all its views minus that without this one,
            in nats per token; above 0 where the view speaks for the caption. None where the caption
            does not look at it.
        attributes: (name, score with all views minus score without this one), largest change first.
        categories: the same of the categories' logits.
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
        prediction: as `RegionPredictor.predict` gives it.
        views: the encoded views, smallest scale first.
    """

    prediction: RegionPrediction
    views: tuple[ViewExplanation, ...]


def explain(
    predictor: RegionPredictor,
    image: ImageInput,
    boxes: Any,
    *,
    format: str = "xyxy",
    normalised: bool | None = None,
    attributes: Sequence[Attribute] | None = None,
    categories: Sequence[str] | None = None,
    tags: Sequence[str] | None = None,
    controls: Sequence[str] = (),
    tasks: Sequence[str] = TASKS,
    views: str | ViewPolicy | None = None,
) -> list[RegionExplanation]:
    """Answer as `RegionPredictor.predict` does, and say what each view contributed.

    Costs about as many times more than the answers as there are views; the views themselves are
    encoded once.

    Args:
        predictor: gives model and views.
        image: path, PIL image or array.
        boxes: (R, 4).
        format: see `RegionPredictor.predict_iter`, also for the other arguments.
        normalised: see there.
        attributes: see there.
        categories: see there.
        tags: see there.
        controls: see there.
        tasks: see there.
        views: see there.

    Raises:
        ValueError, FileNotFoundError: as `RegionPredictor.predict_iter`.
    """
    model = predictor.model
    asked = questions_to(
        model, tasks=tasks, attributes=attributes, categories=categories, tags=tags
    )
    check_words("controls", controls)
    image = open_image(image)
    explanations: list[RegionExplanation] = []
    for sample in predictor.look(image, boxes, format=format, normalised=normalised, views=views):
        with predictor.using_model():
            explanations += _Examination(model, sample, asked, tuple(controls)).explain(image)
    return explanations


class _Examination:
    """Some regions of one image: encoded once, answered with all views and without each."""

    def __init__(
        self,
        model: DynRefer,
        sample: Mapping[str, Any],
        asked: Questions,
        controls: tuple[str, ...],
    ) -> None:
        self.model = model
        self.sample = sample
        self.asked = asked
        self.controls = [controls] * len(sample["views"])
        everything = list(range(sample["views"].shape[1]))
        self.routes = {
            task: sample["routes"][task][0].tolist() if task in sample["routes"] else everything
            for task in TASKS
        }
        self.features = model.encode_views(
            sample["views"].to(model.device), sample["boxes"].to(model.device)
        )
        # With tags: they steer the captions.
        everything_asked = replace(asked, tasks=tuple(dict.fromkeys((*asked.tasks, "tags"))))
        self.predictions = model.answer_regions(
            self.features, sample, sample["routes"], everything_asked, self.controls
        )

    def explain(self, image: Image.Image) -> list[RegionExplanation]:
        """One explanation per region."""
        size = torch.tensor([image.size], dtype=torch.float32).expand(len(self.predictions), 2)
        nested = nest_boxes(self.sample["image_boxes"], size, self.sample["scales"])
        frames = whole_pixels(nested, *image.size).tolist()
        gains = [self._without(view) for view in range(self.sample["views"].shape[1])]
        return [
            RegionExplanation(
                prediction if "tags" in self.asked.tasks else replace(prediction, tags=()),
                tuple(
                    self._view(row, view, frames[row][view], gains[view])
                    for view in self.sample["scales"][row].argsort(stable=True).tolist()
                ),
            )
            for row, prediction in enumerate(self.predictions)
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
            tasks=tuple(task for task in self.asked.tasks if view in self.routes[task]),
            caption_gain=without["caption"][row] if "caption" in without else None,
            attributes=changes["attributes"],
            categories=changes["categories"],
        )

    def _without(self, view: int) -> dict[str, Sequence[Any]]:
        """Answers without a view, for the tasks that look at it; for captions its gain."""
        tasks = [task for task in self.asked.tasks if view in self.routes[task] and task != "tags"]
        queries = {task: self._queries(self._route_without(task, view)) for task in tasks}
        scored = tuple(task for task in tasks if task in SCORED)
        rest = replace(self.asked, tasks=scored)
        found = dict(answer(self.model, queries, rest, self.controls))
        if "caption" in tasks:
            full = self._log_likelihoods(self._queries(self.routes["caption"]))
            less = self._log_likelihoods(queries["caption"])
            found["caption"] = [with_it - without for with_it, without in zip(full, less)]
        return found

    def _route_without(self, task: str, view: int) -> list[int]:
        route = self.routes[task]
        others = [index for index in route if index != view]
        stand_in = others[0] if others else view
        return [stand_in if index == view else index for index in route]

    def _queries(self, route: Sequence[int]) -> Tensor:
        rows = torch.tensor([route] * len(self.predictions), device=self.features.summary.device)
        return self.model.encode_regions(self.features, rows)

    def _log_likelihoods(self, queries: Tensor) -> list[float]:
        """Of the captions given, per token, steered by the same words as when they were written."""
        values = []
        for row, prediction in enumerate(self.predictions):
            words = steering_words(self.model, self.controls[row], prediction.tags)
            loss = self.model.captioning.loss(
                queries[row : row + 1], [control_prompt(words)], [prediction.caption or ""]
            )
            values.append(-float(loss))
        return values


def _largest_first(changes: Sequence[NamedScore]) -> tuple[NamedScore, ...]:
    return tuple(sorted(changes, key=lambda change: -abs(change[1])))
