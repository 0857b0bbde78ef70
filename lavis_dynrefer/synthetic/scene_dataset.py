"""Writing a synthetic dataset in the raw formats of Visual Genome, COCO and OVAD."""

from __future__ import annotations

import functools
import itertools
import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lavis_dynrefer.cores import map_in_processes
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.synthetic import raw_formats
from lavis_dynrefer.synthetic.drawn_folder import Drawing
from lavis_dynrefer.synthetic.scene_drawing import render
from lavis_dynrefer.synthetic.scene_layout import make_scene
from lavis_dynrefer.synthetic.scene_vocabulary import attribute_rows, category_rows
from lavis_dynrefer.synthetic.scene_world import SPLIT_START, check_split, check_world, split_of

logger = logging.getLogger(__name__)

Rows = dict[str, list[dict[str, Any]]]  # of all files, for one or more scenes

VERSION = 4  # of the generator; raise it when the same arguments give other data
_MANIFEST = "synthetic.json"
_FOLDERS = ("vg/images/VG_100K", "ovad", "coco/annotations", "coco/val2017")
_CURE = "; choose another `root`, or set DYNREFER_CACHE to a folder of your own"
_INFO = {
    "description": "Procedural scenes in the format of a public data set",
    "url": "https://synthetic.invalid",
    "version": str(VERSION),
    "year": 2000,
    "contributor": "lavis_dynrefer",
    "date_created": "2000/01/01",
}
_LICENSE = {"url": "https://creativecommons.org/publicdomain/zero/1.0/", "id": 1, "name": "CC0 1.0"}


