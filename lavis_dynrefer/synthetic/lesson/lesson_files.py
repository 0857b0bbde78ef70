"""Writing the new objects as a user writes data of their own: two json files and a folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lavis_dynrefer.images.boxes import xyxy_to_xywh
from lavis_dynrefer.synthetic.drawn_folder import Drawing
from lavis_dynrefer.synthetic.lesson.new_objects import (
    NEW_CATEGORIES,
    lesson_scene,
    new_object_caption,
    new_objects,
    short_captions,
)
from lavis_dynrefer.synthetic.scene_drawing import render
from lavis_dynrefer.synthetic.scene_vocabulary import tags
from lavis_dynrefer.synthetic.scene_world import CATEGORIES, HEIGHT, WIDTH

logger = logging.getLogger(__name__)

VERSION = 1  # raise it when the same arguments give other files
BOXES = 200  # of each split
SPLITS = ("train", "test")
IMAGES = "images"
TAGS = "tags.txt"
_MANIFEST = "lesson.json"


def write_lesson(
    root: Path, *, boxes: int = BOXES, progress: Callable[[int, int], None] | None = None
) -> None:
    """Write `train.json` and `test.json` in COCO's layout, `images/` and `tags.txt`.

    Only new objects have boxes. In training some have a second, short caption. The categories are
    those of all scenes and the new ones; so are the tags. Images of "test" are none of "train". The
    folder appears when it is complete. If it already holds these files, nothing is done.

    Args:
        root: a new or empty folder, or one written before with the same number of boxes.
        boxes: of each split.
        progress: gets the number of boxes drawn, of both splits, and of those to draw.

    Raises:
        InputError: a folder with other content, or that cannot be written.
    """
    manifest = {"version": VERSION, "boxes": boxes}
    with Drawing(root, _MANIFEST, manifest, what="the new objects").begin([IMAGES]) as folder:
        if folder is None:
            return
        for number, split in enumerate(SPLITS):

            def report(done: int, before: int = number * boxes) -> None:
                if progress is not None:
                    progress(before + done, len(SPLITS) * boxes)

            _dump(folder / f"{split}.json", _draw_split(folder, split, boxes, report))
        names = [*tags(), *NEW_CATEGORIES]
        (folder / TAGS).write_text("\n".join(names) + "\n", encoding="utf-8")
        _dump(folder / _MANIFEST, manifest)
    logger.info("wrote %d boxes of new objects to %s", len(SPLITS) * boxes, root)


def _draw_split(
    root: Path, split: str, boxes: int, report: Callable[[int], None]
) -> dict[str, Any]:
    """Draw scenes until they show so many new objects; returns the json of the split."""
    names = [*CATEGORIES, *NEW_CATEGORIES]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    number = 0
    while len(annotations) < boxes:
        scene = lesson_scene(split, number)
        number += 1
        shown = new_objects(scene)[: boxes - len(annotations)]
        if not shown:
            continue
        name = f"{split}_{number:03d}.jpg"
        render(scene).save(root / IMAGES / name, "JPEG", quality=95, subsampling=0)
        images.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
        for item in shown:
            texts = [new_object_caption(scene, item)]
            if split == "train":
                texts += short_captions(scene, item)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "bbox": list(xyxy_to_xywh(scene.objects[item].box)),
                    "caption": texts if len(texts) > 1 else texts[0],
                    "category_id": names.index(scene.objects[item].look.category) + 1,
                }
            )
        report(len(annotations))
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _dump(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
