"""From encoded regions to answers in words and numbers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from lavis_dynrefer.config import CaptioningConfig
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.choosing.scale_choice import choose_views
from lavis_dynrefer.models.choosing.scale_prior import ScalePrior
from lavis_dynrefer.models.decoders.captioning import CaptionDecoder
from lavis_dynrefer.models.decoders.contrast import ContrastDecoder
from lavis_dynrefer.models.decoders.tagging import TagDecoder
from lavis_dynrefer.models.device_errors import FittingSize
from lavis_dynrefer.models.precision import NumberFormats
from lavis_dynrefer.models.probabilities.calibration import Calibration
from lavis_dynrefer.models.probabilities.text_answers import contrast_answers
from lavis_dynrefer.models.region_encoder import ViewFeatures
from lavis_dynrefer.models.texts.text_bank import TextBank
from lavis_dynrefer.questions import TASKS, Questions
from lavis_dynrefer.structures import AttributeInfo, NamedScore, RegionPrediction
from lavis_dynrefer.views.policies import ViewPolicy
from lavis_dynrefer.views.samples import CHOICE, MASKS, rows_of
from lavis_dynrefer.vocab.control_words import control_prompt

K = TypeVar("K")
T = TypeVar("T")
Routes = Mapping[str, Tensor]  # task -> (B, n) indices into V; a task without one uses all views


class RegionModel(Protocol):
    """What an `Answerer` needs of a model; `DynRefer` is one."""

    tagging: TagDecoder
    contrast: ContrastDecoder
    captioning: CaptionDecoder
    embed_texts: TextBank
    calibration: Calibration
    caption_config: CaptioningConfig
    scale_prior: ScalePrior | None
    attributes: tuple[AttributeInfo, ...]
    categories: tuple[str, ...]
    device: torch.device

    def encode_views(
        self, views: Tensor, boxes: Tensor, masks: Tensor | None = None
    ) -> ViewFeatures:
        """Encode every view once."""

    def region_queries(self, features: ViewFeatures, route: Tensor | None = None) -> Tensor:
        """Queries (B, Q, D) from all views, or from those in `route` (B, n)."""


@dataclass(frozen=True)
class EncodedRegions:
    """Regions of one image, their views encoded; can be asked any number of questions.

    Args:
        image_size: width and height of the image in pixels.
        samples: what the view processor returned, a few regions in each.
        features: the encoded views of each sample.
        views: the view policy, as in `Questions`.
        model: encoded the views.
        masks_as: what masks were used as, as in `Questions`.
    """

    image_size: tuple[int, int]
    samples: tuple[Mapping[str, Any], ...]
    features: tuple[ViewFeatures, ...]
    views: str | ViewPolicy
    model: RegionModel
    masks_as: str | None = None

    def __len__(self) -> int:
        return sum(len(sample["views"]) for sample in self.samples)

    def check(self, questions: Questions, model: RegionModel) -> Questions:
        """The questions, if they are about the encoded views and the model has encoded them.

        Raises:
            InputError: another view policy, another use of masks, or another model.
        """
        if model is not self.model:
            raise InputError("the regions were encoded by another model; encode them again")
        if questions.views not in (None, self.views):
            raise InputError(
                f"views: the regions were encoded with {self.views!r}, got {questions.views!r}; "
                "encode them again"
            )
        if questions.masks_as not in (None, self.masks_as):
            raise InputError(
                f"masks_as: the regions were encoded with {self.masks_as!r}, got "
                f"{questions.masks_as!r}; encode them again"
            )
        return questions


class Answerer:
    """Answers questions about regions with the decoders of a model.

    Args:
        model: in eval mode; the caller decides about gradients.
        formats: number formats of its parts; None: those of the caller's autocast, if any.
        fitting: how many regions at once are known to fit into the memory.
    """

    def __init__(
        self,
        model: RegionModel,
        formats: NumberFormats | None = None,
        fitting: FittingSize | None = None,
    ) -> None:
        self.model = model
        self.formats = formats
        self._fitting = fitting or FittingSize()

    def computing(self, part: str) -> AbstractContextManager[object]:
        """Compute in the number format of a part of the model."""
        return nullcontext() if self.formats is None else self.formats.of(part, self.model.device)

    def encode(self, sample: Mapping[str, Any]) -> ViewFeatures:
        """Encode the views of a sample on the model's device, with its masks if it has any."""
        device = self.model.device
        names = ("views", "boxes", MASKS)
        with self.computing("vit"):
            return self.model.encode_views(
                *(sample[name].to(device) for name in names if name in sample)
            )

    def look(
        self, sample: Mapping[str, Any], tasks: Collection[str] = TASKS
    ) -> tuple[Mapping[str, Any], ViewFeatures]:
        """Encode a sample; where the model chooses views, only those in use are left of them."""
        if CHOICE in sample:
            return choose_views(self, sample, tasks)
        return sample, self.encode(sample)

    def encode_in_parts(
        self, sample: Mapping[str, Any], size: int
    ) -> list[tuple[Mapping[str, Any], ViewFeatures]]:
        """Encode `size` regions at once, or as many as fit into the memory.

        Returns:
            The parts of the sample with their features.

        Raises:
            TooLittleMemoryError: the memory does not suffice for one region.
        """

        def encode(rows: slice) -> list[tuple[Mapping[str, Any], ViewFeatures]]:
            # Not as inference tensors: callers keep the features, and may train on them.
            with torch.inference_mode(False), torch.no_grad():
                return [self.look(rows_of(sample, rows))]

        name = partial(_describe, sample)
        return self._fitting.in_parts(encode, len(sample["views"]), size, name)

    def answer_in_parts(
        self,
        sample: Mapping[str, Any],
        questions: Questions,
        size: int,
        features: ViewFeatures | None = None,
    ) -> list[RegionPrediction]:
        """Answer about `size` regions at once, or as many as fit into the memory.

        Args:
            sample: as for `encode` and `answer`.
            questions: what to answer.
            size: most regions at once.
            features: of the sample, if it is encoded already.

        Returns:
            One prediction per region.

        Raises:
            TooLittleMemoryError: the memory does not suffice for one region.
        """

        def answer(part: Mapping[str, Any], encoded: ViewFeatures) -> list[RegionPrediction]:
            return self.answer(part, encoded, questions)

        return self.in_parts(answer, sample, size, features, self._decoded_tasks(questions.tasks))

    def in_parts(
        self,
        work: Callable[[Mapping[str, Any], ViewFeatures], list[T]],
        sample: Mapping[str, Any],
        size: int,
        features: ViewFeatures | None = None,
        tasks: Collection[str] = TASKS,
    ) -> list[T]:
        """As `answer_in_parts`, for any work on encoded regions; its results in one list.

        Args:
            work: part of the sample, its features -> results.
            sample: as for `encode`.
            size: most regions at once.
            features: of the sample, if it is encoded already.
            tasks: that the work is about.
        """

        def take(rows: slice) -> list[T]:
            part = rows_of(sample, rows)
            if features is None:
                return work(*self.look(part, tasks))
            return work(part, features.rows(rows))

        name = partial(_describe, sample)
        return self._fitting.in_parts(take, len(sample["views"]), size, name)

    def answer(
        self, sample: Mapping[str, Any], features: ViewFeatures, questions: Questions
    ) -> list[RegionPrediction]:
        """One prediction per region.

        Args:
            sample: scales (B, V), image_boxes (B, 4) and routes of the regions.
            features: what `encode` returned for the sample.
            questions: what to answer.
        """
        names = ("scales", "image_boxes")
        known = {**{name: sample[name] for name in names}, **(sample.get("routes") or {})}
        known = _move_together(known, torch.device("cpu"))
        scales, boxes = (known.pop(name) for name in names)
        queries = self.queries_by_task(features, known, self._decoded_tasks(questions.tasks))
        answers = self.decode(queries, questions)
        if len(answers.get("caption", boxes)) != len(boxes):
            raise InputError("generation: a prediction has one caption; `generate` gives several")
        used = scales_by_task(scales, known, questions.tasks)
        answers["familiarity"] = self.familiarity(features) or [None] * len(boxes)
        return [
            RegionPrediction(
                box=tuple(box),
                scales=used[row],
                **{name: values[row] for name, values in answers.items()},
            )
            for row, box in enumerate(boxes.tolist())
        ]

    def familiarity(self, features: ViewFeatures) -> list[float] | None:
        """How like the training regions each region looks; None if the model was not fitted."""
        found: list[float] | None = self.model.calibration.familiarity(features.summary[:, 0])
        return found

    def captions(
        self, sample: Mapping[str, Any], features: ViewFeatures, questions: Questions
    ) -> list[str]:
        """The captions alone, which may be several of each region; arguments as for `answer`."""
        queries = self.queries_of(sample, features, self._decoded_tasks(("caption",)))
        return list(self.decode(queries, questions)["caption"])

    def queries_of(
        self, sample: Mapping[str, Any], features: ViewFeatures, tasks: Iterable[str]
    ) -> dict[str, Tensor]:
        """Queries (B, Q, D) per task, by the routes of the sample."""
        routes = _move_together(sample.get("routes") or {}, torch.device("cpu"))
        return self.queries_by_task(features, routes, tasks)

    def queries_by_task(
        self, features: ViewFeatures, routes: Routes, tasks: Iterable[str]
    ) -> dict[str, Tensor]:
        """Queries (B, Q, D) per task; tasks that share a route share the work.

        Args:
            features: of B regions.
            routes: on the CPU.
            tasks: of those the queries are needed.
        """
        every = [list(range(features.summary.shape[1]))] * len(features.summary)
        rows = {task: routes[task].tolist() if task in routes else every for task in tasks}
        keys = {task: tuple(map(tuple, rows[task])) if rows[task] != every else () for task in rows}
        distinct = {key: routes[task] for task, key in keys.items() if key}
        moved = _move_together(distinct, features.summary.device)
        queries = {
            key: self.queries(features, moved.get(key)) for key in dict.fromkeys(keys.values())
        }
        return {task: queries[key] for task, key in keys.items()}

    def queries(self, features: ViewFeatures, route: Tensor | None = None) -> Tensor:
        """Queries (B, Q, D) from all views, or from those in `route` (B, n)."""
        with self.computing("region"):
            return self.model.region_queries(features, route)

    def decode(
        self, queries: Mapping[str, Tensor], questions: Questions
    ) -> dict[str, Sequence[Any]]:
        """Fields of `RegionPrediction` -> B values, from task -> queries (B, Q, D).

        Captions are steered by the control words and, where the model does so, by the tags found;
        `queries["tags"]` is then needed too. A `CaptionSearch` gives all captions that it asks for.
        """
        tasks, model = questions.tasks, self.model
        answers: dict[str, Sequence[Any]] = {}
        if "tags" in tasks or ("caption" in tasks and model.caption_config.steer_by_tags):
            tags = model.tagging.tags if questions.tags is None else questions.tags
            with self.computing("heads"):
                logits = model.tagging(model.embed_texts(tags), queries["tags"])
            answers["tags"] = model.tagging.names(logits, tags, model.calibration)
        with self.computing("heads"):
            answers.update(contrast_answers(model, questions, queries))
        if "caption" in tasks:
            found = answers.get("tags") or [()] * len(queries["caption"])
            prompts = [self.prompt(questions.controls, tags) for tags in found]
            search = questions.generation or model.caption_config.generation
            with self.computing("llm"):
                answers["caption"], answers["caption_score"] = model.captioning.generate(
                    queries["caption"], prompts, search
                )
        if "tags" not in tasks:
            answers.pop("tags", None)
        return answers

    def caption_losses(
        self, queries: Tensor, prompts: Sequence[str], captions: Sequence[str]
    ) -> Tensor:
        """Mean cross-entropy per token (B,) of captions of regions with queries (B, Q, D)."""
        with self.computing("llm"):
            return self.model.captioning.losses(queries, prompts, captions)

    def prompt(self, controls: Sequence[str], tags: Sequence[NamedScore]) -> str:
        """Control prompt of one caption: the words asked for, then the tags found."""
        found = tags if self.model.caption_config.steer_by_tags else ()
        return control_prompt([*controls, *(tag for tag, _ in found if tag not in controls)])

    def _decoded_tasks(self, tasks: Sequence[str]) -> list[str]:
        """Tasks whose queries are needed: captions may be steered by the tags found."""
        steered = "caption" in tasks and self.model.caption_config.steer_by_tags
        return list(dict.fromkeys([*tasks, *(["tags"] if steered else [])]))


