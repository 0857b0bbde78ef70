"""Milliseconds per region of the embedded model on the CPU."""

from __future__ import annotations

import statistics
from itertools import cycle, islice
from pathlib import Path

from PIL import Image

from lavis_dynrefer.lab.benchmarks.resource_usage import Numbers, seconds_spent
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.structures import Box
from lavis_dynrefer.synthetic import make_scene, render

BATCHES = (1, 8, 32)
DTYPES = ("float32", "bfloat16")
VIEWS = "fixed:0,0.5"  # two views; choosing them by the image prior costs more, see `loader`
_SEED, _FIRST, _SCENES = 5, 4_000_001, 8  # scenes that no model was trained on

Region = tuple[Image.Image, list[Box]]  # with one box


def measure_predict(folder: Path, *, repeats: int) -> Numbers:
    """All answers about regions of drawn images, in batches of several sizes.

    The images are in memory, the embeddings of tags, attributes and categories cached.

    Args:
        folder: not used.
        repeats: of each measurement; the median is reported.

    Returns:
        "dtype, batch size" -> `ms` and `cpu_ms` per region: wall time and processor time.
    """
    del folder
    scenes = [make_scene(_SEED, _FIRST + number) for number in range(_SCENES)]
    regions = [(render(scene), [item.box]) for scene in scenes for item in scene.objects]
    results = {}
    for dtype in DTYPES:
        predictor = RegionPredictor("tiny", device="cpu", dtype=dtype)
        for size in BATCHES:
            results[f"{dtype}, batch {size}"] = _batch(predictor, regions, size, repeats)
    return results


def _batch(
    predictor: RegionPredictor, regions: list[Region], size: int, repeats: int
) -> dict[str, float]:
    times = []
    stream = cycle(regions)
    for _ in range(repeats + 1):
        batch = list(islice(stream, size))
        with seconds_spent() as spent:
            predictor.predict_batch(batch, views=VIEWS)
        times.append(spent)
    times = times[1:]  # the first call warms up
    return {
        "ms": 1000 / size * statistics.median(spent["seconds"] for spent in times),
        "cpu_ms": 1000 / size * statistics.median(spent["cpu_seconds"] for spent in times),
    }
