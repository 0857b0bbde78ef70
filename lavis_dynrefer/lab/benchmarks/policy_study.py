"""The effect of view policies in training and at inference, over several seeds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.lab.answer_grading import grade
from lavis_dynrefer.lab.benchmarks.resource_usage import Numbers
from lavis_dynrefer.paths import project_path
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.synthetic.scene_dataset import described_objects, split_sizes, write_dataset
from lavis_dynrefer.views.policies import check_policy_name

DATASET_SEED = 1  # as in train_tiny.yaml
PRETRAINED = "assets/tiny/pretrained.safetensors"
TUNING_SHARE = 3  # the second run sees a third of the training images
SHOWN = ("attribute_map", "category", "own", "relation", "reference", "full")


def measure_policies(
    folder: Path,
    *,
    train: Sequence[str],
    views: Sequence[str],
    seeds: int,
    scenes: int,
    split: str,
    images: int,
    world: str,
    rounds: int = 1000,
    options: Sequence[str] = (),
) -> Numbers:
    """Train models with every policy, from several seeds, and grade them with every policy.

    A model is trained like the embedded one, by train_tiny.yaml and then tune_tiny.yaml, from the
    same pretraining, for one epoch each. Models that are in the folder are not trained again, so
    other policies can be graded later.

    Args:
        folder: for the scenes and the checkpoints.
        train: policies to train with, as in `parse_policy`.
        views: policies to answer with.
        seeds: trainings with each policy.
        scenes: of the dataset.
        split: "val" or "test".
        images: of the split.
        world: "landmark" or "neighbour".
        rounds: of the bootstrap.
        options: further settings of the runs.

    Returns:
        Number -> "training, views" -> "percent [95 % interval] n=regions", averaged over seeds.
        The intervals cover images and seeds. The last rows are the embedded model's.
    """
    for policy in (*train, *views):
        check_policy_name(policy)
    folder = folder / f"{world}-{scenes}"
    root = folder / "scenes"
    write_dataset(root, scenes=scenes, seed=DATASET_SEED, world=world)
    common = [
        f"datasets.synthetic_region.build_info.root={root.resolve()}",
        f"datasets.synthetic_region.build_info.scenes={scenes}",
        f"datasets.synthetic_region.build_info.world={world}",
        *("run.max_epoch=1", "run.test_splits=[]", *options),
    ]
    checkpoints: dict[str, list[str | None]] = {
        policy: [_trained(folder, policy, seed, scenes, common) for seed in range(seeds)]
        for policy in train
    }
    checkpoints["embedded"] = [None]
    objects = described_objects(root, split, images)
    truth = [row for rows in objects.values() for row in rows]
    pairs = [(path, [row["box"] for row in rows]) for path, rows in objects.items()]
    results: dict[str, dict[str, str]] = {name: {} for name in SHOWN}
    for training, paths in checkpoints.items():
        predictors = [RegionPredictor("tiny", checkpoint=path) for path in paths]
        for policy in views:
            answers = [
                [answer for group in one.predict_iter(pairs, views=policy) for answer in group]
                for one in predictors
            ]
            numbers = grade(truth, *answers, rounds=rounds)["all"]
            for name in SHOWN:
                results[name][f"{training}, {policy}"] = str(numbers[name])
    return results


def _trained(folder: Path, policy: str, seed: int, scenes: int, options: list[str]) -> str:
    """Checkpoint of a model trained with a policy."""
    name = f"{policy.replace(':', '-')}-{seed}"
    tuning_images = max(1, split_sizes(scenes)["train"] // TUNING_SHARE)
    tuning = f"datasets.synthetic_region.build_info.max_images={tuning_images}"
    first = _run("train_tiny", folder / name / "first", policy, seed, options)
    parts = f"model.pretrained.parts=[{PRETRAINED},{first}]"
    return _run("tune_tiny", folder / name / "second", policy, seed, [*options, tuning, parts])


def _run(run: str, folder: Path, policy: str, seed: int, options: Sequence[str]) -> str:
    """Train in a subprocess unless a checkpoint exists; returns its path."""
    finished = sorted(folder.glob("*/checkpoint_last.pth"))
    if finished:
        return str(finished[-1])
    config: Any = OmegaConf.load(project_path(f"dynrefer/{run}.yaml"))
    del config.expected
    kind, _, scales = policy.partition(":")
    processor: dict[str, Any] = {"policy": kind}
    if scales:
        processor["scales"] = [float(scale) for scale in scales.split(",")]
    config.datasets.synthetic_region.vis_processor.train = processor
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, folder / "run.yaml")
    command = [sys.executable, "-m", "lavis_dynrefer.train", "--cfg-path", f"{folder / 'run.yaml'}"]
    settings = [f"run.seed={seed}", f"run.output_dir={folder.resolve()}"]
    command += ["--options", *settings, *options]
    if subprocess.run(command, check=False).returncode:
        raise InputError(f"training with {policy} failed; see its log above")
    return str(next(folder.glob("*/checkpoint_last.pth")))