def _move_together(tensors: Mapping[K, Tensor], device: torch.device) -> dict[K, Tensor]:
    """Small tensors on a device, with one copy for all: each would stop a GPU for a moment."""
    away = [name for name, tensor in tensors.items() if tensor.device != device]
    if not away:
        return dict(tensors)
    together = torch.cat([tensors[name].flatten() for name in away]).to(device)
    parts = together.split([tensors[name].numel() for name in away])
    moved = {
        name: part.view(tensors[name].shape).to(tensors[name].dtype)
        for name, part in zip(away, parts)
    }
    return {**tensors, **moved}


def _describe(sample: Mapping[str, Any], row: int) -> str:
    box = [round(value, 1) for value in sample["image_boxes"][row].tolist()]
    count, _, height, width = sample["views"].shape[1:]
    return f"box {box} of the image, {count} views of {width} x {height} pixels"


def scales_by_task(
    scales: Tensor, routes: Routes, tasks: Sequence[str]
) -> list[dict[str, tuple[float, ...]]]:
    """For each region, the scales that each task used, from scales (B, V)."""
    used = {task: scales.gather(1, routes[task]) if task in routes else scales for task in tasks}
    rows = {
        task: [tuple(round(value, 4) for value in row) for row in values.tolist()]
        for task, values in used.items()
    }
    return [{task: rows[task][row] for task in tasks} for row in range(len(scales))]
