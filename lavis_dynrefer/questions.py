"""What is asked about regions: one dataclass, validated when it is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Union

from lavis_dynrefer.config import GenerationConfig
from lavis_dynrefer.errors import InputError, did_you_mean
from lavis_dynrefer.settings import from_mapping
from lavis_dynrefer.structures import AttributeInfo
from lavis_dynrefer.views.policies import ViewPolicy, check_policy_name
from lavis_dynrefer.views.regions import check_masks_as
from lavis_dynrefer.vocab.prompts import plain_attribute
from lavis_dynrefer.vocab.word_lists import check_words

TASKS = ("caption", "tags", "attributes", "categories")
Attribute = Union[str, AttributeInfo]


@dataclass(frozen=True)
class Questions:
    """What is asked about every region of an image.

    Words may be given as any iterable; they are kept as tuples.

    Args:
        tasks: what to answer, out of `TASKS`.
        attributes: words or OVAD-style records to score; None means the model's own list.
        categories: names to choose from; None means the model's own list.
        tags: words to tag with; None means the model's own list. Those found also steer the
            caption.
        controls: words every caption should mention.
        views: None for the model's own view policy; a name out of `views.POLICIES`, or scales as in
            "fixed:0,0.5"; or a policy object.
        masks_as: what masks of regions are used as: "box", their tight boxes alone; "cells", the
            region's cells count by how much of them is mask; "dim", what lies outside of them is
            dimmed in all views. None means what the model was trained for; another use is said in
            a warning, but works.
        generation: beam search settings, also as a mapping; None means the model's own.

    Raises:
        InputError: an unknown task or policy, invalid or repeated words, or invalid settings.
    """

    tasks: Sequence[str] = TASKS
    attributes: Sequence[Attribute] | None = None
    categories: Sequence[str] | None = None
    tags: Sequence[str] | None = None
    controls: Sequence[str] = ()
    views: str | ViewPolicy | None = None
    masks_as: str | None = None
    generation: GenerationConfig | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("tasks", "attributes", "categories", "tags", "controls"):
            object.__setattr__(self, name, _words(name, getattr(self, name)))
        for name in ("attributes", "categories", "tags"):
            names = [getattr(word, "name", word) for word in getattr(self, name) or ()]
            repeated = [word for word, count in Counter(names).items() if count > 1]
            if repeated:
                raise InputError(f"{name}: {repeated[:5]} occur more than once")
        unknown = sorted(set(self.tasks) - set(TASKS))
        if unknown:
            raise InputError(f"tasks: expected some of {list(TASKS)}, got {unknown}")
        for attribute in self.attributes or ():
            if isinstance(attribute, str):
                plain_attribute(attribute)
        check_policy_name(self.views)
        check_masks_as(self.masks_as)
        generation = self.generation
        if generation is not None and not isinstance(generation, GenerationConfig):
            made = from_mapping(GenerationConfig, generation, where="generation")
            object.__setattr__(self, "generation", made)

    @classmethod
    def from_arguments(cls, questions: Questions | None = None, **asked: Any) -> Questions:
        """The questions given, or new ones made of keyword arguments.

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
            raise InputError(
                f"pass either questions or keyword arguments, not both: got {sorted(asked)}"
            )
        return questions


_NAMES = [item.name for item in fields(Questions)]


def _words(name: str, given: Any) -> tuple[Any, ...] | None:
    """A list of words as a tuple; only attributes may be records."""
    if given is None and name not in ("tasks", "controls"):
        return None
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InputError(f"{name}: expected a list of words, got {given!r:.60}")
    words = tuple(given)
    check_words(name, words)
    records = [word for word in words if not isinstance(word, str)]
    if records and name != "attributes":
        raise InputError(f"{name}: expected words, got {records[0]!r:.60}")
    return words
