"""Annotations of full size: preparing, opening and reading tables, compared with pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from lavis_dynrefer.datasets.prepared import RawDataset, open_prepared, prepare
from lavis_dynrefer.datasets.sources import visual_genome
from lavis_dynrefer.datasets.sources.collector import TRAIN, RegionCollector, Stores
from lavis_dynrefer.datasets.sources.raw_files import Opener
from lavis_dynrefer.lab.benchmarks.generated_visual_genome import write_visual_genome
from lavis_dynrefer.lab.benchmarks.measuring import (
    Answer,
    in_forked_workers,
    in_fresh_process,
    resident_memory,
    seconds_spent,
)
from lavis_dynrefer.structures import RegionSet

READS = 100_000
IN_A_ROW = 400_000
WORKERS = 4
TAGS_PER_CAPTION = 1.76  # mean of 1,174 real captions in the released data
TAG_LIST = 4585  # tags of RAM


@dataclass(frozen=True)
class Source:
    """Opened annotations.

    Args:
        content: what a loader process is given.
        length: number of regions.
        read: row -> region.
    """

    content: Any
    length: int
    read: Callable[[int], Any]


def measure_data(folder: Path, *, images: int, regions: int, sample: int) -> Answer:
    """Generate raw files unless they exist, and measure each step in a process of its own.

    Args:
        folder: for the raw files and the tables; about 2 GB at full size.
        images: in the generated dataset.
        regions: in the generated dataset.
        sample: regions to compare with pycocotools, at most those of the training split.

    Returns:
        Step -> its numbers, in seconds and bytes.
    """
    own = folder / f"generated-{images}-{regions}"
    raw, tables, part, released = (own / name for name in ("raw", "tables", "sample", "all.json"))
    with seconds_spent() as generating:
        write_visual_genome(raw, images=images, regions=regions)
    for old in (tables, part):
        shutil.rmtree(old, ignore_errors=True)
    cut = {"prepared": tables, "folder": part, "released": released, "count": sample}
    return {
        "generate": generating,
        "prepare": in_fresh_process(prepare_tables, raw=raw, folder=tables),
        "sample": in_fresh_process(write_sample, **cut),
        "train": in_fresh_process(measure_tables, folder=tables),
        "sample_tables": in_fresh_process(measure_tables, folder=part),
        "sample_pycocotools": in_fresh_process(measure_pycocotools, path=released),
    }


def prepare_tables(raw: Path, folder: Path) -> Answer:
    """Convert raw files to tables as `dynrefer prepare` and the builders do."""
    dataset = raw_visual_genome(raw)
    with seconds_spent() as spent:
        found = prepare(dataset, visual_genome.SPLITS, folder)
    return {
        **spent,
        "raw_bytes": sum(path.stat().st_size for path in dataset.sources.values()),
        "table_bytes": sum(path.stat().st_size for path in folder.rglob("*.arrow")),
        "regions": {split: len(region_set.regions) for split, region_set in found.items()},
        "dropped": {split: region_set.rejection_counts() for split, region_set in found.items()},
    }


def raw_visual_genome(root: Path) -> RawDataset:
    """The generated raw files."""
    files = (
        visual_genome.REGION_DESCRIPTIONS,
        visual_genome.IMAGE_DATA,
        visual_genome.SPLITS_FILE,
    )
    sources = {file.setting: root / file.name for file in files}

    def read(splits: Sequence[str], stores: Stores, opener: Opener) -> dict[str, RegionSet]:
        return visual_genome.read_visual_genome(
            *sources.values(), root, splits=splits, stores=stores, opener=opener
        )

    return RawDataset("vg_region", "v1.2", None, sources, root, read)


def write_sample(prepared: Path, folder: Path, released: Path, count: int) -> Answer:
    """The first training regions as tables, and as the released code's json with random tags."""
    whole = open_prepared(prepared, [TRAIN])[TRAIN]
    regions = list(islice(whole.regions, count))
    images = [
        whole.images[image_id] for image_id in dict.fromkeys(region.image_id for region in regions)
    ]

    def read(splits: Sequence[str], stores: Stores, opener: Opener) -> dict[str, RegionSet]:
        del opener
        collector = RegionCollector("sample", TRAIN, stores)
        for region in regions:
            collector.add(region, whole.images[region.image_id])
        return dict.fromkeys(splits, collector.finish())

    prepare(
        RawDataset("sample", "", None, {}, Path(images[0].path).parents[1], read), [TRAIN], folder
    )
    rng = np.random.default_rng(0)
    annotations = []
    for region in regions:
        x1, y1, x2, y2 = map(int, region.box)
        tags = rng.integers(TAG_LIST, size=rng.poisson(TAGS_PER_CAPTION)).tolist()
        annotations.append(
            {
                "id": region.region_id,
                "image_id": region.image_id,
                "caption": region.caption,
                "bbox": [x1, y1, x2, y2],
                "segmentation": [[x1, y1, x1, y2, x2, y2, x2, y1]],
                "extra_info": {
                    "vg_result": {},
                    "parser_result": {"tag_set1": tags[::2], "tag_set2": tags[1::2]},
                },
            }
        )
    rows = [
        {
            "id": image.image_id,
            "file_name": Path(image.path).name,
            "height": image.height,
            "width": image.width,
        }
        for image in images
    ]
    released.write_text(json.dumps({"images": rows, "annotations": annotations}), encoding="utf-8")
    return {"regions": len(regions), "json_bytes": released.stat().st_size}


