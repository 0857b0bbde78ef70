"""Whole calls of the embedded model, from images in memory to answers."""

from __future__ import annotations

import statistics
from itertools import cycle, islice

from lavis_dynrefer.lab.benchmarks.resource_usage import Numbers, seconds_spent
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.synthetic import make_scene, render

VIEWS = "fixed:0,0.5"  # two views; choosing them by the image prior costs more, see `views`
_SEED, _FIRST, _SCENES = 5, 4_000_001, 8  # scenes that no model was trained on


def measure_embedded(*, device: str, dtype: str, regions: int, repeats: int) -> Numbers:
    """All answers about regions of drawn images; the texts are embedded before.

    Args:
        device: as in `precision.choose_device`.
        dtype: as in `precision.NumberFormats`.
        regions: in one call, each of another image.
        repeats: calls, after one that warms up; the median is reported.

    Returns:
        `ms` and `cpu_ms` per region: time that passes, and processor time.
    """
    scenes = [make_scene(_SEED, _FIRST + number) for number in range(_SCENES)]
    stream = cycle([(render(scene), [item.box]) for scene in scenes for item in scene.objects])
    predictor = RegionPredictor("tiny", device=device, dtype=dtype)
    calls = []
    for _ in range(repeats + 1):
        batch = list(islice(stream, regions))
        with seconds_spent() as spent:
            predictor.predict_batch(batch, views=VIEWS)
        calls.append(spent)
    names = {"ms": "seconds", "cpu_ms": "cpu_seconds"}
    return {
        name: 1000 / regions * statistics.median(spent[key] for spent in calls[1:])
        for name, key in names.items()
    }
