"""Grade captions of synthetic regions against the facts.

A caption is parsed as

    [a|an|the] PROPERTIES CATEGORY [is] [RELATION [a|an|the] COLOUR CATEGORY | on the SURFACE]
    [a|an|the] CATEGORY is PROPERTIES ...

with the properties in any order, with or without "and", and "with red stripes" for striped and red.
All phrasings of this grammar are equal. "medium" and "solid" may be left out; other properties
("shiny") may be added. An unknown word, a repeated property or a false one makes its phrase wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.synthetic.scene_captions import PATTERN_PLURALS
from lavis_dynrefer.synthetic.scene_world import CATEGORIES, RELATIONS, SLOTS

_SLOT_OF = {
    **{word: slot for slot, words in SLOTS.items() for word in words},
    **dict.fromkeys(CATEGORIES, "category"),
    **dict.fromkeys(PATTERN_PLURALS.values(), "pattern"),
}
_SINGULAR = {plural: word for word, plural in PATTERN_PLURALS.items()}
_ARTICLES = ("a", "an", "the")
_FILLERS = frozenset({*_ARTICLES, "is", "and", "with"})
_STATED = ("size", "pattern", "colour", "category")  # in every full caption
_UNSAID = {"size": "medium", "pattern": "solid"}


@dataclass(frozen=True)
class CaptionGrade:
    """Which parts of one caption are right.

    Args:
        own: size, pattern, colour and category, and nothing false about the region.
        relation: the relation word; None if the region has no reference object.
        reference: colour and category of the reference object; None without one.
        full: `own`, `relation` and `reference`; without a reference object `own` and the surface.
            A true surface instead of the relation is not enough.
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
    """Words before the first relation or "on", that link, and the words after it."""
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
    """Which parts of each caption are right, as columns.

    Args:
        rows: of `read_truth`, one for each caption.
        captions: the answers; an empty one is wrong.

    Returns:
        The fields of `CaptionGrade`, and "full_related": "full" of the regions with a reference
        object, None for the others.

    Raises:
        InputError: the numbers of rows and captions differ.
    """
    if len(rows) != len(captions):
        raise InputError(f"expected a caption for each of {len(rows)} rows, got {len(captions)}")
    grades = [grade_caption(row["facts"], text) for row, text in zip(rows, captions)]
    names = ("own", "relation", "reference", "full")
    return {
        **{name: [getattr(grade, name) for grade in grades] for name in names},
        "full_related": [None if grade.relation is None else grade.full for grade in grades],
    }
