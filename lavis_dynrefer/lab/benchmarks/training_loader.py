"""Regions per second of the training loader, and the time of its steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from lavis_dynrefer.datasets.region_dataset import RegionDataset, read_image
from lavis_dynrefer.datasets.sources.region_collector import TRAIN
from lavis_dynrefer.datasets.sources.visual_genome import read_visual_genome
from lavis_dynrefer.host.processors import TrainProcessor
from lavis_dynrefer.lab.benchmarks.resource_usage import Numbers, seconds_spent
from lavis_dynrefer.lab.benchmarks.table_speed import FILES
from lavis_dynrefer.structures import RegionSet
from lavis_dynrefer.synthetic import write_dataset
from lavis_dynrefer.views.hashing import HASHES
from lavis_dynrefer.views.policies import ImagePrior, RandomScales

VIEWS, SIZE = 3, 224  # of the released model
GROUPS = (1, 2, 4, 8)  # regions_per_image
BATCH = 16  # regions
_IMAGES_PER_STEP, _REGIONS_PER_STEP = 100, 4


def measure_loader(folder: Path, *, images: int, regions: int) -> Numbers:
    """Draw scenes unless they exist, and load their regions as training does, in this process.

    Args:
        folder: for the images.
        images: images to draw; 8 of 10 are in the training split.
        regions: loaded for each value of regions_per_image.

    Returns:
        `loader`: regions_per_image -> regions per CPU second; `steps`: CPU milliseconds per image
        or per region, as the name says.
    """
    root = folder / f"scenes-{images}"
    write_dataset(root, scenes=images, seed=0)
    rows, listed, chosen = (root / "vg" / file.name for file in FILES)
    region_set = read_visual_genome(rows, listed, chosen, root / "vg/images", splits=[TRAIN])[TRAIN]
    return {
        "loader": {str(group): _rate(region_set, group, regions) for group in GROUPS},
        "steps": _steps(region_set),
    }


def _rate(region_set: RegionSet, group: int, regions: int) -> float:
    """Regions per CPU second, in shuffled order."""
    processor = TrainProcessor(RandomScales(VIEWS), image_size=SIZE)
    dataset = RegionDataset(region_set, processor, str, train=True, regions_per_image=group)
    loader = DataLoader(
        dataset,
        batch_size=max(1, BATCH // group),
        shuffle=True,
        generator=torch.Generator().manual_seed(0),
        collate_fn=dataset.collater,
    )
    loaded = 0
    with seconds_spent() as spent:
        for batch in loader:
            loaded += len(batch["region_ids"])
            if loaded >= regions:
                break
    return loaded / spent["cpu_seconds"]


def _steps(region_set: RegionSet) -> dict[str, float]:
    boxes: dict[Any, list[Any]] = {}
    for region in region_set.regions:
        boxes.setdefault(region.image_id, []).append(region.box)
    chosen = list(boxes)[:_IMAGES_PER_STEP]
    with seconds_spent() as decoding:
        images = [read_image(region_set.images[image_id]) for image_id in chosen]
    some = [torch.tensor(boxes[image_id][:_REGIONS_PER_STEP]) for image_id in chosen]
    count = sum(map(len, some))

    def per_region(function: Callable[..., object]) -> float:
        with seconds_spent() as spent:
            for image, rows in zip(images, some):
                function(image, rows)
        return 1000 * spent["cpu_seconds"] / count

    steps = {
        "decode, per image": 1000 * decoding["cpu_seconds"] / len(images),
        f"{VIEWS} views": per_region(TrainProcessor(RandomScales(VIEWS), image_size=SIZE)),
    }
    for name in HASHES:
        steps[f"image prior, {name}"] = per_region(ImagePrior(VIEWS, hash=name).plan)
    return steps
