"""Calibrating a model with the data of a run, and what that changed."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lavis_dynrefer.datasets.region_dataset import RegionDataset
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.json_stream import replace_bytes, replacing_path
from lavis_dynrefer.metrics.calibration_metrics import (
    at_threshold,
    expected_calibration_error,
    reliability_curve,
)
from lavis_dynrefer.models.answering import Answerer
from lavis_dynrefer.models.probabilities.calibration import KINDS
from lavis_dynrefer.models.probabilities.familiarity import Familiarity
from lavis_dynrefer.models.probabilities.text_answers import category_probabilities
from lavis_dynrefer.models.weights.checkpoint import CALIBRATION
from lavis_dynrefer.models.weights.tensor_reading import read_content, read_state_dict
from lavis_dynrefer.structures import UNFAMILIAR
from lavis_dynrefer.training.calibrating.labelled_logits import (
    LabelledLogits,
    labelled_kinds,
    read_features,
    read_logits,
)
from lavis_dynrefer.training.calibrating.scale_fitting import fit_categories, fit_scale_and_bias
from lavis_dynrefer.training.checkpoints import write_checkpoint
from lavis_dynrefer.training.run_splits import TRAIN

CALIBRATION_FILE = "calibration.json"  # in the folder of a run
Datasets = Mapping[str, Mapping[str, RegionDataset]]  # dataset -> split -> regions

logger = logging.getLogger(__name__)


class Source(NamedTuple):
    """A split that a kind of answer is calibrated on; `name` is that of its dataset."""

    name: str
    split: str
    dataset: RegionDataset
    is_test: bool


def choose_sources(
    datasets: Datasets,
    *,
    validation: Sequence[str] = (),
    test: Sequence[str] = (),
    splits: Sequence[str] = (),
) -> dict[str, Source]:
    """For each kind of answer a split with its labels.

    Args:
        datasets: of a run.
        validation: splits of the run, the first choice; then "val" and others.
        test: splits of the run, the last choice.
        splits: only these; by default all but the training split.

    Returns:
        Kind -> split; kinds without labels are left out.

    Raises:
        InputError: an unknown split, or no split has labels.
    """
    provided = [
        Source(name, split, dataset, split in test)
        for name, own in datasets.items()
        for split, dataset in own.items()
        if split != TRAIN
    ]
    known = sorted({source.split for source in provided})
    unknown = sorted(set(splits) - set(known))
    if unknown:
        raise InputError(f"no split {unknown[0]!r} to calibrate on; there are {known}")
    chosen = [source for source in provided if not splits or source.split in splits]
    found: dict[str, Source] = {}
    for source in sorted(chosen, key=lambda one: _rank(one.split, validation, test)):
        for kind in labelled_kinds(source.dataset.region_set):
            found.setdefault(kind, source)
    if not found:
        raise InputError(
            f"none of the splits {sorted({source.split for source in chosen})} has attributes, "
            "categories or captions to calibrate on"
        )
    return {kind: found[kind] for kind in KINDS if kind in found}


def choose_familiar(
    datasets: Datasets, *, validation: Sequence[str] = (), test: Sequence[str] = ()
) -> list[tuple[RegionDataset, RegionDataset]]:
    """Pairs of a training split and another split of the same dataset, for what is familiar.

    Args:
        datasets: of a run.
        validation: splits of the run, the first choice.
        test: splits of the run, the last choice.
    """
    pairs = []
    for name, own in datasets.items():
        others = sorted(
            (split for split in own if split != TRAIN),
            key=lambda split: _rank(split, validation, test),
        )
        if TRAIN in own and others:
            pairs.append((own[TRAIN], own[others[0]]))
        elif TRAIN in own:
            logger.warning("%s has only a training split: familiarity is fitted without it", name)
    return pairs


def _rank(split: str, validation: Sequence[str], test: Sequence[str]) -> int:
    if split in validation:
        return 0
    return 3 if split in test else 1 if split == "val" else 2


def calibrate(
    answerer: Answerer,
    sources: Mapping[str, Source],
    familiar: Sequence[tuple[RegionDataset, RegionDataset]],
    *,
    taggers: Mapping[str, Callable[[str], Sequence[str]]],
    most: int = 2000,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Fit on half of the images of each split, and measure on the other half.

    Args:
        answerer: of the model, which becomes calibrated.
        sources: of `choose_sources`.
        familiar: of `choose_familiar`; if empty, familiarity is not fitted.
        taggers: caption -> tags, by the name of a dataset.
        most: regions of each split, and regions that are familiar, about.

    Returns:
        The values by the names of a checkpoint; and a report, ready for json.
    """
    model = answerer.model
    model.calibration.forget()
    values: dict[str, Tensor] = {}
    report: dict[str, Any] = {"kinds": {}}
    by_split: dict[tuple[str, str], list[str]] = {}
    for kind, source in sources.items():
        by_split.setdefault((source.name, source.split), []).append(kind)
    for (name, split), kinds in by_split.items():
        dataset = sources[kinds[0]].dataset
        logger.info("%s: reading about %d regions for %s", split, most, ", ".join(kinds))
        read = read_logits(answerer, dataset, kinds, tagger=taggers[name], most=most)
        for kind, answers in read.items():
            fit, measured = answers.half(0), answers.half(1)
            try:
                if not fit.known or not measured.known:
                    raise InputError("all labelled regions are in one half of the images")
                scale, bias = _fit(kind, fit)
            except InputError as error:
                logger.warning("%s are not calibrated: %s", kind, error)
                continue
            numbers = torch.tensor([scale, bias])
            contrast = None if kind == "tags" else model.contrast
            before = model.calibration.scaled(kind, measured.logits, contrast)
            report["kinds"][kind] = {
                "split": split,
                "is_test_split": sources[kind].is_test,
                "regions": {"fitted": len(fit.logits), "measured": len(measured.logits)},
                "scale": scale,
                "bias": bias,
                "before": measure(kind, before, measured.labels),
                "after": measure(kind, scale * measured.logits + bias, measured.labels),
            }
            values[kind] = numbers
    if familiar:
        logger.info("familiarity: reading about %d training regions", most)
        share = -(-most // len(familiar))
        known, others = (
            torch.cat(
                [
                    read_features(
                        answerer, pair[side].region_set, pair[1].vis_processor, most=share
                    )
                    for pair in familiar
                ]
            )
            for side in (0, 1)
        )
        fitted = Familiarity.fitted(known, others)
        values.update({f"familiarity.{name}": value for name, value in fitted.items()})
        report["familiarity"] = {
            "training_regions": len(known),
            "held_out_regions": len(others),
            "threshold": UNFAMILIAR,
        }
    model.calibration.fill(values, model.device)
    return {f"{CALIBRATION}{name}": value for name, value in values.items()}, report


def _fit(kind: str, answers: LabelledLogits) -> tuple[float, float]:
    if kind == "categories":
        return fit_categories(answers.logits, answers.labels)
    known = answers.labels >= 0
    return fit_scale_and_bias(answers.logits[known], answers.labels[known])


def measure(kind: str, calibrated: Tensor, labels: Tensor) -> dict[str, Any]:
    """Reliability of calibrated logits (N, K); of categories that of the best name.

    Returns:
        "curve" of (probability, share, answers); "error" and "error_equal_mass", in [0, 1];
        "precision" and "recall" of probabilities from 0.5 on, None where they have no value.
    """
    if kind == "categories":
        shares = category_probabilities(calibrated)
        best, names = shares.max(dim=1)
        given, right = best.numpy(), (names == labels).numpy()
        own = torch.nn.functional.one_hot(labels, shares.shape[1]).bool()
        found = at_threshold(shares.flatten().numpy(), own.flatten().numpy())
    else:
        known = labels >= 0
        given, right = calibrated.sigmoid()[known].numpy(), (labels[known] == 1).numpy()
        found = at_threshold(given, right)
    return {
        "curve": [list(one) for one in reliability_curve(given, right)],
        "error": expected_calibration_error(given, right),
        "error_equal_mass": expected_calibration_error(given, right, equal_mass=True),
        "precision": None if math.isnan(found.precision) else found.precision,
        "recall": None if math.isnan(found.recall) else found.recall,
    }


def store(source: Path, target: Path, values: Mapping[str, Tensor]) -> None:
    """Write a checkpoint with a calibration in place of the one it had, if any.

    Args:
        source: a run's checkpoint, a state dict or safetensors.
        target: the same path, or another one with the same suffix.
        values: of `calibrate`.
    """
    values = {name: value.detach().cpu() for name, value in values.items()}
    if target.suffix == ".safetensors":
        from safetensors.torch import save_file

        state = _without_calibration(read_state_dict(source))
        kept = {name: value.contiguous().clone() for name, value in {**state, **values}.items()}
        with replacing_path(target) as partial:
            save_file(kept, partial)
        return
    content = dict(read_content(source))
    if isinstance(content.get("model"), Mapping):
        content["model"] = {**_without_calibration(content["model"]), **values}
    else:
        content = {**_without_calibration(content), **values}
    write_checkpoint(target, content)


def write_report(folder: Path, report: Mapping[str, Any]) -> Path:
    """Write what was measured beside a checkpoint; `dynrefer report` draws it."""
    path = folder / CALIBRATION_FILE
    replace_bytes(path, (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
    return path


def _without_calibration(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if not name.startswith(CALIBRATION)}
