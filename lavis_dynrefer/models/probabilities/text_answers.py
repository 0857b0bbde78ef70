"""Attributes and categories by region-text contrast: texts asked about, their logits, answers.

An attribute's probability is the sigmoid of its calibrated logit, that of its best prompt. Of
categories at most one is right: independent sigmoids under this condition are a softmax over the
calibrated logits and a logit 0 for "none of these", and with a single name the sigmoid itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lavis_dynrefer.models.probabilities.calibration import on_host
from lavis_dynrefer.questions import Attribute, Questions
from lavis_dynrefer.structures import ScoredName
from lavis_dynrefer.vocab.prompts import attribute_prompts, category_prompt

if TYPE_CHECKING:
    from lavis_dynrefer.models.answering import RegionModel

Ranked = tuple[ScoredName, ...]


def contrast_answers(
    model: RegionModel, questions: Questions, queries: Mapping[str, Tensor]
) -> dict[str, list[Ranked]]:
    """Attributes by the sigmoid of their logits and categories by their logits, best first.

    Args:
        model: its contrast decoder scores the texts.
        questions: what is asked.
        queries: task -> (B, Q, D).
    """
    found = contrast_logits(model, questions, queries)
    answers = {}
    if "attributes" in found:
        names = [getattr(item, "name", item) for item in asked(questions, model, "attributes")]
        logits, (scale, bias) = found["attributes"]
        answers["attributes"] = _rank(names, logits.sigmoid(), (scale * logits + bias).sigmoid())
    if "categories" in found:
        logits, (scale, bias) = found["categories"]
        answers["categories"] = _rank(
            asked(questions, model, "categories"),
            logits,
            category_probabilities(scale * logits + bias),
        )
    return answers


def category_probabilities(calibrated: Tensor) -> Tensor:
    """Probabilities (B, K) of names of which at most one is right, from calibrated logits (B, K).

    What they leave of 1 is the probability of none.
    """
    none = torch.zeros_like(calibrated[:, :1])
    return torch.cat([calibrated, none], dim=1).softmax(dim=1)[:, :-1]


def contrast_logits(
    model: RegionModel, questions: Questions, queries: Mapping[str, Tensor]
) -> dict[str, tuple[Tensor, tuple[float, float]]]:
    """Logits on the CPU: of attributes (B, A), each of its best prompt, and categories (B, K).

    In one pass where the tasks share their queries; what is not asked, or has no names, is left
    out.

    Returns:
        Task -> logits, and the scale and bias that calibrate them.
    """
    prompts, sizes = _attribute_prompts(asked(questions, model, "attributes"))
    texts = {
        "attributes": prompts,
        "categories": _category_prompts(asked(questions, model, "categories")),
    }
    texts = {task: texts[task] for task in texts if task in questions.tasks and texts[task]}
    contrast, embed = model.contrast, model.embed_texts
    if len({id(queries[task]) for task in texts}) == 1:
        together = sum(texts.values(), ())
        scores = contrast(embed(together), queries[next(iter(texts))])
        numbers = [model.calibration.numbers(task, contrast) for task in texts]
        scores, pairs = on_host(scores, *numbers)
        parts = scores.split([len(part) for part in texts.values()], dim=1)
        found = dict(zip(texts, zip(parts, pairs)))
    else:
        found = {}
        for task, part in texts.items():
            scores = contrast(embed(part), queries[task])
            scores, (pair,) = on_host(scores, model.calibration.numbers(task, contrast))
            found[task] = scores, pair
    if "attributes" in found:
        logits, pair = found["attributes"]
        best = [group.amax(dim=1) for group in logits.split(sizes, dim=1)]
        found["attributes"] = torch.stack(best, dim=1), pair
    return found


def asked(questions: Questions, model: RegionModel, task: str) -> tuple[Any, ...]:
    """Attributes or categories in question: those named, else the model's own."""
    given = getattr(questions, task)
    return tuple(getattr(model, task) if given is None else given)


@lru_cache(maxsize=16)
def _attribute_prompts(
    attributes: tuple[Attribute, ...],
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Prompts of all attributes, and how many each has."""
    texts = [attribute_prompts(attribute) for attribute in attributes]
    return tuple(text for group in texts for text in group), tuple(map(len, texts))


@lru_cache(maxsize=16)
def _category_prompts(categories: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(category_prompt(name) for name in categories)


def _rank(names: Sequence[str], scores: Tensor, probabilities: Tensor) -> list[Ranked]:
    """Names with scores and probabilities (B, K), best first; ties keep the vocabulary's order."""
    order = scores.argsort(dim=1, descending=True, stable=True).tolist()
    rows = zip(scores.tolist(), probabilities.tolist(), order)
    return [
        tuple(ScoredName(names[column], row[column], shares[column]) for column in columns)
        for row, shares, columns in rows
    ]
