"""Grading captions of synthetic regions against what is true of them.

A caption is read as

    [a|an|the] PROPERTIES CATEGORY [is] [RELATION [a|an|the] COLOUR CATEGORY | on the SURFACE]
    [a|an|the] CATEGORY is PROPERTIES ...

with the properties in any order, "and" between them or not, and "with red stripes" for striped and
red. Every phrasing that this grammar allows counts alike. "medium" and "solid" need not be said. A
further property ("shiny") may be said if it is true; a word of no known meaning, a property said
twice, or a false one makes the phrase it stands in wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.synthetic.captions import PATTERN_PLURALS
from lavis_dynrefer.synthetic.world import (
    BORDERS,
    CATEGORIES,
    COLOURS,
    FINISHES,
    PATTERNS,
    POSES,
    RELATIONS,
    SIZES,
)

_WORDS = {
    "colour": COLOURS,
    "pattern": PATTERNS,
    "size": SIZES,
    "finish": FINISHES,
    "border": BORDERS,
    "pose": POSES,
    "category": CATEGORIES,
}
_SLOT_OF = MappingProxyType(
    {
        **{word: slot for slot, words in _WORDS.items() for word in words},
        **dict.fromkeys(PATTERN_PLURALS.values(), "pattern"),
    }
)
_SINGULAR = MappingProxyType({plural: word for word, plural in PATTERN_PLURALS.items()})
_ARTICLES = ("a", "an", "the")
_FILLERS = frozenset({*_ARTICLES, "is", "and", "with"})
_STATED = ("size", "pattern", "colour", "category")  # what every full caption says
_UNSAID = MappingProxyType({"size": "medium", "pattern": "solid"})


@dataclass(frozen=True)
class CaptionGrade:
    """What is right about one caption.

    Args:
        own: size, pattern, colour and category are right and nothing false is said of the region.
        relation: the relation word is right; None where the region has no reference object.
        reference: colour and category of the reference object are right; None without one.
        full: `own`, and relation and reference are right too, or, without a reference object, the
            surface is. A true surface in place of the relation is not enough.
    """

    own: bool
    relation: bool | None
    reference: bool | None
    full: bool


def grade_caption(facts: Mapping[str, str | None], caption: str) -> CaptionGrade:
    """Compare a caption with the facts of its region, as in the rows of `read_truth`.

    >>> facts = {"size": "small", "pattern": "solid", "colour": "red", "category": "mug",
    ...          "relation": "left of", "reference_colour": "blue", "reference_category": "house"}
    >>> grade_caption(facts, "a small red mug left of a green house")
    CaptionGrade(own=True, relation=True, reference=False, full=False)
    """
    own_text, link, rest = _split(caption)
    own = _own_is_right(facts, own_text)
    if facts["relation"] is None:
        surface = link == "on" and _without_article(rest) == [facts["surface"]]
        return CaptionGrade(own, None, None, own and surface)
    relation = link == facts["relation"]
    noun = [facts["reference_colour"], facts["reference_category"]]
    reference = link in RELATIONS and _without_article(rest) == noun
    return CaptionGrade(own, relation, reference, own and relation and reference)


def _split(caption: str) -> tuple[list[str], str | None, list[str]]:
    """Words before the first relation or "on", that link, and the words behind it."""
    words = caption.lower().replace(".", " ").split()
    for start in range(len(words)):
        for link in (*RELATIONS, "on"):
            parts = link.split()
            if words[start : start + len(parts)] == parts:
                own = words[:start]
                if own[-2:] == ["to", "the"] and link in ("left of", "right of"):
                    own = own[:-2]
                return own, link, words[start + len(parts) :]
    return words, None, []


def _own_is_right(facts: Mapping[str, str | None], words: Sequence[str]) -> bool:
    said: dict[str, str] = {}
    for word in words:
        slot = _SLOT_OF.get(word)
        if slot is None:
            if word not in _FILLERS:
                return False
            continue
        if slot in said:
            return False
        said[slot] = _SINGULAR.get(word, word)
    true = all(facts.get(slot) == word for slot, word in said.items())
    return true and all(said.get(slot, _UNSAID.get(slot)) == facts[slot] for slot in _STATED)


def _without_article(words: Sequence[str]) -> list[str]:
    return list(words[1:] if words and words[0] in _ARTICLES else words)


def grade_captions(
    rows: Sequence[Mapping[str, Any]], captions: Sequence[str]
) -> dict[str, list[bool | None]]:
    """What is right about each caption, a column for each question.

    Args:
        rows: of `read_truth`, one for each caption.
        captions: the answers; an empty one is wrong.

    Returns:
        "own", "relation", "reference" and "full"; regions without a reference object have None in
        "relation" and "reference", but count in "full". "full_related" is "full" of the others.

    Raises:
        ValueError: numbers of rows and captions differ.
    """
    if len(rows) != len(captions):
        raise InputError(f"expected a caption for each of {len(rows)} rows, got {len(captions)}")
    grades = [grade_caption(row["facts"], text) for row, text in zip(rows, captions)]
    return {
        "own": [grade.own for grade in grades],
        "relation": [grade.relation for grade in grades],
        "reference": [grade.reference for grade in grades],
        "full": [grade.full for grade in grades],
        "full_related": [None if grade.relation is None else grade.full for grade in grades],
    }
