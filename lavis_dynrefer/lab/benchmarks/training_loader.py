"""Regions per second of the training loader, and the time of its steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader

from lavis_dynrefer.datasets.prepared import prepare
from lavis_dynrefer.datasets.region_dataset import RegionDataset, read_image
from lavis_dynrefer.datasets.sources.collector import TRAIN
from lavis_dynrefer.host.processors import TrainProcessor
from lavis_dynrefer.lab.benchmarks.annotations import raw_visual_genome
from lavis_dynrefer.lab.benchmarks.generated_visual_genome import paint_jpeg, write_visual_genome
from lavis_dynrefer.lab.benchmarks.measuring import Answer, one_thread, seconds_spent
from lavis_dynrefer.structures import RegionSet
from lavis_dynrefer.views.hashing import HASHES
from lavis_dynrefer.views.policies import ImagePrior, RandomScales

VIEWS, SIZE = 3, 224  # of the released model
REGIONS_PER_IMAGE = 50  # of Visual Genome
GROUPS = (1, 2, 4, 8)  # regions_per_image
BATCH = 16  # regions
_IMAGES_PER_STEP = 100  # images


def measure_loader(folder: Path, *, images: int, regions: int) -> Answer:
    """Paint images unless they exist, and load their regions as training does, on one core.

    Args:
        folder: for the images and their tables.
        images: images to paint; about 7 of 10 are in the training split.
        regions: loaded for each value of regions_per_image.

    Returns:
        `loader`: regions_per_image -> regions per second; `steps`: milliseconds per image or per
        region, as the name says; `image_bytes`: mean size of a file.
    """
    raw, tables = (folder / f"painted-{images}" / name for name in ("raw", "tables"))
    write_visual_genome(raw, images=images, regions=REGIONS_PER_IMAGE * images, paint=paint_jpeg)
    region_set = prepare(raw_visual_genome(raw), [TRAIN], tables)[TRAIN]
    files = [path.stat().st_size for path in raw.glob("VG_100K*/*.jpg")]
    with one_thread():
        return {
            "loader": {group: _regions_per_second(region_set, group, regions) for group in GROUPS},
            "steps": _steps(region_set),
            "image_bytes": sum(files) / len(files),
        }


def _regions_per_second(region_set: RegionSet, group: int, regions: int) -> float:
    """Of one core, in shuffled order."""
    processor = TrainProcessor(RandomScales(VIEWS), image_size=SIZE)
    dataset = RegionDataset(region_set, processor, str, train=True, regions_per_image=group)
    loader = DataLoader(
        dataset,
        batch_size=max(1, BATCH // group),
        shuffle=True,
        generator=torch.Generator().manual_seed(0),
        collate_fn=dataset.collater,
    )
    with seconds_spent() as spent:
        loaded = 0
        for batch in loader:
            loaded += len(batch["region_ids"])
            if loaded >= regions:
                break
    return loaded / spent["cpu_seconds"]


def _steps(region_set: RegionSet) -> dict[str, float]:
    """Milliseconds of each step."""
    records = list(islice(region_set.images.values(), _IMAGES_PER_STEP))
    boxes = {record.image_id: [] for record in records}
    for region in region_set.regions:
        if region.image_id in boxes:
            boxes[region.image_id].append(region.box)
    with seconds_spent() as decoding:
        images = [read_image(record) for record in records]
    pairs = [
        (image, torch.tensor(boxes[record.image_id][:4])) for image, record in zip(images, records)
    ]
    views = TrainProcessor(RandomScales(VIEWS), image_size=SIZE)
    count = sum(len(regions) for _, regions in pairs)
    return {
        "decode, per image": 1000 * decoding["cpu_seconds"] / len(records),
        f"{VIEWS} views, per region": _milliseconds(views, pairs) / count,
        **{
            f"image prior by {name}, per region": _milliseconds(prior.plan, pairs) / count
            for name in HASHES
            for prior in [ImagePrior(VIEWS, hash=name)]
        },
    }


def _milliseconds(
    function: Callable[[Image.Image, torch.Tensor], object],
    pairs: Sequence[tuple[Image.Image, torch.Tensor]],
) -> float:
    with seconds_spent() as spent:
        for image, boxes in pairs:
            function(image, boxes)
    return 1000 * spent["cpu_seconds"]
