"""Milliseconds per region of the embedded model on one core, and of each step."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any

from PIL import Image

from lavis_dynrefer.images import pixel_boxes
from lavis_dynrefer.lab.benchmarks.measuring import Answer, one_thread, seconds_spent
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.questions import TASKS, Questions
from lavis_dynrefer.structures import Box
from lavis_dynrefer.synthetic import make_scene, render
from lavis_dynrefer.views.samples import concat_samples

BATCHES = (1, 8, 32)
DTYPES = ("float32", "bfloat16")
VIEWS = "fixed:0,0.5"  # two views; choosing them by the image prior costs more, see `loader`
_SEED, _FIRST = 5, 4_000_001  # scenes that no model was trained on
_SCENES = 8

Pairs = list[tuple[Image.Image, list[Box]]]


def measure_predict(*, repeats: int, dtypes: Sequence[str] = DTYPES) -> Answer:
    """Ask everything about regions of painted images, in batches of several sizes.

    The images are in memory, the embeddings of tags, attributes and categories cached. `all` is
    measured as a caller sees it, the steps one by one.

    Args:
        repeats: of each measurement; the median is reported.
        dtypes: of `RegionPredictor`.

    Returns:
        "dtype, batch size" -> step -> `ms` and `cpu_ms` per region: wall time and time of a core.
    """
    scenes = [make_scene(_SEED, _FIRST + number) for number in range(_SCENES)]
    images = [(render(scene), [item.box for item in scene.objects]) for scene in scenes]
    with one_thread():
        predictors = {dtype: RegionPredictor("tiny", device="cpu", dtype=dtype) for dtype in dtypes}
        return {
            f"{dtype}, batch {size}": _batch(predictor, images, size, repeats)
            for dtype, predictor in predictors.items()
            for size in BATCHES
        }


def _batch(predictor: RegionPredictor, images: Pairs, size: int, repeats: int) -> Answer:
    turns = islice(cycle(batches(images, size)), repeats + 1)
    rows = [_steps(predictor, pairs) for pairs in turns][1:]  # the first one warms up
    return {
        step: {
            kind: round(1000 / size * statistics.median(row[step][key] for row in rows), 3)
            for kind, key in {"ms": "seconds", "cpu_ms": "cpu_seconds"}.items()
        }
        for step in rows[0]
    }


def batches(images: Pairs, size: int) -> list[Pairs]:
    """Regions in batches of `size`, those of an image together; an incomplete batch is dropped."""
    regions = [(image, box) for image, boxes in images for box in boxes]
    found = []
    for start in range(0, len(regions) - size + 1, size):
        pairs: Pairs = []
        for image, box in regions[start : start + size]:
            if pairs and pairs[-1][0] is image:
                pairs[-1][1].append(box)
            else:
                pairs.append((image, [box]))
        found.append(pairs)
    return found


def _steps(predictor: RegionPredictor, pairs: Pairs) -> dict[str, dict[str, float]]:
    """Seconds of each step for one batch."""
    spent: dict[str, dict[str, float]] = {}

    def timed(step: str, work: Callable[[], Any]) -> Any:
        with seconds_spent() as seconds:
            result = work()
        spent[step] = seconds
        return result

    timed("all", lambda: predictor.predict_batch(pairs, views=VIEWS))
    sample = timed("crop views", lambda: _crop(predictor, pairs))
    answerer = predictor.answerer
    with predictor.using_model() as model:
        features = timed("encode views", lambda: answerer.encode(sample))
        encoded = timed("encode regions", lambda: model.encode_regions(features))
        queries = dict.fromkeys(TASKS, encoded)
        found = timed("tags", lambda: answerer.decode(queries, Questions(["tags"])))["tags"]
        labels = Questions(["attributes", "categories"])
        timed("attributes, categories", lambda: answerer.decode(queries, labels))
        prompts = [answerer.prompt((), tags) for tags in found]
        settings = model.caption_config.generation
        timed("caption", lambda: model.captioning.generate(encoded, prompts, settings))
    return spent


def _crop(predictor: RegionPredictor, pairs: Pairs) -> dict[str, Any]:
    samples = [
        sample
        for image, boxes in pairs
        for sample in predictor.crop(image, pixel_boxes(boxes, image.size), VIEWS)
    ]
    return concat_samples(samples)
