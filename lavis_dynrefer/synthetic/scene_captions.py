"""Phrases about objects.

Every object has one full caption whose form follows from the facts,

    a [size] [pattern] COLOUR CATEGORY (RELATION a COLOUR CATEGORY | on the SURFACE)

where "medium" and "solid" are left out; and short ones, which say less in one of many forms, as
people do: "the mug is striped", "it is tilted", "red mug on the grass".
"""

from __future__ import annotations

from collections.abc import Mapping

from lavis_dynrefer.synthetic.random_stream import RandomStream
from lavis_dynrefer.synthetic.scene import Look, Scene, SceneObject

# Slot -> the noun for it, as in "the striped pattern of the mug" and in attribute types.
NOUNS: Mapping[str, str] = {
    "colour": "color",
    "pattern": "pattern",
    "size": "size",
    "finish": "finish",
    "border": "edge",
    "pose": "pose",
}
PATTERN_PLURALS: Mapping[str, str] = {"striped": "stripes", "checkered": "checks", "dotted": "dots"}
UNSAID = frozenset({"medium", "solid"})
# Share of short captions about: properties of the object by its name, properties of "it" or "the
# thing", its name, or its place.
_SUBJECTS = {"named": 0.36, "unnamed": 0.36, "name": 0.08, "place": 0.2}
_PLAIN_NOUNS = ("object", "thing", "one")


def facts(scene: Scene, number: int) -> dict[str, str | None]:
    """Everything true about an object, by slot; None where a slot does not apply."""
    item = scene.objects[number]
    reference = None if item.reference is None else scene.objects[item.reference].look
    return {
        **item.look.words(),
        "category": item.look.category,
        "surface": item.surface,
        "location": item.location,
        "relation": item.relation,
        "reference_colour": reference.colour if reference else None,
        "reference_category": reference.category if reference else None,
    }


def full_caption(scene: Scene, number: int) -> str:
    """The one full caption of an object, e.g. "a small striped red mug left of a blue house"."""
    look = scene.objects[number].look
    own = [w for w in (look.size, look.pattern) if w not in UNSAID]
    own_phrase = _with_article(" ".join([*own, look.colour, look.category]))
    return f"{own_phrase} {place_phrase(scene, number)}"


def place_phrase(scene: Scene, number: int) -> str:
    """The end of a full caption: "left of a blue house", or "on the sand"."""
    item = scene.objects[number]
    if item.reference is None:
        return f"on the {item.surface}"
    other = scene.objects[item.reference].look
    return f"{item.relation} {_with_article(f'{other.colour} {other.category}')}"


def short_caption(scene: Scene, number: int, rng: RandomStream) -> str:
    """A caption with one to three facts about an object, in a random form."""
    item = scene.objects[number]
    subject = rng.weighted(_SUBJECTS)
    if subject == "place":
        return rng.pick(_place_forms(scene, item))
    if subject == "name":
        return rng.pick([f"the {item.look.category}", _with_article(item.look.category)])
    noun = item.look.category if subject == "named" else rng.pick(_PLAIN_NOUNS)
    return rng.pick(_property_forms(item.look, noun, rng))


def _property_forms(look: Look, noun: str, rng: RandomStream) -> list[str]:
    """Phrases about one to three properties of something called `noun`."""
    words = {slot: word for slot, word in look.words().items() if word}
    slots = rng.order(list(words))[:3]
    word, other, third = (words[slot] for slot in slots)
    forms = [
        f"{word} {noun}",
        f"the {word} {noun}",
        f"the {noun} is {word}",
        f"it is {word}",
        _with_article(f"{word} {other} {noun}"),
        f"the {noun} is {word} and {other}",
        f"the {noun} is {word} {other} and {third}",
    ]
    if noun == look.category:
        forms.append(f"the {word} {NOUNS[slots[0]]} of the {noun}")
        if look.pattern in PATTERN_PLURALS:
            plural = PATTERN_PLURALS[look.pattern]
            forms.append(f"{_with_article(noun)} with {look.colour} {plural}")
    return forms


def _place_forms(scene: Scene, item: SceneObject) -> list[str]:
    look = item.look
    forms = [f"{look.colour} {look.category} on the {item.surface}"]
    if item.location:
        preposition = "in" if item.location == "middle" else "at"
        forms.append(f"{look.colour} {look.category} {preposition} the {item.location}")
    if item.reference is not None:
        other = scene.objects[item.reference].look
        forms.append(f"{look.category} {item.relation} the {other.colour} {other.category}")
        forms.append(f"the {look.category} is {item.relation} the {other.category}")
        forms.append(f"{item.relation} the {other.colour} {other.category}")
    return forms


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
