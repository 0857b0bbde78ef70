"""Attribute metrics of one run of the official evaluation."""

from __future__ import annotations

import math
import re

import pytest
from golden_folder import read_arrays, read_json

from lavis_dynrefer.metrics.attribute_metrics import attribute_map, evaluate_attributes
from lavis_dynrefer.structures import RegionPrediction, RegionRecord, RegionSet
from lavis_dynrefer.vocab import load_attributes

BOX = (0.0, 0.0, 10.0, 5.0)


@pytest.fixture(scope="module")
def official(golden_dir):
    """Vocabulary, scores, labels and results. Scores may lie outside [0, 1]."""
    arrays = read_arrays(golden_dir / "ovad_input.npz")
    vocabulary = load_attributes(golden_dir / "configs/ovad.json")
    expected = read_json(golden_dir / "ovad_output.json")
    return vocabulary, arrays["pred"], arrays["label"].astype(int), expected


def test_every_map_equals_the_official_one(official):
    vocabulary, scores, labels, expected = official

    found = attribute_map(scores, labels, vocabulary, mode="official")

    # Keys are "PCt<threshold>_ap/<group>"; a group without a positive label has no number.
    groups = {
        name.split("/", 1)[1].replace(" ", "_"): value
        for name, value in expected["table_returned"].items()
        if not math.isnan(value)
    }
    overall = groups.pop("all")
    named = {f"map_{name}": value for name, value in groups.items()}
    assert found == pytest.approx({"map": overall, **named}, abs=1e-6)


def test_the_report_equals_the_official_one(official):
    vocabulary, scores, labels, expected = official
    regions = [
        RegionRecord(row, 1, BOX, attributes=tuple(map(int, vector)))
        for row, vector in enumerate(labels)
    ]
    names = [item.name for item in vocabulary]
    given = RegionSet("ovad", "val", {}, regions, attributes=vocabulary)
    predictions = {
        row: RegionPrediction(BOX, attributes=tuple(zip(names, vector)))
        for row, vector in enumerate(scores)
    }

    report = evaluate_attributes(given, predictions, mode="official")

    metrics = expected["all_metrics_percent"]  # "PC_t<threshold>/all/ap" is the one we report
    (name,) = (name for name in metrics if re.fullmatch(r"PC_t[^/]*/all/ap", name))
    assert report.metrics["map"] == pytest.approx(metrics[name], abs=1e-6)
