"""Annotations as this package keeps them: raw files to tables, tables to regions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lavis_dynrefer.datasets.prepared import RawDataset, open_prepared, prepare
from lavis_dynrefer.datasets.sources import visual_genome
from lavis_dynrefer.datasets.sources.collector import TRAIN, Stores
from lavis_dynrefer.datasets.sources.raw_files import Opener
from lavis_dynrefer.lab.benchmarks.annotation_reading import Source, measure_reading, seconds_spent
from lavis_dynrefer.lab.benchmarks.processes import Answer
from lavis_dynrefer.structures import RegionSet


def prepare_tables(raw: str, folder: str) -> Answer:
    """Raw files to tables, by what `dynrefer prepare` and the builders call."""
    dataset = raw_visual_genome(Path(raw))
    with seconds_spent() as spent:
        found = prepare(dataset, visual_genome.SPLITS, Path(folder))
    return {
        **spent,
        "raw_bytes": sum(path.stat().st_size for path in dataset.sources.values()),
        "table_bytes": sum(path.stat().st_size for path in Path(folder).rglob("*.arrow")),
        "regions": {split: len(region_set.regions) for split, region_set in found.items()},
        "dropped": {split: region_set.rejection_counts() for split, region_set in found.items()},
    }


def raw_visual_genome(root: Path) -> RawDataset:
    """Visual Genome V1.2 as its builder describes it; that needs LAVIS, which takes memory."""
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


def measure_tables(folder: str) -> Answer:
    """Open the training split of a prepared folder and read it; see `measure_reading`."""

    def opener() -> Source:
        region_set = open_prepared(folder, [TRAIN])[TRAIN]
        return Source(region_set, len(region_set.regions), region_set.regions.__getitem__)

    return measure_reading(opener)
