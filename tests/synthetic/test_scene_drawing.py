from __future__ import annotations

import hashlib

import numpy as np
import pytest

from lavis_dynrefer.synthetic.layout import make_scene
from lavis_dynrefer.synthetic.scene_drawing import render


@pytest.mark.parametrize(("index", "world"), [(1, "landmark"), (2, "landmark"), (1, "neighbour")])
def test_pixels_are_the_same_on_every_machine(index, world):
    # sha256 of the raw pixels; drawing uses exactly rounded operations only
    digest = hashlib.sha256(render(make_scene(0, index, world)).tobytes()).hexdigest()
    assert digest[:16] == GOLDEN[index, world]


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


GOLDEN = {
    (1, "landmark"): "c5bcef5e44a9c426",
    (2, "landmark"): "430ba92a98ca3fbd",
    (1, "neighbour"): "b1ce4fc5c3e828bb",
}
