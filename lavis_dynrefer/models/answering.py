"""From a region's queries to answers in words and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Union

import torch
from torch import Tensor

from lavis_dynrefer.config import GenerationConfig
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.structures import AttributeInfo, NamedScore
from lavis_dynrefer.vocab.control_words import control_prompt
from lavis_dynrefer.vocab.prompts import attribute_prompts, category_prompt, plain_attribute
from lavis_dynrefer.vocab.word_lists import check_words

if TYPE_CHECKING:
    from lavis_dynrefer.models.dynrefer import DynRefer

TASKS = ("caption", "tags", "attributes", "categories")
Attribute = Union[str, AttributeInfo]


def check_tasks(tasks: Sequence[str]) -> None:
    """Refuse tasks that are none of `TASKS`.

    Raises:
        ValueError: names them.
    """
    unknown = sorted(set(tasks) - set(TASKS))
    if unknown:
        raise InputError(f"unknown tasks {unknown}; choose from {list(TASKS)}")


@dataclass(frozen=True)
class Questions:
    """What is asked about every region.

    Args:
        tasks: some of `TASKS`.
        attributes: vocabulary; nothing is answered where it is empty.
        categories: vocabulary; nothing is answered where it is empty.
        generation: beam search settings.
        tags: vocabulary; None means the model's own, and none are found where it is empty.

    Raises:
        ValueError: an unknown task.
    """

    tasks: tuple[str, ...]
    attributes: tuple[Attribute, ...]
    categories: tuple[str, ...]
    generation: GenerationConfig
    tags: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_tasks(self.tasks)

    def read_by_decoders(self) -> tuple[str, ...]:
        """Tasks whose queries are needed: captions are steered by the tags found."""
        return tuple(dict.fromkeys((*self.tasks, *(["tags"] if "caption" in self.tasks else []))))


def questions_to(
    model: DynRefer,
    *,
    tasks: Sequence[str],
    attributes: Sequence[Attribute] | None,
    categories: Sequence[str] | None,
    tags: Sequence[str] | None,
    generation: GenerationConfig | None = None,
) -> Questions:
    """Questions to a model, whose own lists take the place of those that are None.

    Raises:
        ValueError: an unknown task, or a list that holds no words; names the argument.
    """
    check_words("tasks", tasks)
    check_words("attributes", attributes)
    check_words("categories", categories)
    check_words("tags", tags)
    for attribute in attributes or ():
        if isinstance(attribute, str):
            plain_attribute(attribute)  # raises where it is no word
    return Questions(
        tasks=tuple(tasks),
        attributes=model.attributes if attributes is None else tuple(attributes),
        categories=model.categories if categories is None else tuple(categories),
        generation=generation or model.caption_config.generation,
        tags=None if tags is None else tuple(tags),
    )


def answer(
    model: DynRefer,
    queries: Mapping[str, Tensor],
    questions: Questions,
    controls: Sequence[Sequence[str]],
) -> dict[str, Sequence[Any]]:
    """Answer all questions for B regions.

    Args:
        model: its decoders are used.
        queries: task -> (B, Q, D).
        questions: what to answer.
        controls: words each caption should be about, before the tags the model finds itself.

    Returns:
        Fields of `RegionPrediction` -> B values.
    """
    tasks = questions.tasks
    answers: dict[str, Sequence[Any]] = {}
    if "tags" in tasks or ("caption" in tasks and model.caption_config.steer_by_tags):
        tags = model.tagging.tags if questions.tags is None else questions.tags
        logits = model.tagging(model.embed_texts(tags), queries["tags"])
        answers["tags"] = model.tagging.names(logits, tags)
    answers.update(_contrast(model, questions, queries))
    if "caption" in tasks:
        asked = [
            control_prompt(steering_words(model, words, tags))
            for words, tags in zip(controls, answers.get("tags") or [()] * len(controls))
        ]
        answers["caption"], answers["caption_score"] = model.captioning.generate(
            queries["caption"], asked, questions.generation
        )
    if "tags" not in tasks:
        answers.pop("tags", None)
    return answers


def steering_words(model: DynRefer, words: Sequence[str], tags: Sequence[NamedScore]) -> list[str]:
    """What a caption is steered by: the words asked for, then the tags found if the model does."""
    found = tags if model.caption_config.steer_by_tags else ()
    return [*words, *(tag for tag, _ in found if tag not in words)]


def _contrast(
    model: DynRefer, questions: Questions, queries: Mapping[str, Tensor]
) -> dict[str, list[tuple[NamedScore, ...]]]:
    """Sigmoid score of each attribute, the best of its prompts, and raw logit of each category."""
    attributes, sizes = _attribute_texts(questions.attributes)
    categories = _category_texts(questions.categories)
    texts = {"attributes": attributes, "categories": categories}
    texts = {task: texts[task] for task in texts if task in questions.tasks and texts[task]}
    logits = _logits(model, texts, queries)
    answers = {}
    if "attributes" in logits:
        groups = logits["attributes"].sigmoid().split(sizes, dim=1)
        best = torch.stack([group.amax(dim=1) for group in groups], dim=1)
        names = [getattr(item, "name", item) for item in questions.attributes]
        answers["attributes"] = _rank(names, best)
    if "categories" in logits:
        answers["categories"] = _rank(questions.categories, logits["categories"])
    return answers


def _logits(
    model: DynRefer, texts: Mapping[str, tuple[str, ...]], queries: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Logits (B, K) of each task's texts, in one pass where the tasks share their queries."""
    if len({id(queries[task]) for task in texts}) == 1:
        together = sum(texts.values(), ())
        scores = model.contrast(model.embed_texts(together), queries[next(iter(texts))])
        parts = scores.float().cpu().split([len(part) for part in texts.values()], dim=1)
        return dict(zip(texts, parts))
    return {
        task: model.contrast(model.embed_texts(part), queries[task]).float().cpu()
        for task, part in texts.items()
    }


@lru_cache(maxsize=16)
def _attribute_texts(attributes: tuple[Attribute, ...]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Prompts of all attributes, and how many each has."""
    texts = [attribute_prompts(attribute) for attribute in attributes]
    return tuple(text for group in texts for text in group), tuple(map(len, texts))


@lru_cache(maxsize=16)
def _category_texts(categories: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(category_prompt(name) for name in categories)


def _rank(names: Sequence[str], scores: Tensor) -> list[tuple[NamedScore, ...]]:
    """Pair names with scores (B, K), best first; ties keep the vocabulary's order."""
    order = scores.argsort(dim=1, descending=True, stable=True).tolist()
    return [
        tuple((names[column], row[column]) for column in columns)
        for row, columns in zip(scores.tolist(), order)
    ]


def scales_by_task(
    scales: Tensor, routes: Mapping[str, Tensor], tasks: Sequence[str]
) -> list[dict[str, tuple[float, ...]]]:
    """For each region, the scales each task looked at.

    Args:
        scales: (B, V).
        routes: task -> (B, n) indices into V; a task without a route uses all views.
        tasks: the tasks to report.
    """
    used = {
        task: scales.gather(1, routes[task].to(scales.device)) if task in routes else scales
        for task in tasks
    }
    rows = {
        task: [tuple(round(value, 4) for value in row) for row in values.tolist()]
        for task, values in used.items()
    }
    return [{task: rows[task][row] for task in tasks} for row in range(len(scales))]