def split_sizes(scenes: int) -> dict[str, int]:
    """Number of images of each split: 80/10/10 % of `scenes`, and another 10 % for val2017.

    Raises:
        InputError: fewer than 3 scenes.

    >>> split_sizes(100)
    {'train': 80, 'val': 10, 'test': 10, 'val2017': 10}
    """
    if scenes < 3:
        raise InputError(f"expected at least 3 scenes, one for each split, got {scenes}")
    tenth = max(1, scenes // 10)
    return {"train": scenes - 2 * tenth, "val": tenth, "test": tenth, "val2017": max(4, tenth)}


def write_dataset(
    root: Path,
    *,
    scenes: int,
    seed: int,
    world: str | Sequence[str] = "landmark",
    processes: int = 1,
) -> None:
    """Write images and annotations in the layout of the public datasets.

    Below `root`: `vg/` (region_descriptions.json, image_data.json, densecap_splits.json and
    images/VG_100K/), `ovad/ovad2000.json`, `coco/` (annotations/instances_val2017.json and
    val2017/), `truth.jsonl` with the facts of each region, and `synthetic.json` with the
    arguments. The folder appears when it is complete. If it already holds this dataset, nothing is
    done.

    Args:
        root: a new or empty folder, or one written before with the same arguments.
        scenes: images of the Visual Genome part; a tenth is added for COCO and OVAD.
        seed: any non-negative integer.
        world: see `make_scene`; of a list of worlds, the scenes of a split take one after the
            other, again and again.
        processes: number of processes; the result does not depend on it.

    Raises:
        InputError: too few scenes, an unknown world, or a folder with other content.
    """
    sizes = split_sizes(scenes)
    worlds = (world,) if isinstance(world, str) else tuple(world)
    for name in worlds or ("",):
        check_world(name)
    written = worlds[0] if len(worlds) == 1 else list(worlds)
    manifest = {"version": VERSION, "scenes": scenes, "seed": seed, "world": written}
    target = Drawing(root, _MANIFEST, manifest, what="the dataset", cure=_CURE)
    indices = [SPLIT_START[split] + i for split, size in sizes.items() for i in range(size)]
    with target.begin(_FOLDERS) as folder:
        if folder is None:
            logger.info("%s already holds this dataset", root)
            return
        rows: Rows = defaultdict(list)
        draw = functools.partial(_write_scene, folder, seed, worlds)
        for part in map_in_processes(draw, indices, processes, chunk=16):
            for name, items in part.items():
                rows[name] += items
        _write_annotations(folder, rows, sizes)
        _dump(folder / _MANIFEST, manifest)
    logger.info("wrote %d images, %d regions to %s", len(indices), len(rows["truth"]), root)


def read_truth(root: Path, split: str) -> dict[int, dict[str, Any]]:
    """Region id -> row of `raw_formats.truth_rows` for one split.

    Raises:
        InputError: no such split.
    """
    return {row["region_id"]: row for row in truth_of(root, split)}


def truth_of(root: Path, split: str) -> Iterator[dict[str, Any]]:
    """The rows of `read_truth`, one at a time: those of a large split need 2 kB of memory each.

    Raises:
        InputError: no such split.
    """
    check_split(split)
    start = json.dumps({"split": split})[:-1]
    with (root / "truth.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith(start):
                yield json.loads(line)


def described_objects(
    root: Path, split: str, images: int | None = None
) -> dict[Path, list[dict[str, Any]]]:
    """Image file -> rows of `read_truth` with full captions, one per object.

    Args:
        root: a dataset of `write_dataset`.
        split: one of its splits.
        images: at most this many, the first ones.
    """
    by_image: dict[Path, list[dict[str, Any]]] = {}
    for row in read_truth(root, split).values():
        if row["form"] == "full":
            by_image.setdefault(root / _image_file(row["image_id"]), []).append(row)
    return dict(itertools.islice(by_image.items(), images))


def _image_file(index: int) -> str:
    if split_of(index) == "val2017":
        return f"coco/val2017/{index:012d}.jpg"
    return f"vg/images/VG_100K/{index}.jpg"


def _write_scene(root: Path, seed: int, worlds: Sequence[str], index: int) -> Rows:
    place = index - SPLIT_START[split_of(index)]
    scene = make_scene(seed, index, worlds[place % len(worlds)])
    # JPEG with full colour resolution: a third of the bytes of PNG and 60 times faster to write.
    render(scene).save(root / _image_file(index), "JPEG", quality=95, subsampling=0)
    rows = {"truth": raw_formats.truth_rows(scene)}
    if split_of(index) == "val2017":
        rows["coco_images"] = [raw_formats.coco_image(scene)]
        rows["coco"] = raw_formats.coco_annotations(scene)
        rows["ovad"] = raw_formats.ovad_annotations(scene)
    else:
        rows["regions"] = [{"regions": raw_formats.region_descriptions(scene), "id": index}]
        rows["vg_images"] = [raw_formats.image_data(scene)]
    return rows


def _write_annotations(root: Path, rows: Rows, sizes: dict[str, int]) -> None:
    _dump(root / "vg/region_descriptions.json", rows["regions"])
    _dump(root / "vg/image_data.json", rows["vg_images"])
    splits = {
        name: list(range(SPLIT_START[name], SPLIT_START[name] + sizes[name]))
        for name in ("train", "val", "test")
    }
    _dump(root / "vg/densecap_splits.json", splits)
    head = {"info": _INFO, "licenses": [_LICENSE]}
    coco = {
        **head,
        "images": rows["coco_images"],
        "annotations": rows["coco"],
        "categories": category_rows(),
    }
    _dump(root / "coco/annotations/instances_val2017.json", coco)
    for position, row in enumerate(rows["ovad"]):  # OVAD's ids are list positions
        row["id"] = position
    ovad = {
        **head,
        "categories": [{**row, "isthing": 1, "ov_set": "base"} for row in category_rows()],
        "attributes": attribute_rows(),
        "images": rows["coco_images"],
        "annotations": rows["ovad"],
    }
    _dump(root / "ovad/ovad2000.json", ovad)
    with (root / "truth.jsonl").open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows["truth"])


def _dump(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
