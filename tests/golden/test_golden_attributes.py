"""Attribute metrics of one run of the released evaluation."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lavis_dynrefer.metrics.attribute_decisions import (
    best_k,
    decision_metrics,
    official_threshold,
    official_top_k,
)
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


@pytest.mark.parametrize("kind", ["threshold", "top_k"])
def test_every_decision_metric_equals_the_released_code(released, kind):
    vocabulary, scores, labels, expected = released
    if kind == "threshold":
        decided, tag = scores >= official_threshold(scores), "t0.4"
    else:
        decided, tag = best_k(scores, official_top_k(labels)), "@8"

    found = {
        f"{group}/{name}": value
        for group, rates in decision_metrics(decided, labels, vocabulary).items()
        for name, value in rates.items()
    }

    spelled = {"OV": "pooled", "PC": "mean"}
    official = {
        f"{group}/{spelled[kind_and_tag.split('_')[0]]}_{name}": value
        for kind_and_tag, group, name in map(splitted, expected["all_metrics_percent"])
        for value in [expected["all_metrics_percent"][f"{kind_and_tag}/{group}/{name}"]]
        if kind_and_tag.endswith(tag) and name != "ap"
    }
    assert len(official) == 250
    assert found == pytest.approx(official, abs=1e-6)


def splitted(name):
    return name.split("/")
