"""Annotations of full size: preparing, opening and reading tables."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lavis_dynrefer.datasets.prepared import RawDataset, open_prepared, prepare
from lavis_dynrefer.datasets.sources import visual_genome
from lavis_dynrefer.datasets.sources.raw_files import Opener
from lavis_dynrefer.datasets.sources.region_collector import TRAIN, Stores
from lavis_dynrefer.lab.benchmarks.resource_usage import (
    Numbers,
    in_fresh_process,
    resident_memory,
    seconds_spent,
)
from lavis_dynrefer.structures import RegionSet
from lavis_dynrefer.synthetic import make_scene, raw_formats

FILES = (visual_genome.REGION_DESCRIPTIONS, visual_genome.IMAGE_DATA, visual_genome.SPLITS_FILE)
_SCENES = 100  # whose regions are repeated
_EVALUATION = 0.046  # share of the images in val and in test, as in densecap_splits.json
_RANDOM_READS, _SEQUENTIAL_READS = 100_000, 400_000


def measure_data(folder: Path, *, images: int, regions_per_image: int) -> Numbers:
    """Generate raw files unless they exist, and measure each step in a fresh process.

    Args:
        folder: for the raw files and the tables; about 2 GB at full size.
        images: in the generated dataset.
        regions_per_image: in the generated dataset.

    Returns:
        Step -> its numbers, in seconds and bytes.
    """
    folder = folder / f"generated-{images}-{regions_per_image}"
    raw, tables = folder / "raw", folder / "tables"
    with seconds_spent() as generating:
        if not (raw / FILES[-1].name).exists():
            write_raw_files(raw, images, regions_per_image)
    shutil.rmtree(tables, ignore_errors=True)
    return {
        "generate": generating,
        "prepare": in_fresh_process(prepare_tables, raw=raw, folder=tables),
        "read": in_fresh_process(read_tables, folder=tables),
    }


def write_raw_files(root: Path, images: int, regions_per_image: int) -> None:
    """Write Visual Genome's files by repeating the regions of some scenes.

    The images are empty files: preparing only reads their names.
    """
    scenes = [make_scene(0, index) for index in range(1, _SCENES + 1)]
    image = raw_formats.image_data(scenes[0])
    regions = itertools.cycle(
        row for scene in scenes for row in raw_formats.region_descriptions(scene)
    )
    (root / "VG_100K").mkdir(parents=True, exist_ok=True)
    ids = range(1, images + 1)
    for image_id in ids:
        (root / "VG_100K" / f"{image_id}.jpg").touch()

    def described(image_id: int) -> dict[str, Any]:
        rows = itertools.islice(regions, regions_per_image)
        first = image_id * regions_per_image
        named = [
            {**row, "region_id": first + number, "image_id": image_id}
            for number, row in enumerate(rows)
        ]
        return {"regions": named, "id": image_id}

    _write_list(root / FILES[0].name, map(described, ids))
    rows = ({**image, "image_id": i, "url": f"https://x.invalid/VG_100K/{i}.jpg"} for i in ids)
    _write_list(root / FILES[1].name, rows)
    some = max(1, round(_EVALUATION * images))
    splits = {"train": ids[2 * some :], "val": ids[:some], "test": ids[some : 2 * some]}
    content = {split: list(chosen) for split, chosen in splits.items()}
    (root / FILES[2].name).write_text(json.dumps(content), encoding="utf-8")


def _write_list(path: Path, rows: Iterable[Any]) -> None:
    """A json list, written item by item."""
    with path.open("w", encoding="utf-8") as file:
        for number, row in enumerate(rows):
            file.write((", " if number else "[") + json.dumps(row))
        file.write("]")


def prepare_tables(raw: Path, folder: Path) -> Numbers:
    """Convert raw files to tables as `dynrefer prepare` does."""
    sources = {file.setting: raw / file.name for file in FILES}

    def read(splits: Sequence[str], stores: Stores, opener: Opener) -> dict[str, RegionSet]:
        regions, images, chosen = sources.values()
        return visual_genome.read_visual_genome(
            regions, images, chosen, raw, splits=splits, stores=stores, opener=opener
        )

    with seconds_spent() as spent:
        dataset = RawDataset("vg_region", "v1.2", None, sources, raw, read)
        prepared = prepare(dataset, visual_genome.SPLITS, folder)
    return {
        **spent,
        "raw_bytes": sum(path.stat().st_size for path in sources.values()),
        "table_bytes": sum(path.stat().st_size for path in folder.rglob("*.arrow")),
        "regions": {split: len(region_set.regions) for split, region_set in prepared.items()},
    }


def read_tables(folder: Path) -> Numbers:
    """Open the training split, then read regions at random and in order.

    Returns:
        Memory in bytes `before` opening, when `opened`, and after `random_reads`; seconds to
        `open`; regions per CPU second, `random` and `sequential`.
    """
    before = resident_memory()
    with seconds_spent() as opening:
        regions = open_prepared(folder, [TRAIN])[TRAIN].regions
    opened = resident_memory()
    rows = np.random.default_rng(0).integers(len(regions), size=_RANDOM_READS).tolist()
    with seconds_spent() as at_random:
        for row in rows:
            regions[row]
    random_reads = resident_memory()
    sequential = min(_SEQUENTIAL_READS, len(regions))
    with seconds_spent() as in_order:
        for row in range(sequential):
            regions[row]
    return {
        "regions": len(regions),
        "before": before,
        "open": opening,
        "opened": opened,
        "random_reads": random_reads,
        "random": len(rows) / at_random["cpu_seconds"],
        "sequential": sequential / in_order["cpu_seconds"],
    }
