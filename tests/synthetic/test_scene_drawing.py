"""Pixels of the scenes. The checksum covers shapes, patterns, grounds and random numbers."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from lavis_dynrefer.synthetic.painting.object_painting import TONES, colourise
from lavis_dynrefer.synthetic.painting.stencils import make_stencil
from lavis_dynrefer.synthetic.scene import tight_box
from lavis_dynrefer.synthetic.scene_drawing import render
from lavis_dynrefer.synthetic.scene_layout import make_scene
from lavis_dynrefer.synthetic.scene_world import CATEGORIES, COLOURS, WORLDS, held_out_pairs


@pytest.mark.parametrize("world", WORLDS)
def test_pixels_are_the_same_on_every_machine(world):
    # Drawing uses exactly rounded operations only. Twenty scenes show every category, colour,
    # pattern and ground.
    pixels = hashlib.sha256()
    for index in range(1, 21):
        pixels.update(render(make_scene(0, index, world)).tobytes())
    assert pixels.hexdigest()[:16] == GOLDEN[world]


def test_two_grounds_meet_at_the_edge():
    scene = next(s for s in (make_scene(0, i) for i in range(1, 50)) if len(s.zones) == 2)
    alone = [
        np.asarray(render(type(scene)(**{**vars(scene), "zones": (zone,), "objects": ()})))
        for zone in scene.zones
    ]
    both = np.asarray(render(type(scene)(**{**vars(scene), "objects": ()})))
    axis = 1 if scene.sideways else 0
    before, after = np.split(np.arange(both.shape[axis]), [scene.edge])
    near = 12  # pixels: waves of 5, the shaded edge of 5, the blend
    assert (both.take(before[:-near], axis) == alone[0].take(before[:-near], axis)).all()
    assert (both.take(after[near:], axis) == alone[1].take(after[near:], axis)).all()


@pytest.mark.parametrize("side", [12, 46, 104])
def test_the_longest_side_is_as_requested(side):
    for category in CATEGORIES:
        x1, y1, x2, y2 = tight_box(make_stencil(category, side, 0, False).alpha >= 128)
        assert max(x2 - x1, y2 - y1) == pytest.approx(side, abs=2)  # a pixel at each end


@pytest.mark.parametrize("colour", COLOURS)
def test_a_solid_matte_object_has_its_own_colour(colour):
    stencil = make_stencil("heart", 64, 0, False)
    image = colourise(stencil, colour=colour, pattern="solid", shiny=False, side=64, angle=0)
    mean = image[stencil.alpha == 255].mean(axis=0)
    assert min(TONES, key=lambda name: float(np.abs(mean - TONES[name][0]).sum())) == colour


def test_sixteen_categories_have_one_held_out_colour_each():
    colours = [colour for colour, _ in held_out_pairs()]
    assert {colour: colours.count(colour) for colour in COLOURS} == dict.fromkeys(COLOURS, 2)
    assert len({category for _, category in held_out_pairs()}) == 16


GOLDEN = {
    "landmark": "1f927880b5825b1e",
    "neighbour": "6d7dbb5e51a754b5",
    "crowded": "e037a5079e428164",
}
