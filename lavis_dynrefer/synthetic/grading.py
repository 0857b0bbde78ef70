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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

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


@dataclass(frozen=True)
class Estimate:
    """A mean with its uncertainty.

    Args:
        value: in percent; nan where nothing was graded.
        low: lower end of the 95 % bootstrap interval.
        high: upper end of it.
        count: regions graded.
    """

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}] n={self.count}"


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    pictures: Sequence[int],
    *,
    seed: int = 0,
    rounds: int = 1000,
) -> Estimate:
    """95 % percentile interval of a statistic, resampling whole pictures.

    Regions of a picture share their reference object, so they do not count as independent.

    Args:
        statistic: row numbers, repeats included -> percent.
        pictures: picture of each row.
        seed: of the resampling.
        rounds: how often to resample.
    """
    groups = np.unique(np.asarray(pictures), return_inverse=True)[1]
    order = np.argsort(groups, kind="stable")
    rows_of = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    if not len(groups):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(rounds):
        drawn = rng.integers(len(rows_of), size=len(rows_of))
        values.append(statistic(np.concatenate([rows_of[picture] for picture in drawn])))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Estimate(statistic(np.arange(len(groups))), float(low), float(high), len(groups))


def grade_captions(
    rows: Sequence[Mapping[str, object]], captions: Sequence[str]
) -> dict[str, Estimate]:
    """Shares of captions that are right, in percent.

    Args:
        rows: of `read_truth`, one for each caption.
        captions: the answers; an empty one is wrong.

    Returns:
        "own", "relation", "reference" and "full"; regions without a reference object leave
        "relation" and "reference", but stay in "full". "full_related" is "full" over the others.

    Raises:
        ValueError: numbers of rows and captions differ.
    """
    if len(rows) != len(captions):
        raise ValueError(f"expected a caption for each of {len(rows)} rows, got {len(captions)}")
    grades = [grade_caption(row["facts"], text) for row, text in zip(rows, captions)]  # type: ignore[arg-type]
    pictures = [int(row["image_id"]) for row in rows]  # type: ignore[call-overload]
    columns: dict[str, list[bool | None]] = {
        "own": [grade.own for grade in grades],
        "relation": [grade.relation for grade in grades],
        "reference": [grade.reference for grade in grades],
        "full": [grade.full for grade in grades],
        "full_related": [None if grade.relation is None else grade.full for grade in grades],
    }
    return {name: share(column, pictures) for name, column in columns.items()}


def share(right: Sequence[bool | None], pictures: Sequence[int]) -> Estimate:
    """Percentage of True among the values that are not None."""
    graded = [row for row, value in enumerate(right) if value is not None]
    values = np.array([float(bool(right[row])) for row in graded])
    return bootstrap(lambda rows: 100 * float(values[rows].mean()), [pictures[r] for r in graded])
