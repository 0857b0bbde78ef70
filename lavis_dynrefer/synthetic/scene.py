"""A scene: grounds, objects, and where the objects lie."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lavis_dynrefer.structures import Box
from lavis_dynrefer.synthetic.painting.stencils import make_stencil
from lavis_dynrefer.synthetic.scene_world import HEIGHT, SLOTS, SYMMETRIC, WIDTH

SOLID = 128  # coverage of a pixel, in 255ths, from which the object owns it
_MIN_RATIO = 1.5  # of the distances along and across a clear direction


@dataclass(frozen=True)
class Look:
    """Appearance of an object, in the words of `world`.

    Args:
        category: its shape.
        colour: main colour.
        pattern: "solid" or a pattern of the main colour and a light tone.
        size: "small", "medium" or "large".
        side: longest side in pixels when upright.
        finish: "shiny" or "matte".
        border: "outlined" or "borderless".
        angle: degrees clockwise.
        mirrored: flipped left to right, after rotation.
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

    def words(self) -> dict[str, str | None]:
        """Slot -> word; None where a slot does not apply."""
        return {slot: getattr(self, slot) for slot in SLOTS}

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
        left: image column of the top left pixel of its mask.
        top: image row of that pixel.
        box: tight xyxy box around the visible part, in whole pixels.
        visible: share of the object that no other object covers, at least 0.7; 0.25 in a crowd.
        surface: the ground under it.
        location: in the image, e.g. "top left"; None if unclear.
        relation: to the reference object, e.g. "left of"; None without one.
        reference: index of the reference object in `Scene.objects`; None without one.
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
        surface: one of `scene_world.SURFACES`.
        left: column at which it is cropped from the large ground image.
        top: row at which it is cropped.
        light: brightness factor.
    """

    surface: str
    left: int
    top: int
    light: float


@dataclass(frozen=True)
class Scene:
    """One image before it is drawn.

    Args:
        seed: of the dataset.
        index: of the scene; `split_of` gives its split.
        world: one of `scene_world.WORLDS`.
        zones: one ground, or two that meet at `edge`.
        sideways: whether the two zones are left and right instead of top and bottom.
        edge: column (sideways) or row at which the zones meet, in pixels.
        objects: in drawing order, later ones on top; a landmark comes first.
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
    """Smallest xyxy box in pixels around the True pixels of a mask, shifted by (left, top)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
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

    A direction is clear if the centre lies beyond the other box, and the distance of the centres is
    at least 1.5 times as long in that direction as across it.

    >>> relation((0, 0, 10, 10), (50, 2, 60, 12))
    'left of'
    """
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    across = x - (other[0] + other[2]) / 2
    down = y - (other[1] + other[3]) / 2
    if abs(across) >= _MIN_RATIO * abs(down) and not other[0] <= x <= other[2]:
        return "left of" if across < 0 else "right of"
    if abs(down) >= _MIN_RATIO * abs(across) and not other[1] <= y <= other[3]:
        return "above" if down < 0 else "below"
    return None


def location(box: Box) -> str | None:
    """Where a box lies in the image, by thirds; None if its centre is near a border of them.

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
