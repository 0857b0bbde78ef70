"""The data layer at full size: preparing, opening, reading; beside pycocotools."""

from __future__ import annotations

import shutil
from pathlib import Path

from lavis_dynrefer.lab.benchmarks.annotation_reading import seconds_spent
from lavis_dynrefer.lab.benchmarks.generated_visual_genome import write_visual_genome
from lavis_dynrefer.lab.benchmarks.our_way import measure_tables, prepare_tables
from lavis_dynrefer.lab.benchmarks.processes import Answer, in_fresh_process
from lavis_dynrefer.lab.benchmarks.released_way import cut_sample, measure_released_way


def measure_data(folder: Path, *, images: int, regions: int, sample: int) -> Answer:
    """Generate raw files unless they are there, and measure each step in a process of its own.

    Args:
        folder: gets the raw files and the tables; about 2 GB at full size.
        images: in the generated dataset.
        regions: in the generated dataset.
        sample: regions of the comparison with pycocotools, at most those of the training split.

    Returns:
        Step -> its numbers, in seconds and bytes.
    """
    own = folder / f"generated-{images}-{regions}"
    raw, tables, part, released = (own / name for name in ("raw", "tables", "sample", "all.json"))
    with seconds_spent() as generating:
        write_visual_genome(raw, images=images, regions=regions)
    for old in (tables, part):
        shutil.rmtree(old, ignore_errors=True)
    return {
        "generate": generating,
        "prepare": in_fresh_process(prepare_tables, raw=str(raw), folder=str(tables)),
        "sample": in_fresh_process(
            cut_sample,
            prepared=str(tables),
            folder=str(part),
            released=str(released),
            count=sample,
        ),
        "train": in_fresh_process(measure_tables, folder=str(tables)),
        "sample_tables": in_fresh_process(measure_tables, folder=str(part)),
        "sample_released": in_fresh_process(measure_released_way, path=str(released)),
    }
