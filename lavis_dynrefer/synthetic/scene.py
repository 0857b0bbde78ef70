"""What a scene is: grounds, objects, and what is true about where the objects are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.structures import Box
from lavis_dynrefer.synthetic.stencils import make_stencil
from lavis_dynrefer.synthetic.world import HEIGHT, SYMMETRIC, WIDTH

SOLID = 128  # an object owns the pixels it covers at least half
_CLEAR = 1.5  # a direction is named only if its distance is this many times the other one


@dataclass(frozen=True)
class Look:
    """What one object looks like, wherever it lies. Words come from `world`.

    Args:
        category: what is drawn.
        colour: main colour.
        pattern: "solid" or a pattern of the main colour and a light tone.
        size: "small", "medium" or "large".
        side: longest side in pixels when upright.
        finish: "shiny" or "matte".
        border: "outlined" or "borderless".
        angle: degrees clockwise.
        mirrored: left and right exchanged, after turning.
    """

    category: str
    colour: str
    pattern: str
    size: str
    side: int
    finish: str
    border: str
    angle: int
    mirrored: bool

    @property
    def pose(self) -> str | None:
        """Either "upright" or "tilted"; None for shapes that look the same at many angles."""
        if self.category in SYMMETRIC:
            return None
        return "tilted" if self.angle else "upright"

    def mask(self) -> np.ndarray:
        """(H, W) bool: pixels the object owns when nothing covers it."""
        stencil = make_stencil(self.category, self.side, self.angle, self.border == "outlined")
        solid = stencil.alpha >= SOLID
        return solid[:, ::-1] if self.mirrored else solid


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Args:
        look: its own properties.
        left: column of the top left pixel of its mask in the image.
        top: row of it.
        box: tight xyxy box in pixels around what is visible of it; whole numbers.
        visible: share of the object that no other object covers, at least 0.7.
        surface: the ground under it.
        location: where in the image, e.g. "top left"; None where that is unclear.
        relation: where it lies from the reference object, e.g. "left of"; None without one.
        reference: number of that other object in `Scene.objects`; None without one.
    """

    look: Look
    left: int
    top: int
    box: Box
    visible: float
    surface: str
    location: str | None = None
    relation: str | None = None
    reference: int | None = None


@dataclass(frozen=True)
class Zone:
    """A part of the ground.

    Args:
        surface: one of `world.SURFACES`.
        left: column at which it is cut from the large ground image.
        top: row of it.
        light: factor on the brightness.
    """

    surface: str
    left: int
    top: int
    light: float


@dataclass(frozen=True)
class Scene:
    """One image before it is drawn.

    Args:
        seed: of the data set.
        index: of the scene; `world.split_of` tells its split.
        world: "landmark" or "neighbour".
        zones: one ground, or two that meet at `edge`.
        sideways: the two zones lie left and right instead of above and below.
        edge: column (sideways) or row at which the zones meet, in pixels.
        objects: in drawing order, later ones on top; the landmark, if any, comes first.
    """

    seed: int
    index: int
    world: str
    zones: tuple[Zone, ...]
    sideways: bool
    edge: int
    objects: tuple[SceneObject, ...]


def owner_map(objects: tuple[SceneObject, ...] | list[SceneObject]) -> np.ndarray:
    """(HEIGHT, WIDTH) int16: number of the object that owns each pixel, -1 for the ground."""
    owner = np.full((HEIGHT, WIDTH), -1, dtype=np.int16)
    for number, item in enumerate(objects):
        mask = item.look.mask()
        owner[item.top : item.top + mask.shape[0], item.left : item.left + mask.shape[1]][mask] = (
            number
        )
    return owner


def tight_box(mask: np.ndarray, left: int = 0, top: int = 0) -> Box:
    """Smallest xyxy box in pixels around the True pixels of a mask, moved by (left, top).

    Raises:
        ValueError: the mask is empty.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise InputError("an empty mask has no box")
    return (
        float(left + columns[0]),
        float(top + rows[0]),
        float(left + columns[-1] + 1),
        float(top + rows[-1] + 1),
    )


def gap(box: Box, other: Box) -> float:
    """Distance in pixels between the nearest points of two xyxy boxes, 0 if they touch."""
    across = max(other[0] - box[2], box[0] - other[2], 0.0)
    down = max(other[1] - box[3], box[1] - other[3], 0.0)
    return math.sqrt(across * across + down * down)


def relation(box: Box, other: Box) -> str | None:
    """Where `box` lies from `other`: "left of", "right of", "above", "below", or None if unclear.

    Clear means: the centre lies beyond the other box in that direction, and the distance between
    the centres is 1.5 times as long in that direction as across it.

    >>> relation((0, 0, 10, 10), (50, 2, 60, 12))
    'left of'
    """
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    across = x - (other[0] + other[2]) / 2
    down = y - (other[1] + other[3]) / 2
    if abs(across) >= _CLEAR * abs(down) and not other[0] <= x <= other[2]:
        return "left of" if across < 0 else "right of"
    if abs(down) >= _CLEAR * abs(across) and not other[1] <= y <= other[3]:
        return "above" if down < 0 else "below"
    return None


def location(box: Box) -> str | None:
    """Where a box lies in the image, by thirds; None if its centre is near a border of thirds.

    >>> location((0, 0, 40, 40)), location((200, 0, 280, 60)), location((220, 160, 260, 200))
    ('top left', 'top', 'middle')
    """
    row = _third((box[1] + box[3]) / (2 * HEIGHT), ("top", "", "bottom"))
    column = _third((box[0] + box[2]) / (2 * WIDTH), ("left", "", "right"))
    if row is None or column is None:
        return None
    return f"{row} {column}".strip() or "middle"


def _third(position: float, names: tuple[str, str, str]) -> str | None:
    limits = ((0.0, 0.3), (0.38, 0.62), (0.7, 1.0))
    for name, (low, high) in zip(names, limits):
        if low <= position <= high:
            return name
    return None
