"""The effect of dynamic resolution: view policies by task and by training, over several seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from lavis_dynrefer.lab.answer_grading import grade
from lavis_dynrefer.lab.benchmarks.encoded_scenes import (
    SCALES,
    EncodedObjects,
    answers_from,
    encode_scenes,
    train_on_encoded,
)
from lavis_dynrefer.lab.benchmarks.measuring import Answer
from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.paths import cache_dir, project_path
from lavis_dynrefer.questions import TASKS
from lavis_dynrefer.synthetic.dataset import VERSION, write_dataset
from lavis_dynrefer.views.policies import ImagePrior

FIXED = 0.5  # the paper's scale for captions
SINGLE = (0.0, 0.3, 0.5, 1.0)  # scales of models with one view
# Training -> scales of its views; None is a random scale, as in DynRefer. Models with a single view
# get it twice, so that all have the same parts.
TRAININGS: Mapping[str, tuple[float, float | None]] = {
    **{f"t = {scale} alone": (scale, scale) for scale in SINGLE},
    f"fixed 0, {FIXED}": (0.0, FIXED),
    "random": (0.0, None),
}
RUNS = ("dynrefer/train_tiny.yaml", "dynrefer/tune_tiny.yaml")  # one after the other
EMBEDDED = "embedded model"
# Task -> the number its scale is chosen by.
CHOSEN_BY = {"attributes": "attribute_map", "categories": "category", "caption": "full"}
PRIORS = {
    "image prior": ImagePrior(2),
    "image prior, official hash": ImagePrior(2, hash="official"),
}
SHOWN = ("attribute_map", "category", "own", "relation", "reference", "full")

Columns = Mapping[str, Tensor]  # task -> (R, 2) indices into `SCALES`


def measure_policies(
    *,
    scenes: int,
    train_images: int,
    images: int,
    steps: int,
    tuning_steps: int,
    seeds: int,
    world: str,
    rounds: int = 1000,
) -> Answer:
    """Train models in every way and ask them in every way.

    The scales of the task prior are chosen on the validation split by the models trained with
    random views; all numbers of the rows are of the test split.

    Args:
        scenes: of the dataset, which is drawn unless it is in the cache.
        train_images: images to train on.
        images: images of the validation and of the test split each.
        steps: of each training, as in train_tiny.yaml.
        tuning_steps: of each training after that, as in tune_tiny.yaml.
        seeds: trainings of each kind.
        world: "landmark" or "neighbour".
        rounds: of the bootstrap behind the intervals.

    Returns:
        `rows`: one for each training and policy: `training`, `policy`, `views` encoded per region
        for all tasks together, crops only `hashed`, and `numbers`, averaged over seeds;
        `task_scales`: task -> the scale chosen; `validation`: scale -> numbers of the models
        trained with random views.
    """
    root = cache_dir() / f"synthetic-v{VERSION}-{world}-{scenes}-1"
    write_dataset(root, scenes=scenes, seed=1, world=world)
    untrained = _untrained(0)
    train = encode_scenes(untrained, root, "train", images=train_images)
    models = {
        training: [_trained(train, scales, (steps, tuning_steps), seed) for seed in range(seeds)]
        for training, scales in TRAININGS.items()
    }
    del train
    models[EMBEDDED] = [DynRefer.from_pretrained("tiny").eval()]
    validation = encode_scenes(untrained, root, "val", images=images)
    test = encode_scenes(untrained, root, "test", images=images, policies=PRIORS)

    def graded(training: str, regions: EncodedObjects, columns: Columns) -> dict[str, Any]:
        answers = [answers_from(model, regions, columns) for model in models[training]]
        numbers = grade(regions.truth, *answers, rounds=rounds)["all"]
        return {name: vars(numbers[name]) for name in SHOWN}

    found = {scale: graded("random", validation, _same(validation, scale)) for scale in SCALES[1:]}
    task_scales = {
        task: max(found, key=lambda scale: found[scale][name]["value"])
        for task, name in CHOSEN_BY.items()
    }
    rows = [
        {
            "training": training,
            "policy": policy,
            "views": views,
            "hashed": len(SCALES) if policy in PRIORS else 0,
            "numbers": graded(training, test, columns),
        }
        for training, policy, views, columns in _questions(test, task_scales)
    ]
    validated = {str(scale): numbers for scale, numbers in found.items()}
    return {"rows": rows, "task_scales": task_scales, "validation": validated}


def _questions(
    test: EncodedObjects, task_scales: Mapping[str, float]
) -> list[tuple[str, str, int, Columns]]:
    """Training, policy, views encoded, and the views of each task."""
    questions = [
        (f"t = {scale} alone", f"t = {scale}", 1, _same(test, scale, first=scale))
        for scale in SINGLE
    ]
    generator = torch.Generator().manual_seed(0)
    second = torch.randint(1, len(SCALES), (len(test.truth),), generator=generator)
    by_task = {
        task: _pair(test, torch.tensor(round(10 * task_scales.get(task, task_scales["caption"]))))
        for task in TASKS
    }
    encoded = 1 + len(set(task_scales.values()))
    for training in (f"fixed 0, {FIXED}", "random", EMBEDDED):
        questions += [
            (training, f"fixed 0, {FIXED}", 2, _same(test, FIXED)),
            (training, "random", 2, _all(_pair(test, second))),
            *((training, name, 2, _all(_pair(test, test.chosen[name]))) for name in PRIORS),
            (training, "task prior", encoded, by_task),
        ]
    return questions


def _same(regions: EncodedObjects, scale: float, *, first: float = 0.0) -> Columns:
    return _all(_pair(regions, torch.tensor(round(10 * scale)), round(10 * first)))


def _pair(regions: EncodedObjects, second: Tensor, first: int = 0) -> Tensor:
    """(R, 2) indices into `SCALES`."""
    count = len(regions.truth)
    return torch.stack([torch.full((count,), first), second.expand(count)], dim=1)


def _all(columns: Tensor) -> Columns:
    return dict.fromkeys(TASKS, columns)


def _untrained(seed: int) -> DynRefer:
    """The embedded model as it is after pretraining."""
    config = OmegaConf.load(DynRefer.default_config_path("tiny")).model
    config.load_finetuned = False
    torch.manual_seed(seed)
    return DynRefer.from_config(config).eval()


def _trained(
    regions: EncodedObjects,
    scales: tuple[float, float | None],
    steps: tuple[int, int],
    seed: int,
) -> DynRefer:
    first, second = scales

    def columns(count: int, rng: torch.Generator) -> Tensor:
        if second is None:
            drawn = torch.randint(1, len(SCALES), (count,), generator=rng)
        else:
            drawn = torch.full((count,), round(10 * second))
        return torch.stack([torch.full((count,), round(10 * first)), drawn], dim=1)

    model = _untrained(seed)
    for (parts, rate), count in zip(phases(), steps):
        train_on_encoded(
            model, regions, columns, parts=parts, steps=count, seed=seed, learning_rate=rate
        )
    return model


def phases() -> list[tuple[Sequence[str], float]]:
    """The parts that each of `RUNS` trains, and its highest learning rate."""
    runs = [OmegaConf.load(project_path(name)) for name in RUNS]
    every_part = OmegaConf.load(DynRefer.default_config_path("tiny")).model.trainable
    return [(list(run.model.get("trainable", every_part)), run.run.init_lr) for run in runs]
