"""Images to try the page with: drawn scenes, which the embedded model knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lavis_dynrefer.images.boxes import box_area
from lavis_dynrefer.structures import Box
from lavis_dynrefer.synthetic import make_scene, render

_SCENES = (2_000_001, 2_000_004, 2_000_015, 2_000_021)  # not training scenes
_BOXES = 2  # per scene


@dataclass(frozen=True)
class Example:
    """An image and boxes to begin with.

    Args:
        path: image file.
        boxes: xyxy in pixels.
    """

    path: Path
    boxes: tuple[Box, ...]


def write_examples(folder: Path) -> list[Example]:
    """Draw the example images into `folder`, creating it if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    examples = []
    for number, index in enumerate(_SCENES, start=1):
        scene = make_scene(0, index)
        path = folder / f"example_{number}.png"
        render(scene).save(path)
        largest_first = sorted(scene.objects, key=lambda item: -box_area(item.box))
        examples.append(Example(path, tuple(item.box for item in largest_first[:_BOXES])))
    return examples
