"""What answers about many regions take: hours, cores, bytes, files; with your own numbers.

python -m lavis_dynrefer.lab.benchmarks.scale_plan 1e8 --gpus 8 --cores 64
python -m lavis_dynrefer.lab.benchmarks.scale_plan 1e8 --regions-per-image 1 --decode-ms 9 \
    --views-ms 9.6 --image-bytes 430000

The defaults are the numbers of docs/at_scale.md. That of the GPU is counted, not measured.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, fields

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.metrics import plain_table


@dataclass(frozen=True)
class Costs:
    """What one image and one region cost.

    Args:
        regions_per_image: each image is read and decoded once.
        image_bytes: of a JPEG.
        decode_ms: of a core, for an image, with reading it.
        views_ms: of a core, for a region.
        answer_bytes: of a region, in Parquet.
        gpu_rate: regions per second of a GPU.
        cpu_seconds: of a core for a region, where there is no GPU.
        start_seconds: of a worker, until its first answer.
        shard_bytes: of images in a shard.
    """

    regions_per_image: float = 10
    image_bytes: float = 155_000
    decode_ms: float = 3.0
    views_ms: float = 2.6
    answer_bytes: float = 122
    gpu_rate: float = 166
    cpu_seconds: float = 17
    start_seconds: float = 22
    shard_bytes: float = 500e6


@dataclass(frozen=True)
class Plan:
    """What the whole job takes; `hours` by the clock, `limit` what they go into."""

    images: int
    image_bytes: float
    shards: int
    answer_bytes: float
    view_hours: float
    model_hours: float
    cores_per_gpu: float
    hours: float
    limit: str


def plan(regions: float, *, gpus: int, cores: int, costs: Costs = Costs()) -> Plan:
    """Count it, as if reading and model went on side by side, and nothing else held them up.

    Args:
        regions: all of them.
        gpus: 0: the cores are the model, too.
        cores: of all machines.
        costs: of an image and a region.

    Raises:
        InputError: no cores, or a cost that is not positive.
    """
    wrong = [field.name for field in fields(costs) if getattr(costs, field.name) <= 0]
    if wrong or cores < 1 or gpus < 0 or regions <= 0:
        raise InputError(
            f"expected regions, costs and cores above 0, got other {wrong or 'counts'}"
        )
    images = math.ceil(regions / costs.regions_per_image)
    per_region = (costs.decode_ms / costs.regions_per_image + costs.views_ms) / 1000  # core seconds
    view_hours = regions * per_region / 3600
    model_hours = regions / 3600 * (1 / costs.gpu_rate if gpus else costs.cpu_seconds)
    if gpus:
        shares = {"images": view_hours / cores, "GPU": model_hours / gpus}
    else:
        shares = {"CPU": (view_hours + model_hours) / cores}
    shares["start"] = costs.start_seconds / 3600
    working = (
        sum(shares.values()) if not gpus else shares["start"] + max(shares["images"], shares["GPU"])
    )
    return Plan(
        images=images,
        image_bytes=images * costs.image_bytes,
        shards=math.ceil(images * costs.image_bytes / costs.shard_bytes),
        answer_bytes=regions * costs.answer_bytes,
        view_hours=view_hours,
        model_hours=model_hours,
        cores_per_gpu=costs.gpu_rate * per_region,
        hours=working,
        limit=max(shares, key=lambda name: shares[name]),
    )


def main() -> None:
    """Print the plan for the numbers of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("regions", type=float)
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--cores", type=int, default=8)
    for field in fields(Costs):
        option = f"--{field.name.replace('_', '-')}"
        parser.add_argument(option, type=float, default=field.default)
    given = vars(parser.parse_args())
    regions, gpus, cores = (given.pop(name) for name in ("regions", "gpus", "cores"))
    found = plan(regions, gpus=gpus, cores=cores, costs=Costs(**given))
    rows = [
        ["images", f"{found.images:,}"],
        ["images, GB", f"{found.image_bytes / 1e9:,.1f}"],
        ["shards", f"{found.shards:,}"],
        ["answers, GB", f"{found.answer_bytes / 1e9:,.2f}"],
        ["decoding and views, core hours", f"{found.view_hours:,.1f}"],
        [f"model, {'GPU' if gpus else 'core'} hours", f"{found.model_hours:,.1f}"],
        *([["cores that keep a GPU busy", f"{found.cores_per_gpu:.1f}"]] if gpus else []),
        ["hours by the clock", f"{found.hours:,.2f}"],
        ["most of them for", found.limit],
    ]
    print(plain_table(["", "at least"], rows, numbers=1))


if __name__ == "__main__":
    main()
