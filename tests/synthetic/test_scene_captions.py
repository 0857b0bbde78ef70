from __future__ import annotations

import pytest

from lavis_dynrefer.synthetic.random_stream import RandomStream
from lavis_dynrefer.synthetic.scene import Look, Scene, SceneObject, Zone
from lavis_dynrefer.synthetic.scene_captions import full_caption, short_caption
from lavis_dynrefer.synthetic.scene_layout import make_scene
from lavis_dynrefer.synthetic.scene_vocabulary import tags
from lavis_dynrefer.synthetic.scene_world import WORLDS

FUNCTION_WORDS = {"a", "an", "the", "is", "and", "on", "in", "at", "of", "with", "it"}
PLAIN_NOUNS = {"object", "thing", "one"}
SLOT_WORDS = {"color", "pattern", "size", "finish", "edge", "pose"}


def item(category, colour, pattern="solid", size="medium", **place):
    look = Look(category, colour, pattern, size, 40, "matte", "borderless", 0, False)
    return SceneObject(look, 10, 10, (10.0, 10.0, 50.0, 50.0), 1.0, "grass", **place)


def scene_of(*objects):
    return Scene(0, 1, "neighbour", (Zone("grass", 0, 0, 1.0),), True, 200, objects)


SCENE = scene_of(
    item("mug", "red", "striped", "small", relation="left of", reference=1),
    item("umbrella", "orange"),
    item("apple", "blue", size="large", relation="above", reference=1),
)


@pytest.mark.parametrize(
    ("number", "caption"),
    [
        (0, "a small striped red mug left of an orange umbrella"),
        (1, "an orange umbrella on the grass"),
        (2, "a large blue apple above an orange umbrella"),
    ],
)
def test_full_captions_leave_out_medium_and_solid(number, caption):
    assert full_caption(SCENE, number) == caption


def test_short_captions_take_many_forms():
    rng = RandomStream(0)
    forms = {short_caption(SCENE, 0, rng) for _ in range(3000)}
    assert {
        "red mug",
        "the mug is striped",
        "the mug is small and red",
        "the matte finish of the mug",
        "a mug with red stripes",
        "red mug on the grass",
        "mug left of the orange umbrella",
        "the mug is left of the umbrella",
        "left of the orange umbrella",
        "the mug",
        "it is striped",
        "the thing is red",
        "the matte one",
    } <= forms


@pytest.mark.parametrize("world", WORLDS)
def test_captions_consist_of_tags_and_a_few_function_words(world):
    rng = RandomStream(0)
    scenes = [make_scene(1, index, world) for index in range(1, 20)]
    phrases = [
        phrase
        for s in scenes
        for n in range(len(s.objects))
        for phrase in (full_caption(s, n), short_caption(s, n, rng))
    ]
    words = {word for phrase in phrases for word in phrase.split()}
    plurals = {"stripes", "checks", "dots"}
    said = {word for tag in tags() for word in tag.split()}
    assert words <= FUNCTION_WORDS | PLAIN_NOUNS | SLOT_WORDS | plurals | said
