"""The effect of view policies in training and at inference, over several seeds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.lab.answer_grading import grade
from lavis_dynrefer.lab.benchmarks.resource_usage import Numbers
from lavis_dynrefer.lab.policies.scale_answers import (
    BEST,
    HASH,
    ORACLE,
    OWN,
    SCALES,
    answers_at_scales,
    best_scale,
    columns_of,
    milliseconds,
)
from lavis_dynrefer.paths import project_path
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.structures import RegionPrediction
from lavis_dynrefer.synthetic.scene_dataset import described_objects, split_sizes, write_dataset
from lavis_dynrefer.views.policies import check_policy_name

DATASET_SEED = 1  # its training scenes are not those of train_tiny.yaml
PRETRAINED = "assets/tiny/pretrained.safetensors"
EMBEDDED = "assets/tiny/model.safetensors"
TUNING_SHARE = 3  # the second run, and that of a prior, see a third of the training images
SHOWN = ("attribute_map", "category", "own", "relation", "reference", "full")
TIMED_IMAGES = 6
VAL_IMAGES = 100  # of each world, to choose among a dozen scales
BY_LOSS = "random:loss"  # trains with random scales that are weighted by their losses


def measure_policies(
    folder: Path,
    *,
    train: Sequence[str],
    views: Sequence[str],
    seeds: int,
    scenes: int,
    split: str,
    images: int,
    world: Sequence[str],
    train_images: int | None = None,
    rounds: int = 1000,
    options: Sequence[str] = (),
) -> Numbers:
    """Train models with every policy, from several seeds, and grade them with every policy.

    A model is trained like the embedded one, by train_tiny.yaml and then tune_tiny.yaml, from the
    same pretraining, for one epoch each; for the policy "learned" then by train_policy_tiny.yaml.
    What is in the folder is used again, checkpoints as well as answers: a measurement that was
    stopped continues, and other policies can be graded later.

    Args:
        folder: for the scenes, the checkpoints and the answers.
        train: policies to train with, as in `parse_policy`, or `BY_LOSS`.
        views: policies to answer with, or `BEST`, `ORACLE`, `HASH` or `OWN`.
        seeds: trainings with each policy.
        scenes: of the dataset.
        split: "val" or "test"; `BEST` is always chosen on "val".
        images: of the split, of each world.
        world: names of worlds; the scenes are of each in turn.
        train_images: of the training split, of all worlds together; None: all.
        rounds: of the bootstrap.
        options: further settings of all runs, the same whenever the folder is used again.

    Returns:
        Number -> "world: training, views" -> "percent [95 % interval] n=regions", averaged over
        seeds. The intervals cover images and seeds. Also the time of a caption, and how often the
        first model of each training chose which scale for captions. The last rows are the embedded
        model's.
    """
    for policy in train:
        if policy != BY_LOSS:
            check_policy_name(policy)
    for policy in views:
        if policy not in (BEST, ORACLE, HASH, OWN):
            check_policy_name(policy)
    given = split_sizes(scenes)["train"]
    train_images = given if train_images is None else min(train_images, given)
    study = _Study(
        folder / f"{'+'.join(world)}-{scenes}", tuple(world), scenes, train_images, tuple(options)
    )
    write_dataset(study.root, scenes=scenes, seed=DATASET_SEED, world=list(world))
    places = {policy: [study.trained(policy, seed) for seed in range(seeds)] for policy in train}
    results: Numbers = {name: {} for name in (*SHOWN, "ms per region", "scales")}
    grading = _Grading(study, tuple(views), split, images, rounds)
    for training, folders in {**places, "embedded": [study.embedded()]}.items():
        models = [study.predictor(place, prior="learned" in views) for place in folders]
        for name in world:
            grading.add(results, name, training, list(zip(folders, models)))
    return results


@dataclass(frozen=True)
class _Study:
    """Where everything is, and how it is made."""

    folder: Path
    worlds: tuple[str, ...]
    scenes: int
    train_images: int
    options: tuple[str, ...]

    @property
    def root(self) -> Path:
        """Of the scenes."""
        return self.folder / "scenes"

    def objects(self, world: str, split: str, images: int) -> dict[Path, list[dict[str, Any]]]:
        """As `described_objects`, of one world."""
        found = described_objects(self.root, split)
        own = {path: rows for path, rows in found.items() if rows[0]["world"] == world}
        return dict(list(own.items())[:images])

    def trained(self, policy: str, seed: int) -> Path:
        """Folder of a model trained with a policy."""
        place = self.folder / f"{policy.replace(':', '-')}-{self.train_images}-{seed}"
        processor = _processor(policy)
        first = self._run("train_tiny", place / "first", processor, seed, self.train_images)
        parts = f"model.pretrained.parts={json.dumps([PRETRAINED, first])}"
        self._run("tune_tiny", place / "second", processor, seed, self._part, parts)
        return place

    def embedded(self) -> Path:
        """Folder of the embedded model."""
        return self.folder / "embedded"

    def predictor(self, place: Path, *, prior: bool) -> RegionPredictor:
        """The model of a folder, with a trained prior if that is needed."""
        second = sorted((place / "second").glob("*/checkpoint_last.pth"))
        if not second:
            predictor = RegionPredictor("tiny")
            head = predictor.model.scale_prior
            if not prior or (head is not None and head.steps):
                return predictor
        weights = [PRETRAINED, str(second[-1].resolve()) if second else EMBEDDED]
        content: Any = {"arch": "dynrefer", "model_type": "tiny", "load_finetuned": False}
        if prior:
            run: Any = OmegaConf.load(project_path("dynrefer/train_policy_tiny.yaml"))
            parts = f"model.pretrained.parts={json.dumps(weights)}"
            processor = run.datasets.synthetic_region.vis_processor.train
            weights.append(
                self._run(
                    "train_policy_tiny",
                    place / f"prior-{self._part}",
                    processor,
                    0,
                    self._part,
                    parts,
                )
            )
            content["scale_prior"] = OmegaConf.to_container(run.model.scale_prior)
        content["pretrained"] = {"parts": weights}
        place.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(OmegaConf.create({"model": content}), place / "model.yaml")
        return RegionPredictor(str(place / "model.yaml"))

    @property
    def _part(self) -> int:
        return max(1, self.train_images // TUNING_SHARE)

    def _run(
        self, run: str, folder: Path, processor: Any, seed: int, images: int, *options: str
    ) -> str:
        """Train in a subprocess, or go on with a run that was stopped; returns the checkpoint."""
        mark = folder / "finished"
        if mark.exists():
            return _last_checkpoint(folder)
        config: Any = OmegaConf.load(project_path(f"dynrefer/{run}.yaml"))
        config.pop("expected", None)
        config.datasets.synthetic_region.vis_processor.train = processor
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, folder / "run.yaml")
        worlds = ",".join(self.worlds)
        settings = [
            f"run.seed={seed}",
            f"run.output_dir={folder.resolve()}",
            f"datasets.synthetic_region.build_info.root={self.root.resolve()}",
            f"datasets.synthetic_region.build_info.scenes={self.scenes}",
            f"datasets.synthetic_region.build_info.seed={DATASET_SEED}",
            f"datasets.synthetic_region.build_info.max_images={images}",
            f"datasets.synthetic_region.build_info.world=[{worlds}]",
            *("run.max_epoch=1", "run.test_splits=[]", *options),
            *("run.resume_ckpt_path=auto", "run.resume_in_place=true", *self.options),
        ]
        command = [sys.executable, "-m", "lavis_dynrefer.train", "--cfg-path"]
        command += [f"{folder / 'run.yaml'}", "--options", *settings]
        if subprocess.run(command, check=False).returncode:
            raise InputError(f"training in {folder} failed; see its log above")
        mark.touch()
        return _last_checkpoint(folder)


def _last_checkpoint(folder: Path) -> str:
    return str(sorted(folder.glob("*/checkpoint_last.pth"))[-1].resolve())


def _processor(policy: str) -> dict[str, Any]:
    """A training processor with a policy of `train`."""
    kind, _, rest = policy.partition(":")
    if kind == "random":  # from the model's candidates
        return {"weights": rest} if policy == BY_LOSS else {}
    scales = [float(scale) for scale in rest.split(",")] if rest else []
    return {"policy": kind, **({"scales": scales} if scales else {})}


@dataclass(frozen=True)
class _Grading:
    """What is graded; see `measure_policies`."""

    study: _Study
    views: tuple[str, ...]
    split: str
    images: int
    rounds: int

    def add(
        self,
        results: Numbers,
        world: str,
        training: str,
        models: Sequence[tuple[Path, RegionPredictor]],
    ) -> None:
        """Add the numbers of the models of one training in one world."""
        truth, pairs = self._objects(world, self.split, self.images)
        scales = tuple(sorted({*SCALES, *_further(self.views)}))
        answers: dict[str, list[list[RegionPrediction]]] = {policy: [] for policy in self.views}
        chosen: list[dict[str, Sequence[int]]] = []
        bests = []
        for place, predictor in models:
            place.mkdir(parents=True, exist_ok=True)
            val_truth, val_pairs = self._objects(world, "val", VAL_IMAGES)
            val_file = place / f"answers-{world}-val-{VAL_IMAGES}-{len(scales)}.jsonl"
            on_val = answers_at_scales(predictor, val_pairs, val_file, scales)
            bests.append(best_scale(on_val, val_truth))
            file = place / f"answers-{world}-{self.split}-{self.images}-{len(scales)}.jsonl"
            known = answers_at_scales(predictor, pairs, file, scales)
            torch.manual_seed(0)  # random views
            columns = {
                policy: columns_of(policy, predictor, pairs, known, truth, bests[-1])
                for policy in self.views
            }
            chosen.append({policy: columns[policy]["caption"] for policy in self.views})
            for policy in self.views:
                answers[policy].append(known.chosen(columns[policy]))
        times = milliseconds(models[0][1], self.views, pairs[:TIMED_IMAGES], best=bests[0])
        for policy in self.views:
            row = f"{world}: {training}, {policy}"
            numbers = grade(truth, *answers[policy], rounds=self.rounds)["all"]
            for name in SHOWN:
                results[name][row] = str(numbers[name])
            results["ms per region"][row] = times.get(policy, float("nan"))
            counts = Counter(scales[column] for column in chosen[0][policy])
            results["scales"][row] = " ".join(
                f"{scale:g}:{100 * count / len(truth):.0f}%"
                for scale, count in sorted(counts.items())
            )

    def _objects(
        self, world: str, split: str, images: int
    ) -> tuple[list[dict[str, Any]], list[tuple[Path, list[Any]]]]:
        """Truth of the regions, and the images with their boxes."""
        objects = self.study.objects(world, split, images)
        truth = [row for rows in objects.values() for row in rows]
        return truth, [(path, [row["box"] for row in rows]) for path, rows in objects.items()]


def _further(views: Sequence[str]) -> list[float]:
    """Scales that are named."""
    named = [policy.partition(":")[2] for policy in views if policy.startswith("fixed:")]
    return [float(scale) for text in named for scale in text.split(",")]
