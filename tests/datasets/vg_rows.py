"""Rows of Visual Genome's raw files, valid by default, and ways to write and read them."""

from __future__ import annotations

import json

from lavis_dynrefer.datasets.sources.visual_genome import read_visual_genome

WIDTH, HEIGHT = 800, 600  # of every image
NAMES = ("region_descriptions", "image_data", "densecap_splits")


def region(region_id, phrase="a dog", box=(10, 10, 20, 20), **keys):
    x, y, width, height = box
    sides = {"x": x, "y": y, "width": width, "height": height}
    return {"region_id": region_id, "image_id": 1, "phrase": phrase, **sides, **keys}


def image(image_id, **keys):
    row = {"image_id": image_id, "width": WIDTH, "height": HEIGHT, "coco_id": None}
    return {**row, "url": f"https://example.org/VG_100K_2/{image_id}.jpg", **keys}


def old_region(region_id):
    return {"id": region_id, "image": 1, "phrase": "a dog", "x": 1, "y": 1, "width": 9, "height": 9}


def old_image(image_id):
    row = image(image_id)
    row["id"] = row.pop("image_id")
    return row


def one_each(*image_ids):
    """Entries of `region_descriptions` with one valid region of the same number."""
    return [{"id": number, "regions": [region(number)]} for number in image_ids]


def write_raw(folder, entries, images, splits):
    """Write the three files; returns name -> path."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.json" for name in NAMES}
    for path, content in zip(paths.values(), (entries, images, splits)):
        path.write_text(json.dumps(content), encoding="utf-8")
    return paths


def write_and_read(
    folder,
    rows=(),
    *,
    entries=None,
    images=None,
    splits=None,
    only=("val",),
    **options,
):
    """Read split "val" of image 1, whose region 1 is valid; `rows` are its other regions."""
    paths = write_raw(
        folder,
        entries or [{"id": 1, "regions": [region(1), *rows]}],
        images or [image(n) for n in (1, 2, 3)],
        {"train": [], "val": [1], "test": [], **(splits or {})},
    )
    found = read_visual_genome(*paths.values(), folder / "images", splits=only, **options)
    return found if len(only) > 1 else found[only[0]]


def touch_images(folder):
    """Files for images 1 to 3."""
    (folder / "images/VG_100K_2").mkdir(parents=True)
    for number in (1, 2, 3):
        (folder / f"images/VG_100K_2/{number}.jpg").touch()


def kept(region_set):
    """Region id -> box."""
    return {item.region_id: item.box for item in region_set.regions}
