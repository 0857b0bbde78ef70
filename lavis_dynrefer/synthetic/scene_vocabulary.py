"""Attributes, categories and tags of the synthetic world."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lavis_dynrefer.synthetic.scene import Look
from lavis_dynrefer.synthetic.scene_captions import NOUNS, PATTERN_PLURALS
from lavis_dynrefer.synthetic.scene_world import (
    CATEGORIES,
    COLOURS,
    LOCATIONS,
    RELATIONS,
    SLOTS,
    SUPERCATEGORIES,
    SURFACES,
)

_HEAD, _MEDIUM = 1 / 3, 0.12  # share of the objects from which an attribute is head, or medium


def attribute_rows() -> list[dict[str, Any]]:
    """The `attributes` list in OVAD's format; the frequency set follows from the world's shares."""
    pairs = [(slot, word, share) for slot, words in SLOTS.items() for word, share in words.items()]
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


def attribute_labels(facts: Mapping[str, Any]) -> dict[str, int]:
    """Name of the attribute -> 1 present, 0 absent, -1 undefined; ordered as `attribute_rows`."""
    return {
        f"{NOUNS[slot]}:{word}": -1 if facts[slot] is None else int(facts[slot] == word)
        for slot, words in SLOTS.items()
        for word in words
    }


def attribute_vector(look: Look) -> list[int]:
    """The values of `attribute_labels`."""
    return list(attribute_labels(look.words()).values())


def category_rows() -> list[dict[str, Any]]:
    """The `categories` list in COCO's format, ids from 1 in the order of `CATEGORIES`."""
    groups = {name: group for group, names in SUPERCATEGORIES.items() for name in names}
    return [
        {"supercategory": groups[name], "id": number, "name": name}
        for number, name in enumerate(CATEGORIES, start=1)
    ]


def tags() -> list[str]:
    """The words of the captions, singular, and "left of" and "right of"; without repeats."""
    words = [
        *CATEGORIES,
        *(word for group in SLOTS.values() for word in group),
        *(plural[:-1] for plural in PATTERN_PLURALS.values()),
        *SURFACES,
        *LOCATIONS,
        *RELATIONS,
    ]
    return list(dict.fromkeys(words))


def truth_labels() -> list[str]:
    """Labels of the backbone's pretraining: the tags, and colour and category of the reference.

    The latter are called "by blue" and "by house", to tell them from the region's own.
    """
    return [*tags(), *(f"by {word}" for word in (*COLOURS, *CATEGORIES))]


def true_labels(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """The `truth_labels` of a region, from its facts in `read_truth`."""
    own = [facts[slot] for slot in (*SLOTS, "category", "surface")]
    places = (facts["location"] or "").split()  # "top left" is two tags
    reference = [facts["reference_colour"], facts["reference_category"]]
    labels = [*own, *places, facts["relation"], *(f"by {word}" for word in reference if word)]
    return tuple(label for label in labels if label)
