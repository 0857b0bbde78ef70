"""Answers of a model at every scale, from views encoded once; policies then only choose among them.

One answer for each region and scale decides about any number of policies: what a policy costs is
measured apart from it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.json_stream import replace_bytes
from lavis_dynrefer.images import as_boxes, open_image
from lavis_dynrefer.lab.caption_grading import grade_captions
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.questions import TASKS, Questions
from lavis_dynrefer.structures import RegionPrediction
from lavis_dynrefer.views.policies import (
    CANDIDATES,
    ConfidencePrior,
    FixedScales,
    ImagePrior,
    LearnedPrior,
    ViewPolicy,
    parse_policy,
)
from lavis_dynrefer.views.view_processor import ViewProcessor

logger = logging.getLogger(__name__)

Pairs = Sequence[tuple[Path, list[Any]]]  # image file, its boxes
SCALES = (0.0, *CANDIDATES)
# No names of policies: the best scale on validation for all regions, the best one of each region,
# the released hash, and what the model's yaml says.
BEST, ORACLE, HASH, OWN = "best", "oracle", "image:official", "own"


@dataclass(frozen=True)
class ScaleAnswers:
    """Predictions of one model.

    Args:
        scales: of the second view.
        by_scale: for each of them R predictions.
    """

    scales: tuple[float, ...]
    by_scale: tuple[tuple[RegionPrediction, ...], ...]

    def chosen(self, columns: Mapping[str, Sequence[int]]) -> list[RegionPrediction]:
        """R predictions, from task -> the column of each region."""
        rows = range(len(self.by_scale[0]))
        captions = [self.by_scale[columns["caption"][row]][row] for row in rows]
        return [
            replace(
                captions[row],
                **{
                    task: getattr(self.by_scale[columns[task][row]][row], task)
                    for task in TASKS
                    if task != "caption"
                },
            )
            for row in rows
        ]

    def column(self, scale: float) -> int:
        """Of a scale.

        Raises:
            InputError: it was not answered at.
        """
        distances = [abs(scale - known) for known in self.scales]
        best = int(np.argmin(distances))
        if distances[best] > 1e-4:
            raise InputError(f"expected a scale out of {list(self.scales)}, got {scale}")
        return best


def answers_at_scales(
    predictor: RegionPredictor, pairs: Pairs, file: Path, scales: Sequence[float] = SCALES
) -> ScaleAnswers:
    """Answer at every scale, or read the answers that a run before has left in the file.

    Args:
        predictor: of a model that fuses two views.
        pairs: images with their boxes.
        file: jsonl to keep the answers in.
        scales: of the second view.
    """
    scales = tuple(scales)
    if not file.exists():
        logger.info("answers at %d scales: %s", len(scales), file)
        rows = _answered(predictor, pairs, scales)
        content = [{"scales": scales}, *([item.to_dict() for item in row] for row in rows)]
        replace_bytes(file, "\n".join(map(json.dumps, content)).encode())
    with file.open(encoding="utf-8") as lines:
        head, *kept = map(json.loads, lines)
    if tuple(head["scales"]) != scales:
        raise InputError(f"{file} has answers at {head['scales']}; remove it, or name these scales")
    return ScaleAnswers(scales, tuple(tuple(map(RegionPrediction.from_dict, row)) for row in kept))


def _answered(
    predictor: RegionPredictor, pairs: Pairs, scales: Sequence[float]
) -> list[list[RegionPrediction]]:
    questions, answerer = Questions(), predictor.answerer
    rows: list[list[RegionPrediction]] = [[] for _ in scales]
    own_view_and_all = FixedScales([0.0, *scales])
    processor = ViewProcessor(own_view_and_all, image_size=predictor.processor.image_size)
    for path, boxes in pairs:
        sample = processor(path, boxes)
        with predictor.using_model():
            for part, features in answerer.encode_in_parts(sample, predictor.chunk):
                for column, row in enumerate(rows, 1):
                    route = torch.tensor([[0, column]]).repeat(len(part["views"]), 1)
                    asked = {**part, "routes": dict.fromkeys(TASKS, route)}
                    row += answerer.answer(asked, features, questions)
    return rows


def columns_of(
    name: str,
    predictor: RegionPredictor,
    pairs: Pairs,
    answers: ScaleAnswers,
    truth: Sequence[Mapping[str, Any]],
    best: float,
) -> dict[str, list[int]]:
    """The column that a policy chooses for each region, by task.

    Args:
        name: a policy as in `parse_policy`, or `BEST`, `ORACLE`, `HASH` or `OWN`.
        predictor: of the model that answered.
        pairs: what it answered about.
        answers: of the model.
        truth: R rows of `read_truth`.
        best: the scale that is best for all regions on validation.
    """
    fixed = [answers.column(best)] * len(truth)
    if name == BEST:
        return dict.fromkeys(TASKS, fixed)
    if name == ORACLE:
        captions = [[item.caption or "" for item in row] for row in answers.by_scale]
        parts = [grade_captions(truth, row) for row in captions]
        # The best scale of all regions, where it is as good as any.
        order = np.argsort([abs(scale - best) for scale in answers.scales], kind="stable")
        points = np.array([_points(part) for part in parts])[order]
        return {**dict.fromkeys(TASKS, fixed), "caption": order[points.argmax(axis=0)].tolist()}
    policy = policy_of(name, predictor)
    if isinstance(policy, ConfidencePrior):
        known = [answers.column(scale) for scale in policy.candidates]
        scores = [[item.caption_score for item in answers.by_scale[column]] for column in known]
        captions_at = np.array(known)[np.argmax(scores, axis=0)].tolist()
        own = columns_of(OWN, predictor, pairs, answers, truth, best)
        return {**own, "caption": captions_at}
    found: dict[str, list[int]] = {task: [] for task in TASKS}
    for path, boxes in pairs:
        if isinstance(policy, LearnedPrior):
            samples = predictor.encode(path, boxes, views=policy).samples
        else:
            image = open_image(path)
            samples = predictor.crop(image, as_boxes(boxes, image_size=image.size), policy)
        for sample in samples:
            for task in TASKS:
                scales = sample["scales"]
                if task in sample["routes"]:
                    scales = scales.gather(1, sample["routes"][task])
                found[task] += [answers.column(scale) for scale in scales[:, 1].tolist()]
    return found


def best_scale(answers: ScaleAnswers, truth: Sequence[Mapping[str, Any]]) -> float:
    """The scale at which most full captions are right; of equals the smallest."""
    right = [
        np.mean(grade_captions(truth, [item.caption or "" for item in row])["full"])
        for row in answers.by_scale
    ]
    return answers.scales[int(np.argmax(right))]


def _points(parts: Mapping[str, Sequence[bool | None]]) -> list[int]:
    """How right each caption is: a full one most, then by its parts."""
    weights = {"full": 8, "own": 4, "relation": 2, "reference": 1}
    columns = [[weight * bool(one) for one in parts[name]] for name, weight in weights.items()]
    return [sum(row) for row in zip(*columns)]


def policy_of(name: str, predictor: RegionPredictor) -> ViewPolicy:
    """The policy of a name, as the predictor makes it."""
    if name == HASH:
        return ImagePrior(2, hash="official")
    if name == OWN:
        return predictor.processor.policy
    known = getattr(predictor.model.scale_prior, "candidates", None)
    return parse_policy(name, num_views=2, own=predictor.processor.policy, candidates=known)


def milliseconds(
    predictor: RegionPredictor, names: Sequence[str], pairs: Pairs, *, best: float, turns: int = 3
) -> dict[str, float]:
    """Time of a caption with each policy, from the image file on, per region; the median of turns.

    On a CPU it is processor time. The policies are measured in turns, so that other programs slow
    all of them down alike. The oracle cannot be had.
    """
    clock = time.process_time if predictor.device.type == "cpu" else time.perf_counter
    policies = {
        name: parse_policy(f"fixed:0,{best}", num_views=2)
        if name == BEST
        else policy_of(name, predictor)
        for name in names
        if name != ORACLE
    }
    times: dict[str, list[float]] = {name: [] for name in policies}
    for _ in range(turns + 1):  # the first is not counted
        for name, policy in policies.items():
            start = clock()
            for path, boxes in pairs:
                predictor.predict(path, boxes, tasks=["caption"], views=policy)
            times[name].append(clock() - start)
    regions = sum(len(boxes) for _, boxes in pairs)
    return {name: 1000 * float(np.median(row[1:])) / regions for name, row in times.items()}
