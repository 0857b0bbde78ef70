"""Drawing a scene."""

from __future__ import annotations

import numpy as np
from PIL import Image

from lavis_dynrefer.synthetic.painting.object_painting import colourise
from lavis_dynrefer.synthetic.painting.stencils import make_stencil
from lavis_dynrefer.synthetic.painting.textures import ground
from lavis_dynrefer.synthetic.random_stream import RandomStream
from lavis_dynrefer.synthetic.scene import Scene, SceneObject
from lavis_dynrefer.synthetic.scene_world import HEIGHT, WIDTH

_STREAM = 97  # of random numbers, apart from those that lay the scene out
_SEAM = 12  # pixels on either side of the edge in which two grounds are blended
_SHADOW = 0.42  # share of light that the darkest shadow removes


def render(scene: Scene) -> Image.Image:
    """Draw a scene: a 480 x 360 RGB image, the same pixels on every machine."""
    canvas = _draw_ground(scene)
    for item in scene.objects:
        _draw_object(canvas, item)
    np.clip(canvas, 0, 255, out=canvas)
    return Image.fromarray((canvas + 0.5).astype(np.uint8))


def _draw_ground(scene: Scene) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) float32: the grounds, joined along a slightly wavy edge."""
    cuts = [
        ground(zone.surface)[zone.top : zone.top + HEIGHT, zone.left : zone.left + WIDTH]
        for zone in scene.zones
    ]
    canvas = cuts[0] * np.float32(scene.zones[0].light)
    if len(cuts) == 1:
        return canvas
    upright, second = canvas, cuts[1]
    if scene.sideways:  # columns become rows
        upright, second = canvas.transpose(1, 0, 2), second.transpose(1, 0, 2)
    start = scene.edge - _SEAM
    over = second[start:] * np.float32(scene.zones[1].light)
    rows = np.arange(start, scene.edge + _SEAM, dtype=np.float32)[:, None]
    beyond = rows - (scene.edge + _waves(scene)[None, : upright.shape[1]])
    share = np.clip(beyond / 2 + 0.5, 0, 1)[..., None]
    seam = upright[start : scene.edge + _SEAM] * (1 - share) + over[: 2 * _SEAM] * share
    upright[start:] = over
    upright[start : scene.edge + _SEAM] = (
        seam * (1 - 0.22 * np.clip(1 - np.abs(beyond) / 5, 0, 1))[..., None]
    )
    return canvas


def _waves(scene: Scene) -> np.ndarray:
    """(WIDTH,) float32: shift of the edge, at most 5 pixels either way."""
    cell = 40
    heights = 10 * RandomStream(scene.seed, scene.index, _STREAM).field(1, WIDTH // cell + 2)[0] - 5
    position = np.arange(WIDTH) / cell
    whole = position.astype(np.int64)
    part = position - whole
    part = part * part * (3 - 2 * part)
    return (heights[whole] + part * (heights[whole + 1] - heights[whole])).astype(np.float32)


def _draw_object(canvas: np.ndarray, item: SceneObject) -> None:
    look = item.look
    stencil = make_stencil(look.category, look.side, look.angle, look.border == "outlined")
    colours = colourise(
        stencil,
        colour=look.colour,
        pattern=look.pattern,
        shiny=look.finish == "shiny",
        side=look.side,
        angle=look.angle,
    )
    alpha, shadow = stencil.alpha, stencil.shadow
    if look.mirrored:
        colours, alpha, shadow = colours[:, ::-1], alpha[:, ::-1], shadow[:, ::-1]
    _darken(
        canvas,
        shadow,
        left=item.left - stencil.padding + look.side // 18,
        top=item.top - stencil.padding + look.side // 13,
    )
    height, width = alpha.shape
    place = canvas[item.top : item.top + height, item.left : item.left + width]
    place *= (1 - alpha.astype(np.float32) / 255)[..., None]
    place += colours


def _darken(canvas: np.ndarray, shadow: np.ndarray, *, left: int, top: int) -> None:
    """Draw a shadow, clipped to the image."""
    bottom, right = min(top + shadow.shape[0], HEIGHT), min(left + shadow.shape[1], WIDTH)
    first_row, first_column = max(top, 0), max(left, 0)
    part = shadow[first_row - top : bottom - top, first_column - left : right - left]
    canvas[first_row:bottom, first_column:right] *= (
        1 - np.float32(_SHADOW / 255) * part.astype(np.float32)
    )[..., None]
