"""The answers of a run beside the annotations, read again by its own configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from lavis_dynrefer.errors import DynReferError, InputError
from lavis_dynrefer.metrics.attribute_metrics import (
    attribute_groups,
    average_precisions,
    labelled_scores,
)
from lavis_dynrefer.metrics.category_metrics import best_category
from lavis_dynrefer.metrics.graded_regions import answers_to_labelled
from lavis_dynrefer.report.run_folder import RunFolder
from lavis_dynrefer.structures import Box, RegionPrediction, RegionSet

SCORED_CAPTIONS = 1000  # at most, by METEOR
FREQUENCIES = ("head", "medium", "tail")


@dataclass(frozen=True)
class RegionExample:
    """A region with its answer, to be shown.

    Args:
        region_id: in the split.
        image: path of its file.
        box: xyxy in pixels.
        answer: of the model.
        truth: of the annotation; empty where it has none.
        number: a score.
    """

    region_id: int
    image: str
    box: Box
    answer: str
    truth: str
    number: float


@dataclass(frozen=True)
class AttributeScores:
    """How well each attribute is found.

    Args:
        names: of the A attributes.
        frequency: "head", "medium" or "tail" of each.
        precisions: (A,) average precision in percent; nan without a positive label.
        positives: (A,) regions with the label 1.
        scores: (R, A).
        labels: (R, A) of 1, 0, -1.
    """

    names: Sequence[str]
    frequency: Sequence[str]
    precisions: NDArray[np.float64]
    positives: NDArray[np.int_]
    scores: NDArray[np.float64]
    labels: NDArray[np.int_]

    def calibration(self, bins: int = 10) -> list[tuple[float, float, int]]:
        """Mean score, share of label 1 and number of labels in each bin of scores; empty ones not.

        Labels that are unknown are left out.
        """
        known = self.labels >= 0
        scores, labels = self.scores[known], self.labels[known]
        place = np.clip((scores * bins).astype(int), 0, bins - 1)
        return [
            (float(scores[chosen].mean()), float((labels[chosen] == 1).mean()), int(chosen.sum()))
            for chosen in (place == number for number in range(bins))
            if chosen.any()
        ]


@dataclass(frozen=True)
class Confusions:
    """Which category was named for which.

    Args:
        names: categories that occur, as annotation or answer, the most annotated first.
        counts: (C, C + 1) regions by annotation and answer; the last column has no answer.
        examples: (annotation, answer) -> some regions.
    """

    names: Sequence[str]
    counts: NDArray[np.int_]
    examples: Mapping[tuple[str, str], Sequence[RegionExample]]

    def top(self, count: int) -> list[tuple[str, str, int, float]]:
        """The most frequent confusions: annotation, answer, regions, share of the annotation."""
        totals = self.counts.sum(axis=1)
        found = [
            (
                self.names[row],
                self.names[column],
                int(self.counts[row, column]),
                float(self.counts[row, column] / totals[row]),
            )
            for row, column in np.argwhere(self.counts[:, :-1] > 0).tolist()
            if row != column
        ]
        return sorted(found, key=lambda item: (-item[2], -item[3], item[0], item[1]))[:count]


class AnsweredSplit:
    """The answers to one split.

    Args:
        region_set: the annotations.
        predictions: region id -> prediction.
    """

    def __init__(self, region_set: RegionSet, predictions: Mapping[int, RegionPrediction]) -> None:
        known = {region.region_id for region in region_set.regions}
        strange = len(set(predictions) - known)
        if strange:
            raise InputError(
                f"{strange} of {len(predictions)} answers are for regions that the annotations do "
                "not have; they have changed since the run"
            )
        self.region_set = region_set
        self.predictions = predictions

    @cached_property
    def attributes(self) -> AttributeScores | None:
        """None where attributes are not annotated or not answered."""
        if not self._asked("attributes"):
            return None
        _, scores, labels, _ = labelled_scores(self.region_set, self.predictions)
        infos = self.region_set.attributes
        groups = attribute_groups(infos)
        return AttributeScores(
            [info.name for info in infos],
            [
                next((name for name in FREQUENCIES if name in groups and groups[name][row]), "")
                for row in range(len(infos))
            ],
            100 * average_precisions(scores, labels),
            (labels == 1).sum(axis=0),
            scores,
            labels,
        )

    @cached_property
    def confusions(self) -> Confusions | None:
        """None where categories are not annotated or not answered."""
        if not self._asked("categories"):
            return None
        answers = answers_to_labelled(self.region_set, self.predictions, "category")
        pairs = [
            (
                str(region.category),
                best_category(region, answer) if answer and answer.categories else "",
            )
            for region, answer in answers
        ]
        totals: dict[str, int] = {}
        for truth, named in pairs:
            totals[truth] = totals.get(truth, 0) + 1
            if named:
                totals.setdefault(named, 0)
        names = sorted(totals, key=lambda name: (-totals[name], name))
        place = {name: row for row, name in enumerate(names)} | {"": len(names)}
        counts = np.zeros((len(names), len(names) + 1), dtype=int)
        examples: dict[tuple[str, str], list[RegionExample]] = {}
        for (truth, named), (region, answer) in zip(pairs, answers):
            counts[place[truth], place[named]] += 1
            if named and truth != named and answer is not None:
                score = dict(answer.categories)[named]
                examples.setdefault((truth, named), []).append(
                    self._example(region, answer=named, truth=truth, number=score)
                )
        return Confusions(names, counts, examples)

    @cached_property
    def captions(self) -> list[RegionExample]:
        """Captions with their annotation; `number` is the probability of the caption."""
        by_id = {region.region_id: region for region in self.region_set.regions}
        return [
            self._example(
                by_id[region_id],
                answer=answer.caption,
                truth=by_id[region_id].caption or "",
                number=float(answer.caption_score or 0.0),
            )
            for region_id, answer in self.predictions.items()
            if answer.caption is not None
        ]

    def _asked(self, task: str) -> bool:
        label = {"attributes": "attributes", "categories": "category"}[task]
        answered = any(getattr(answer, task) for answer in self.predictions.values())
        return answered and any(
            getattr(region, label) is not None for region in self.region_set.regions
        )

    def _example(self, region: Any, *, answer: str, truth: str, number: float) -> RegionExample:
        image = self.region_set.images[region.image_id].path
        return RegionExample(region.region_id, image, region.box, answer, truth, number)


def score_captions(
    splits: Mapping[str, AnsweredSplit],
) -> dict[str, list[tuple[RegionExample, float]]]:
    """METEOR of the captions that have an annotation; of many, `SCORED_CAPTIONS` at random.

    Args:
        splits: run -> answers.

    Returns:
        Run -> captions with METEOR in percent; runs without such captions are left out.

    Raises:
        MissingPackageError: Java is missing or fails.
    """
    from lavis_dynrefer.metrics.java_tools import meteor_scores

    chosen = []
    for label, one in splits.items():
        graded = [caption for caption in one.captions if caption.truth]
        if len(graded) > SCORED_CAPTIONS:
            rows = np.random.default_rng(0).choice(len(graded), SCORED_CAPTIONS, replace=False)
            graded = [graded[row] for row in sorted(rows.tolist())]
        chosen += [(label, caption) for caption in graded]
    if not chosen:
        return {}
    # All at once: starting Java takes seconds.
    scores = meteor_scores([(caption.answer, [caption.truth]) for _, caption in chosen])
    found: dict[str, list[tuple[RegionExample, float]]] = {}
    for (label, caption), score in zip(chosen, scores):
        found.setdefault(label, []).append((caption, 100 * score))
    return found


def read_answers(run: RunFolder, split: str, options: Sequence[str] = ()) -> AnsweredSplit:
    """The newest answers of a run to a split, with its annotations.

    Args:
        run: of `read_run`.
        split: name in the run.
        options: settings that differ now: "datasets.x.build_info.root=/data".

    Raises:
        DynReferError: the annotations are not where they were, or others; answers are damaged.
    """
    rows = run.answers[split].read()
    predictions = {row["region_id"]: row["prediction"] for row in rows if "prediction" in row}
    if not predictions:
        raise InputError("no region has an answer")
    return AnsweredSplit(_annotations(run.config, split, options), predictions)


def _annotations(config: Mapping[str, Any], split: str, options: Sequence[str]) -> RegionSet:
    """The regions of a split, from the tables that the run made; where they are gone, anew."""
    from lavis_dynrefer.datasets.region_sets import first_regions
    from lavis_dynrefer.training.known_names import dataset_class
    from lavis_dynrefer.training.run_config import read_options

    merged = OmegaConf.merge(OmegaConf.create(dict(config)), read_options(options))
    problems = []
    for name, section in (merged.datasets or {}).items():
        try:
            source = dataset_class(name)(section)
            info = source.info()
            names = {info.split_names.get(own, own): own for own in source.splits(info)}
            if split in names:
                section.build_info.splits = [names[split]]
                found = dataset_class(name)(section).read_splits()[names[split]]
                return first_regions(found, info.max_images, info.max_regions)
        except (DynReferError, OSError) as error:
            problems.append(" ".join(str(error).split()))
    raise InputError("; ".join(problems) or f"no dataset of the run has a split {split!r}")
