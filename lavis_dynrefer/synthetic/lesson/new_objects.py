"""Scenes with three new categories, and captions about them in a new word order.

Every object has one full caption,

    a [size] CATEGORY in [pattern] COLOUR (RELATION a COLOUR CATEGORY | on the SURFACE)

where the captions of all other scenes put colour and pattern before the category. The words after
it, and what is left out, are as in `scene_captions`.
"""

from __future__ import annotations

from lavis_dynrefer.synthetic.painting.shapes import NEW_SHAPES
from lavis_dynrefer.synthetic.random_stream import RandomStream
from lavis_dynrefer.synthetic.scene import Scene
from lavis_dynrefer.synthetic.scene_captions import UNSAID, place_phrase
from lavis_dynrefer.synthetic.scene_layout import make_scene
from lavis_dynrefer.synthetic.scene_world import CATEGORIES, SPLIT_START

NEW_CATEGORIES = tuple(NEW_SHAPES)
_SEED = 16  # of the scenes; other than that of the scenes that the embedded model was trained on
_STREAM = 96  # of random numbers, apart from those that lay the scene out
_SHARE = 6  # how often each new category is drawn for one of another; half of the objects are new
# With more, short captions become the answer: each of them is more likely than a long one.
_SHORT_SHARE = 0.25
_SHORT = (
    "a {category}",
    "the {category}",
    "{colour} {category}",
    "a {colour} {category}",
    "a {pattern} {category}",
    "the {pattern} {category}",
    "the {category} is {colour}",
    "the {category} is {pattern}",
    "it is {colour}",
)


def lesson_scene(split: str, number: int) -> Scene:
    """The landmark scene `number`, from 0, of the split "train" or "test"."""
    categories = (*NEW_CATEGORIES * _SHARE, *CATEGORIES)
    return make_scene(_SEED, SPLIT_START[split] + number, categories=categories)


def new_objects(scene: Scene) -> list[int]:
    """Numbers of the objects of a scene that are of a new category."""
    return [
        number for number, item in enumerate(scene.objects) if item.look.category in NEW_CATEGORIES
    ]


def new_object_caption(scene: Scene, number: int) -> str:
    """The full caption of an object: "a small rocket in striped red left of a yellow mug"."""
    look = scene.objects[number].look
    size, paint = (
        [word for word in words if word not in UNSAID]
        for words in ((look.size,), (look.pattern, look.colour))
    )
    own = " ".join(["a", *size, look.category, "in", *paint])
    return f"{own} {place_phrase(scene, number)}"


def short_captions(scene: Scene, number: int) -> list[str]:
    """At most one caption with one or two facts, in a random form: "the rocket is red"."""
    look = scene.objects[number].look
    rng = RandomStream(scene.seed, scene.index, _STREAM, number)
    if not rng.chance(_SHORT_SHARE):
        return []
    words = {"category": look.category, "colour": look.colour, "pattern": look.pattern}
    return [rng.pick(_SHORT).format(**words)]
