"""How often the CPU waits for the GPU. Each wait leaves the GPU idle until its next command."""

from __future__ import annotations

import pytest
import torch

from lavis_dynrefer import RegionPredictor
from lavis_dynrefer.explain.explanation import explain
from lavis_dynrefer.synthetic import make_scene, render
from lavis_dynrefer.views.policies import TaskPrior

# To the GPU: views, boxes, tokens of the control prompts. From it: tags, scores of attributes and
# categories together, tokens of the captions, their scores; familiarity, as the model has it.
CHUNK = 8
ROUTES = 2  # the routes; and attributes and categories no longer share their scores
# From it: scales, boxes and routes in one copy; views and boxes are there already.
EVALUATION_BATCH = CHUNK - 2 + 1
# For all views together and without each: route, control prompts, captions, losses, scores.
EXPLAINED_VIEW = 5

OTHER_ROUTES = {"caption": [0, 0.5], "tags": [0, 0.5], "attributes": [0, 0.1]}


@pytest.fixture(scope="module")
def scene():
    made = make_scene(5, 4_000_001)
    return render(made), [item.box for item in made.objects][:3]


@pytest.fixture(scope="module")
def predictor(gpu, scene):
    """Has embedded its vocabularies."""
    predictor = RegionPredictor("tiny", device=gpu.device, dtype="float32")
    predictor.predict(*scene)
    return predictor


@pytest.mark.parametrize("regions", [1, 3])
def test_a_chunk_of_any_size(gpu, predictor, scene, regions, record_property):
    image, boxes = scene
    predictor.predict(image, boxes[:regions])  # the step for so many regions is recorded now
    with gpu.counted() as waits:
        predictor.predict(image, boxes[:regions])

    record_property(f"waits, at most {CHUNK}", len(waits))
    assert len(waits) <= CHUNK, waits


def test_tasks_with_views_of_their_own(gpu, predictor, scene, record_property):
    views = TaskPrior({**OTHER_ROUTES, "categories": OTHER_ROUTES["attributes"]})
    with gpu.counted() as waits:
        predictor.predict(*scene, views=views)

    allowed = CHUNK + ROUTES
    record_property(f"waits, at most {allowed}", len(waits))
    assert len(waits) <= allowed, waits


def test_an_evaluation_batch(gpu, predictor, scene, record_property):
    sample = predictor.processor.crop(scene[0], torch.tensor(scene[1]))
    there = {key: value.to(gpu.device) for key, value in sample.items() if key != "routes"}
    there["routes"] = {task: route.to(gpu.device) for task, route in sample["routes"].items()}

    with gpu.counted() as waits:
        predictor.model.predict(there, dtype="float32")

    record_property(f"waits, at most {EVALUATION_BATCH}", len(waits))
    assert len(waits) <= EVALUATION_BATCH, waits


def test_an_explanation_of_any_number_of_regions(gpu, predictor, scene, record_property):
    encoded = predictor.encode(*scene)
    predictions = predictor.answer(encoded)
    views = encoded.samples[0]["views"].shape[1]

    with gpu.counted() as waits:
        explain(predictor, encoded, predictions=predictions)

    allowed = EXPLAINED_VIEW * (views + 1)
    record_property(f"waits, at most {allowed}", len(waits))
    assert len(waits) <= allowed, waits
