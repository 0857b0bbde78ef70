"""Attributes, categories and tags of the synthetic world, and the files that hold them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lavis_dynrefer.synthetic.captions import NOUNS, PATTERN_PLURALS
from lavis_dynrefer.synthetic.scene import Look
from lavis_dynrefer.synthetic.world import (
    BORDERS,
    CATEGORIES,
    COLOURS,
    FINISHES,
    LOCATIONS,
    PATTERNS,
    POSES,
    SIZES,
    SUPERCATEGORIES,
    SURFACES,
)

_SLOTS = {
    "colour": COLOURS,
    "pattern": PATTERNS,
    "size": SIZES,
    "finish": FINISHES,
    "border": BORDERS,
    "pose": POSES,
}
_HEAD, _MEDIUM = 1 / 3, 0.12  # share of the objects from which an attribute is head, or medium


def attribute_rows() -> list[dict[str, Any]]:
    """The `attributes` list in OVAD's format; the frequency set follows from the world's shares."""
    pairs = [(slot, word, share) for slot, words in _SLOTS.items() for word, share in words.items()]
    return [
        {
            "id": number,
            "name": f"{NOUNS[slot]}:{word}",
            "type": NOUNS[slot],
            "parent_type": NOUNS[slot],
            "is_has_att": "is",
            "freq_set": "head" if share >= _HEAD else "medium" if share >= _MEDIUM else "tail",
        }
        for number, (slot, word, share) in enumerate(pairs)
    ]


def attribute_vector(look: Look) -> list[int]:
    """1 present, 0 absent, -1 undefined, in the order of `attribute_rows`."""
    vector = []
    for slot, words in _SLOTS.items():
        true_word = getattr(look, slot)
        vector += [-1 if true_word is None else int(word == true_word) for word in words]
    return vector


def category_rows() -> list[dict[str, Any]]:
    """The `categories` list in COCO's format, ids from 1 in the order of `world.CATEGORIES`."""
    groups = {name: group for group, names in SUPERCATEGORIES.items() for name in names}
    return [
        {"supercategory": groups[name], "id": number, "name": name}
        for number, name in enumerate(CATEGORIES, start=1)
    ]


def tags() -> list[str]:
    """Every word of the captions that says something about a region, singular, without repeats."""
    words = [
        *CATEGORIES,
        *(word for group in _SLOTS.values() for word in group),
        *(plural[:-1] for plural in PATTERN_PLURALS.values()),
        *SURFACES,
        *LOCATIONS,
        "above",
        "below",
    ]
    return list(dict.fromkeys(words))


def own_tags(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Tags of everything a region itself is, from a row of `read_truth`; not of its reference."""
    words = [facts[slot] for slot in (*_SLOTS, "category", "surface", "location")]
    known = set(tags())
    return tuple(
        dict.fromkeys(word for text in words if text for word in text.split() if word in known)
    )


def write_vocabulary(folder: Path) -> None:
    """Write synthetic_tags.txt, synthetic_categories.txt and synthetic_attributes.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "synthetic_tags.txt").write_text("\n".join(tags()) + "\n", encoding="utf-8")
    names = "\n".join(CATEGORIES) + "\n"
    (folder / "synthetic_categories.txt").write_text(names, encoding="utf-8")
    rows = ",\n".join("  " + json.dumps(row) for row in attribute_rows())
    (folder / "synthetic_attributes.json").write_text(f"[\n{rows}\n]\n", encoding="utf-8")
