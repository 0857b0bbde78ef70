"""Are the probabilities of a model right on test scenes, and what does it call unfamiliar?"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.metrics import roc_auc_score

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images import open_image
from lavis_dynrefer.metrics.calibration_metrics import at_threshold, expected_calibration_error
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.structures import UNFAMILIAR, RegionPrediction
from lavis_dynrefer.synthetic import make_scene, render
from lavis_dynrefer.synthetic.raw_formats import truth_rows
from lavis_dynrefer.synthetic.scene_vocabulary import attribute_labels
from lavis_dynrefer.synthetic.scene_world import SPLIT_START
from lavis_dynrefer.vocab import build_tagger

_SEED = 1  # of the scenes of the embedded model
_TASKS = ("tags", "attributes", "categories")
_SUFFIXES = (".jpg", ".jpeg", ".png")
_SIZE = (480, 360)  # of images that are made here
_EACH = 30  # images of each other kind
_BOXES = 6  # of such an image, at random, besides the whole


def measure_probabilities(
    folder: Path,
    *,
    world: Sequence[str] = ("landmark", "neighbour"),
    images: int = 300,
    photographs: Path | None = None,
    checkpoint: str | None = None,
) -> dict[str, Any]:
    """Calibration on test scenes, and how well familiarity tells them from other images.

    Args:
        folder: not used; the command writes its report there.
        world: of the scenes, whose regions all are familiar; seed 1.
        images: of each world, and the most photographs.
        photographs: folder of other images.
        checkpoint: of the embedded model; None: the shipped one.

    Returns:
        World -> "all" and "held out" -> kind -> numbers in percent; kind of other image -> AUROC of
        the scenes against it. "unfamiliar" is the percentage of regions that are called so.
    """
    del folder
    predictor = RegionPredictor("tiny", checkpoint=checkpoint)
    tagger = build_tagger("match", predictor.model.tagging.tags)
    results: dict[str, Any] = {}
    own = []
    for name in world:
        truth, answers = _answered(predictor, name, images)
        held_out = [row["held_out"] for row in truth]
        groups = {"all": [True] * len(truth), "held out": held_out}
        results[name] = {
            group: _calibration(
                [row for row, kept in zip(truth, chosen) if kept],
                [answer for answer, kept in zip(answers, chosen) if kept],
                tagger,
            )
            for group, chosen in groups.items()
        }
        found = _familiarity(answers)
        own.append(found)
        results[name].update(
            regions=len(found), unfamiliar=100 * float((found < UNFAMILIAR).mean())
        )
    familiar = np.concatenate(own)
    for kind, made in _others(photographs, images).items():
        found = _familiarity(
            [
                answer
                for image in made
                for answer in predictor.predict(image, _boxes(image.size), tasks=["attributes"])
            ]
        )
        labels = np.r_[np.zeros(len(familiar)), np.ones(len(found))]
        results[kind] = {
            "regions": len(found),
            "unfamiliar": 100 * float((found < UNFAMILIAR).mean()),
            "auroc": 100 * float(roc_auc_score(labels, -np.r_[familiar, found])),
        }
    return results


def _answered(
    predictor: RegionPredictor, world: str, images: int
) -> tuple[list[Mapping[str, Any]], list[RegionPrediction]]:
    """Test scenes as `write_dataset` draws them: truth of the regions, and the answers."""
    truth: list[Mapping[str, Any]] = []
    answers: list[RegionPrediction] = []
    # Every tag has a probability, not only those above the threshold.
    predictor.model.tagging.threshold = -1.0
    for number in range(images):
        scene = make_scene(_SEED, SPLIT_START["test"] + number, world)
        stream = io.BytesIO()
        render(scene).save(stream, "JPEG", quality=95, subsampling=0)
        rows = [row for row in truth_rows(scene) if row["form"] == "full"]
        image = Image.open(stream).convert("RGB")
        answers += predictor.predict(image, [row["box"] for row in rows], tasks=_TASKS)
        truth += rows
    return truth, answers


def _calibration(
    truth: Sequence[Mapping[str, Any]], answers: Sequence[RegionPrediction], tagger: Any
) -> dict[str, dict[str, float]]:
    pairs: dict[str, list[tuple[float, bool]]] = {"attributes": [], "tags": [], "categories": []}
    best: list[tuple[float, bool]] = []
    for row, answer in zip(truth, answers):
        labels = attribute_labels(row["facts"])
        pairs["attributes"] += [
            (_known(one.probability), labels[one.name] == 1)
            for one in answer.attributes
            if labels[one.name] >= 0
        ]
        tags = set(tagger(row["phrase"]))
        pairs["tags"] += [(_known(one.probability), one.name in tags) for one in answer.tags]
        named = [
            (_known(one.probability), one.name == row["facts"]["category"])
            for one in answer.categories
        ]
        pairs["categories"] += named
        best.append(named[0])
    found = {}
    for kind, entries in pairs.items():
        given, right = map(np.array, zip(*entries))
        graded = map(np.array, zip(*best)) if kind == "categories" else (given, right)
        shares, hits = graded
        limit = at_threshold(given, right)
        found[kind] = {
            "error": 100 * expected_calibration_error(shares, hits),
            "error_equal_mass": 100 * expected_calibration_error(shares, hits, equal_mass=True),
            "precision": 100 * limit.precision,
            "recall": 100 * limit.recall,
        }
    return found


def _known(value: float | None) -> float:
    assert value is not None
    return value


def _familiarity(answers: Sequence[RegionPrediction]) -> np.ndarray:
    found = [answer.familiarity for answer in answers]
    if None in found:
        raise InputError("the model is not calibrated for familiarity; run dynrefer calibrate")
    return np.array(found, dtype=float)


def _boxes(size: tuple[int, int]) -> list[list[float]]:
    """The whole image and a few boxes in it, the same for every image of a size."""
    rng = np.random.default_rng(0)
    width, height = size
    boxes = [[0.0, 0.0, float(width), float(height)]]
    for across, down, left, top in rng.random((_BOXES, 4)):
        w, h = (0.08 + 0.5 * across) * width, (0.08 + 0.5 * down) * height
        x, y = left * (width - w), top * (height - h)
        boxes.append([x, y, x + w, y + h])
    return boxes


def _others(photographs: Path | None, most: int) -> dict[str, Iterator[Image.Image]]:
    made = {"noise": _noise(), "flat colour": _flat(), "plots": _plots(), "text": _text()}
    if photographs is None:
        return made
    paths = sorted(path for path in photographs.rglob("*") if path.suffix.lower() in _SUFFIXES)
    return {"photographs": map(open_image, paths[:most]), **made}


def _noise() -> Iterator[Image.Image]:
    rng = np.random.default_rng(0)
    for number in range(_EACH):
        side = (_SIZE[1], _SIZE[0]) if number % 2 else (24, 32)  # fine, and blurred
        pixels = rng.integers(0, 256, (*side, 3)).astype(np.uint8)
        yield Image.fromarray(pixels).resize(_SIZE, Image.Resampling.BICUBIC)


def _flat() -> Iterator[Image.Image]:
    rng = np.random.default_rng(1)
    for colour in rng.integers(0, 256, (_EACH, 3)).tolist():
        yield Image.new("RGB", _SIZE, tuple(colour))


def _plots() -> Iterator[Image.Image]:
    from matplotlib.figure import Figure

    rng = np.random.default_rng(2)
    for number in range(_EACH):
        figure = Figure(figsize=(4.8, 3.6))
        ax = figure.subplots()
        if number % 3 == 0:
            ax.plot(rng.normal(size=(50, 3)).cumsum(axis=0))
        elif number % 3 == 1:
            ax.pie(rng.random(5))
        else:
            ax.scatter(*rng.random((2, 60)), c=rng.random(60), s=80)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=100)
        yield Image.open(stream).convert("RGB")


def _text() -> Iterator[Image.Image]:
    rng = np.random.default_rng(3)
    words = (__doc__ or "").split()
    for number in range(_EACH):
        image = Image.new("RGB", _SIZE, "white")
        font = ImageFont.load_default(size=(12, 20, 36)[number % 3])
        lines = "\n".join(" ".join(rng.choice(words, 9)) for _ in range(24))
        ImageDraw.Draw(image).text((6, 6), lines, fill="black", font=font)
        yield image
