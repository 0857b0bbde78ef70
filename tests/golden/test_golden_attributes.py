"""Attribute metrics of one run of the released evaluation."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lavis_dynrefer.metrics.attributes import attribute_map, evaluate_attributes
from lavis_dynrefer.structures import RegionPrediction, RegionRecord, RegionSet
from lavis_dynrefer.vocab import load_attributes

BOX = (0.0, 0.0, 10.0, 5.0)


@pytest.fixture(scope="module")
def released(golden_dir):
    """Vocabulary, scores, labels and results of one run of the released evaluation."""
    vocabulary = load_attributes(golden_dir / "configs/ovad.json")
    given = np.load(golden_dir / "ovad_input.npz")
    expected = json.loads((golden_dir / "ovad_output.json").read_text())
    return vocabulary, given["pred"], given["label"].astype(int), expected


def test_every_map_equals_the_released_code(released):
    vocabulary, scores, labels, expected = released
    found = attribute_map(scores, labels, vocabulary)

    groups = {name.split("/")[1]: value for name, value in expected["table_returned"].items()}
    overall = groups.pop("all")
    named = {f"map_{name.replace(' ', '_')}": value for name, value in groups.items()}
    assert found == pytest.approx({"map": overall, **named}, abs=1e-6)


def test_report_equals_the_released_code(released):
    vocabulary, scores, labels, expected = released
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

    overall = expected["all_metrics_percent"]["PC_t0.4/all/ap"]
    assert report.metrics["map"] == pytest.approx(overall, abs=1e-6)
