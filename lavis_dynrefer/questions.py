"""What is asked about regions: one type, checked where it is made, and passed on whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Union

from lavis_dynrefer.config import GenerationConfig
from lavis_dynrefer.errors import InputError, did_you_mean
from lavis_dynrefer.structures import AttributeInfo
from lavis_dynrefer.views.policies import ViewPolicy, check_policy_name
from lavis_dynrefer.vocab.prompts import plain_attribute
from lavis_dynrefer.vocab.word_lists import check_words

TASKS = ("caption", "tags", "attributes", "categories")
Attribute = Union[str, AttributeInfo]


@dataclass(frozen=True)
class Questions:
    """What is asked about every region of an image.

    Lists may be given as any sequence; they are kept as tuples.

    Args:
        tasks: what to answer, out of `TASKS`.
        attributes: words or OVAD-style records to score; None means the model's own list.
        categories: names to choose from; None means the model's own list.
        tags: words to tag with; None means the model's own list. Those found also steer the
            caption.
        controls: words every caption should mention.
        views: None for the model's own view policy; "image", "task", "random", or scales as in
            "fixed:0,0.5"; or a policy object.
        generation: beam search settings; None means the model's own.

    Raises:
        InputError: an unknown task or policy, or a list that does not hold words.
    """

    tasks: Sequence[str] = TASKS
    attributes: Sequence[Attribute] | None = None
    categories: Sequence[str] | None = None
    tags: Sequence[str] | None = None
    controls: Sequence[str] = ()
    views: str | ViewPolicy | None = None
    generation: GenerationConfig | None = None

    def __post_init__(self) -> None:
        for name in ("tasks", "attributes", "categories", "tags", "controls"):
            words = getattr(self, name)
            check_words(name, words)
            object.__setattr__(self, name, None if words is None else tuple(words))
        unknown = sorted(set(self.tasks) - set(TASKS))
        if unknown:
            raise InputError(f"tasks: expected some of {list(TASKS)}, got {unknown}")
        for attribute in self.attributes or ():
            if isinstance(attribute, str):
                plain_attribute(attribute)
        check_policy_name(self.views)

    @classmethod
    def of(cls, questions: Questions | None = None, **asked: Any) -> Questions:
        """The questions given whole, or made of keyword arguments.

        Raises:
            InputError: both are given, or an argument is unknown.
        """
        if questions is None:
            unknown = [name for name in asked if name not in _NAMES]
            if unknown:
                hint = did_you_mean(unknown[0], _NAMES) or f"; expected some of {_NAMES}"
                raise InputError(f"unknown question {unknown[0]!r}{hint}")
            return cls(**asked)
        if asked:
            raise InputError(f"questions are given whole, and {sorted(asked)} besides")
        return questions


_NAMES = [item.name for item in fields(Questions)]
