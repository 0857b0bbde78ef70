"""Prompts of the contrast decoder for attributes and categories.

The templates are OVAD's, as in the released DynRefer code. The double space stands for a missing
noun; CLIP's tokenizer ignores it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lavis_dynrefer.errors import InputError, shorten
from lavis_dynrefer.structures import AttributeInfo

# Words that OVAD's evaluation adds to an attribute with the word on the left.
_EXTRA_SYNONYMS = {
    "young": ("kid", "kids", "child", "toddler", "boy", "girl"),
    "old": ("teen", "elder"),
}


def attribute_prompts(attribute: str | AttributeInfo) -> list[str]:
    """Two sentences per synonym; the attribute's score is the best of them.

    Args:
        attribute: a record of an OVAD-style vocabulary, or a word such as "wet".

    >>> attribute_prompts("wet")
    ['the wet', 'the  is wet']
    """
    if isinstance(attribute, str):
        attribute = plain_attribute(attribute)
    prompts = []
    for synonym in attribute_synonyms(attribute):
        if attribute.is_has == "has":
            noun = attribute.type.replace(" tone", "")
            prompts += [f"the {synonym} {noun}", f"the  has {synonym} {noun}"]
        else:
            prompts += [f"the {synonym}", f"the  is {synonym}"]
    return prompts


def attribute_synonyms(attribute: AttributeInfo) -> list[str]:
    """The words for one attribute, including those that OVAD adds for age."""
    synonyms = attribute.name.split(":", 1)[-1].split("/")
    if attribute.type == "maturity":
        for word in tuple(synonyms):
            synonyms += _EXTRA_SYNONYMS.get(word, ())
    return synonyms


def category_prompt(name: str) -> str:
    """The sentence for a category such as "tennis racket".

    >>> category_prompt("Tennis Racket")
    'the tennis racket'
    """
    return f"the {name.lower()}"


def plain_attribute(name: str) -> AttributeInfo:
    """Parse an attribute such as "wet", or "state:wet/damp" as in OVAD.

    Raises:
        InputError: the name has no word.
    """
    kind, _, words = name.rpartition(":")
    if not all(word.strip() for word in words.split("/")):
        raise InputError(f"attribute {name!r}: expected a word, or 'type:word/word'")
    return AttributeInfo(name=name, type=kind, parent_type=kind, is_has="is", frequency="")


def parse_attributes(rows: object) -> tuple[AttributeInfo, ...]:
    """Turn the `attributes` list of an OVAD-style json into records.

    Raises:
        InputError: not a list of objects with name, type, parent_type, is_has_att and freq_set.
    """
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise InputError(f"attributes: expected a list of objects, got {type(rows).__name__}")
    return tuple(_parse_attribute(row) for row in rows)


def load_attributes(path: str | Path) -> tuple[AttributeInfo, ...]:
    """Read an attribute vocabulary, in vector order: an OVAD file, or just its attribute list.

    Raises:
        InputError: the file is missing or has no attribute list.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"attribute list {path}: expected an OVAD-style json: {error}") from error
    rows = document.get("attributes") if isinstance(document, Mapping) else document
    if not rows:
        raise InputError(f"attribute list {path}: expected a list, or one under 'attributes'")
    return parse_attributes(rows)


def _parse_attribute(row: Mapping[str, Any]) -> AttributeInfo:
    missing = {"name", "type", "parent_type", "is_has_att", "freq_set"} - set(row)
    if missing:
        raise InputError(f"attribute {_shown(dict(row))}: missing {sorted(missing)}")
    if row["is_has_att"] not in ("is", "has"):
        raise InputError(
            f"attribute {_shown(row['name'])}: is_has_att is {_shown(row['is_has_att'])}, "
            "expected 'is' or 'has'"
        )
    return AttributeInfo(
        name=row["name"],
        type=row["type"],
        parent_type=row["parent_type"],
        is_has=row["is_has_att"],
        frequency=row["freq_set"],
    )


def _shown(value: Any) -> str:
    return shorten(repr(value), 200)
