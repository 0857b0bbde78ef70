"""Milliseconds per region of the embedded model on one core, and where they go."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any

from PIL import Image

from lavis_dynrefer.lab.benchmarks.annotation_reading import seconds_spent
from lavis_dynrefer.lab.benchmarks.processes import Answer
from lavis_dynrefer.lab.benchmarks.training_loader import one_thread
from lavis_dynrefer.models.answering import Questions, answer, steering_words
from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.structures import Box
from lavis_dynrefer.synthetic import make_scene, render
from lavis_dynrefer.views.samples import concat_samples
from lavis_dynrefer.vocab.control_words import control_prompt

BATCHES = (1, 8, 32)
DTYPES = ("float32", "bfloat16")
VIEWS = "fixed:0,0.5"  # two views; choosing them by the image prior costs more, see `loader`
_SEED, _FIRST = 5, 4_000_001  # scenes nothing was trained on
_SCENES = 8

Pairs = list[tuple[Image.Image, list[Box]]]


def measure_predict(*, repeats: int, dtypes: Sequence[str] = DTYPES) -> Answer:
    """Ask everything about regions of painted images, in batches of several sizes.

    The images are in memory, the embeddings of tags, attributes and categories cached. The parts
    are measured one by one and `all` by itself, as a caller sees it.

    Args:
        repeats: of each measurement; the median counts.
        dtypes: precisions of `RegionPredictor`.

    Returns:
        dtype -> batch size -> part -> `ms` and `cpu_ms` per region: on the clock and of a core.
    """
    scenes = [make_scene(_SEED, _FIRST + number) for number in range(_SCENES)]
    images = [(render(scene), [item.box for item in scene.objects]) for scene in scenes]
    with one_thread():
        predictors = {dtype: RegionPredictor("tiny", device="cpu", dtype=dtype) for dtype in dtypes}
        return {
            dtype: {str(size): _batch(predictor, images, size, repeats) for size in BATCHES}
            for dtype, predictor in predictors.items()
        }


def _batch(predictor: RegionPredictor, images: Pairs, size: int, repeats: int) -> Answer:
    """Every part for batches of one size."""
    turns = islice(cycle(batches(images, size)), repeats + 1)
    rows = [_parts(predictor, pairs) for pairs in turns][1:]  # the first one warms up
    return {
        part: {
            kind: round(1000 / size * statistics.median(row[part][key] for row in rows), 3)
            for kind, key in {"ms": "seconds", "cpu_ms": "cpu_seconds"}.items()
        }
        for part in rows[0]
    }


def batches(images: Pairs, size: int) -> list[Pairs]:
    """Regions in batches of `size`, those of an image together; what is left over is left out."""
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


def _parts(predictor: RegionPredictor, pairs: Pairs) -> dict[str, dict[str, float]]:
    """Seconds of each part for one batch."""
    spent: dict[str, dict[str, float]] = {}

    def timed(part: str, work: Callable[[], Any]) -> Any:
        with seconds_spent() as seconds:
            result = work()
        spent[part] = seconds
        return result

    timed("all", lambda: predictor.predict_batch(pairs, views=VIEWS))
    samples = timed("cut views", lambda: _cut(predictor, pairs))
    with predictor.using_model() as model:
        features = timed(
            "encode views", lambda: model.encode_views(samples["views"], samples["boxes"])
        )
        queries = timed("encode regions", lambda: model.encode_regions(features))
        found = timed("tags", lambda: _ask(model, queries, "tags"))
        timed("attributes, categories", lambda: _ask(model, queries, "attributes", "categories"))
        prompts = [control_prompt(steering_words(model, (), tags)) for tags in found["tags"]]
        options = model.caption_config.generation
        timed("caption", lambda: model.captioning.generate(queries, prompts, options))
    return spent


def _cut(predictor: RegionPredictor, pairs: Pairs) -> dict[str, Any]:
    return concat_samples(
        [sample for image, boxes in pairs for sample in predictor.look(image, boxes, views=VIEWS)]
    )


def _ask(model: DynRefer, queries: Any, *tasks: str) -> dict[str, Sequence[Any]]:
    questions = Questions(
        tasks, model.attributes, model.categories, model.caption_config.generation
    )
    return answer(model, dict.fromkeys(tasks, queries), questions, [()] * len(queries))
