"""One scene as rows of the raw files of Visual Genome, COCO and OVAD, and its facts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lavis_dynrefer.images.boxes import pairwise_iou, xyxy_to_xywh
from lavis_dynrefer.images.mask_encoding import encode_mask
from lavis_dynrefer.synthetic.random_stream import RandomStream
from lavis_dynrefer.synthetic.scene import Scene, owner_map
from lavis_dynrefer.synthetic.scene_captions import facts, full_caption, short_caption
from lavis_dynrefer.synthetic.scene_vocabulary import attribute_vector
from lavis_dynrefer.synthetic.scene_world import CATEGORIES, HEIGHT, WIDTH, held_out_pairs, split_of

Row = dict[str, Any]

_IDS_PER_SCENE = 100  # region ids of scene i lie in [100 i, 100 i + 99]; they fit 32 bits
_STREAM = 98  # of random numbers, apart from those that lay the scene out
_IDS_PER_OBJECT = 4
_SECOND_SHORT = 0.25  # share of objects with two short captions instead of one, in training
_DATE = "2000-01-01 00:00:00"  # required by COCO; fixed, so that files are reproducible


def captions(scene: Scene) -> list[tuple[int, int, str, str]]:
    """(region id, number of the object, "full" or "short", phrase) for each region of a scene.

    Every object has a full caption. Only in training it also has one or two short ones: elsewhere
    the best answer for every region is known. The full ones come first, so that neighbours in the
    list are different objects, which suits batches with `regions_per_image`.
    """
    rng = RandomStream(scene.seed, scene.index, _STREAM)
    rows = []
    for number in range(len(scene.objects)):
        first_id = _IDS_PER_SCENE * scene.index + _IDS_PER_OBJECT * number
        rows.append((first_id, number, "full", full_caption(scene, number)))
        if split_of(scene.index) == "train":
            phrases = [short_caption(scene, number, rng)]
            if rng.chance(_SECOND_SHORT):
                phrases.append(short_caption(scene, number, rng))
            for offset, phrase in enumerate(dict.fromkeys(phrases), start=1):
                rows.append((first_id + offset, number, "short", phrase))
    return sorted(rows, key=lambda row: row[0] % _IDS_PER_OBJECT)


def region_descriptions(scene: Scene) -> list[Row]:
    """Regions of a scene in the V1.2 layout of Visual Genome."""
    rows = []
    for region_id, number, _, phrase in captions(scene):
        x1, y1, x2, y2 = (int(side) for side in scene.objects[number].box)
        rows.append(
            {
                "region_id": region_id,
                "width": x2 - x1,
                "height": y2 - y1,
                "image_id": scene.index,
                "phrase": phrase,
                "y": y1,
                "x": x1,
            }
        )
    return rows


def image_data(scene: Scene) -> Row:
    """Row of image_data.json, V1.2."""
    return {
        "width": WIDTH,
        "url": f"https://synthetic.invalid/VG_100K/{scene.index}.jpg",
        "height": HEIGHT,
        "image_id": scene.index,
        "coco_id": None,
        "flickr_id": None,
    }


def coco_image(scene: Scene) -> Row:
    """Row of `images` in COCO's and OVAD's files."""
    name = f"{scene.index:012d}.jpg"
    return {
        "license": 1,
        "file_name": name,
        "coco_url": f"https://synthetic.invalid/val2017/{name}",
        "height": HEIGHT,
        "width": WIDTH,
        "date_captured": _DATE,
        "flickr_url": f"https://synthetic.invalid/{name}",
        "id": scene.index,
    }


def coco_annotations(scene: Scene) -> list[Row]:
    """Rows of `annotations` of a COCO instances file, one for each object."""
    owner = owner_map(scene.objects)
    rows = []
    for region_id, number, _, _ in captions(scene):
        item = scene.objects[number]
        rows.append(
            {
                "segmentation": mask_polygons(owner == number),
                "area": float((owner == number).sum()),
                "iscrowd": 0,
                "image_id": scene.index,
                "bbox": list(xyxy_to_xywh(item.box)),
                "category_id": CATEGORIES.index(item.look.category) + 1,
                "id": region_id,
            }
        )
    return rows


def ovad_annotations(scene: Scene) -> list[Row]:
    """Rows of `annotations` of an OVAD file, one for each object, `id` still to be numbered."""
    rows = []
    for item in scene.objects:
        box = list(xyxy_to_xywh(item.box))
        rows.append(
            {
                "id": -1,
                "image_id": scene.index,
                "category_id": CATEGORIES.index(item.look.category) + 1,
                "area": box[2] * box[3],
                "iscrowd": 0,
                "bbox": box,
                "att_vec": attribute_vector(item.look),
            }
        )
    return rows


def truth_rows(scene: Scene) -> list[Row]:
    """The facts of each region, so that answers can be graded slot by slot.

    Keys: split, image_id, world, region_id (of region_descriptions, or the COCO annotation id),
    form ("full" or "short" caption), phrase, box (xyxy), visible (share of the object), overlap
    (largest intersection over union with the box of another object), held_out (the object's colour
    and category never occur together in training), facts (see `scene_captions.facts`), mask (run
    lengths of the visible pixels).
    """
    boxes = torch.tensor([item.box for item in scene.objects])
    overlaps = pairwise_iou(boxes, boxes).fill_diagonal_(0).amax(dim=1).tolist()
    owner = owner_map(scene.objects)
    masks = [encode_mask(owner == number) for number in range(len(scene.objects))]
    rows = []
    for region_id, number, form, phrase in captions(scene):
        item = scene.objects[number]
        rows.append(
            {
                "split": split_of(scene.index),
                "image_id": scene.index,
                "world": scene.world,
                "region_id": region_id,
                "form": form,
                "phrase": phrase,
                "box": list(item.box),
                "visible": round(item.visible, 3),
                "overlap": round(overlaps[number], 3),
                "held_out": (item.look.colour, item.look.category) in held_out_pairs(),
                "facts": facts(scene, number),
                "mask": masks[number],
            }
        )
    return rows


def mask_polygons(mask: np.ndarray) -> list[list[float]]:
    """Polygons x1, y1, x2, y2, ... around a mask, in pixels, as wide in each row as the mask.

    Holes and notches that do not reach the outer columns of a row are filled. The polygons span
    exactly the mask's box, because readers of COCO's format compute boxes from them.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    polygons = []
    for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
        left = mask[run].argmax(axis=1)
        right = mask.shape[1] - mask[run][:, ::-1].argmax(axis=1)
        down = _staircase(right, run)
        up = _staircase(left, run)[::-1]
        polygons.append([float(value) for point in down + up for value in point])
    return polygons


def _staircase(columns: np.ndarray, rows: np.ndarray) -> list[tuple[int, int]]:
    """Corners of the edge that runs down along the given column of each row."""
    turns = np.flatnonzero(np.diff(columns)) + 1
    starts, stops = [0, *turns], [*turns, len(rows)]
    return [
        (int(columns[a]), int(row))
        for a, b in zip(starts, stops)
        for row in (rows[0] + a, rows[0] + b)
    ]