def measure_tables(folder: Path) -> Answer:
    """Open the training split of a prepared folder and read it; see `measure_reading`."""

    def opener() -> Source:
        region_set = open_prepared(folder, [TRAIN])[TRAIN]
        return Source(region_set, len(region_set.regions), region_set.regions.__getitem__)

    return measure_reading(opener)


def measure_pycocotools(path: Path) -> Answer:
    """Open the released code's json and read it; see `measure_reading`."""
    from pycocotools.coco import COCO

    def opener() -> Source:
        with contextlib.redirect_stdout(io.StringIO()):  # for its progress
            content = COCO(path)
        keys = content.getAnnIds()
        return Source(content, len(keys), lambda row: content.loadAnns(keys[row])[0])

    return measure_reading(opener)


def measure_reading(opener: Callable[[], Source]) -> Answer:
    """Open, read at random, read in a row, and read at random in forked workers.

    Returns:
        Memory in bytes `before` opening, when `opened`, and `after_reads` random `reads`; seconds
        to `open`; regions per second of one core, `random` and `in_a_row`; mean memory of a
        `worker`; `pickled`, the bytes sent to a spawned worker.
    """
    places = np.random.default_rng(0).random(READS).tolist()  # before memory is measured
    before = resident_memory()
    with seconds_spent() as opening:
        source = opener()
    opened = resident_memory()
    reads, in_a_row = min(READS, source.length), min(IN_A_ROW, source.length)
    with seconds_spent() as at_random:
        for place in places[:reads]:
            source.read(int(place * source.length))
    after_reads = resident_memory()
    with seconds_spent() as straight:
        for row in range(in_a_row):
            source.read(row)

    def work(number: int) -> None:
        for place in np.random.default_rng(number).random(reads).tolist():
            source.read(int(place * source.length))

    workers = in_forked_workers(work, WORKERS)
    return {
        "regions": source.length,
        "reads": reads,
        "before": before,
        "open": opening,
        "opened": opened,
        "after_reads": after_reads,
        "random": reads / at_random["cpu_seconds"],
        "in_a_row": in_a_row / straight["cpu_seconds"],
        "worker": {kind: sum(worker[kind] for worker in workers) / WORKERS for kind in workers[0]},
        "pickled": len(pickle.dumps(source.content)),
    }
