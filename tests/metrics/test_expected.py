from __future__ import annotations

import pytest

from lavis_dynrefer.metrics import EVALUATORS
from lavis_dynrefer.metrics.dense_caption import evaluate_dense_caption
from lavis_dynrefer.metrics.expected import (
    METRIC_NAMES,
    ExpectedNumber,
    parse_expected,
    render_comparison,
)
from lavis_dynrefer.structures import (
    AttributeInfo,
    RegionPrediction,
    RegionRecord,
    RegionSet,
    ScoredName,
)

SECTION = {"source": "a paper", "test": {"map": [47.6, 0.3]}}
BOX = (0.0, 0.0, 10.0, 10.0)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (47.6, "met"),
        (47.3, "met"),  # 47.6 - 0.3 is a little more than 47.3
        (47.9, "met"),
        (47.29, "missed, below"),
        (47.91, "missed, above"),
        (None, "missed, not reported"),
        (float("nan"), "missed, not reported"),
    ],
)
def test_a_number_is_met_within_its_tolerance(found, verdict):
    assert ExpectedNumber("test", "map", 47.6, 0.3).verdict(found) == verdict


def test_a_section_is_read_in_order():
    expected = parse_expected({**SECTION, "ovad_val": {"map": [29, 0], "map_head": [1.5, 2]}})

    assert expected.source == "a paper"
    assert expected.numbers == [
        ExpectedNumber("test", "map", 47.6, 0.3),
        ExpectedNumber("ovad_val", "map", 29.0, 0.0),
        ExpectedNumber("ovad_val", "map_head", 1.5, 2.0),
    ]


def test_null_means_nothing_was_published():
    assert parse_expected(None) is None


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        (47.6, "expected a mapping or null, got 47.6"),
        ({"test": {"map": [1, 1]}}, r"expected\.source: expected a string, got None"),
        ({"source": "", "test": {"map": [1, 1]}}, r"expected\.source: expected at least 1"),
        ({"source": "a paper"}, "expected: expected at least 1 item"),
        ({**SECTION, "test": 47.6}, r"expected\.test: expected a mapping, got 47\.6"),
        ({**SECTION, "test": {}}, r"expected\.test: expected at least 1 item"),
        ({**SECTION, "test": {"map": 47.6}}, r"expected\.test\.map: expected \[value, tolerance\]"),
        ({**SECTION, "test": {"map": [47.6]}}, r"expected\.test\.map: expected \[value"),
        (
            {**SECTION, "test": {"map": [47.6, -1]}},
            r"map\[1\]: expected at least 0, got -1",
        ),
        ({**SECTION, "test": {"map": ["47.6", 1]}}, r"map\[0\]: expected a number, got '47\.6'"),
        ({**SECTION, "test": {"map": [True, 1]}}, r"map\[0\]: expected a number, got True"),
        ({**SECTION, "test": {"map": [float("nan"), 1]}}, r"map\[0\]: expected a finite number"),
    ],
)
def test_an_invalid_section_is_named(section, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse_expected(section)


def test_the_table_tells_which_numbers_were_met():
    numbers = {"map": [47.6, 0.3], "detmap": [90, 1]}
    expected = parse_expected({"source": "a paper", "test": numbers, "val": {"map": [1, 1]}})

    table = render_comparison(expected, {"test": {"map": 47.52, "detmap": 80, "agg_metrics": 1}})

    source, heads, _, *rows = table.splitlines()
    assert source == "expected: a paper"
    assert heads.split() == ["split", "metric", "expected", "found", "verdict"]
    assert rows == [
        "test   map     47.60 +- 0.30  47.52  met",
        "test   detmap  90.00 +- 1.00  80.00  missed, below",
        "val    map     1.00 +- 1.00   -      missed, not reported",
    ]


@pytest.mark.parametrize("found", [{}, {"test": None}, {"test": {"map": "good"}}])
def test_a_missing_number_is_reported_as_missed(found):
    assert "missed, not reported" in render_comparison(parse_expected(SECTION), found)


def graded(evaluator, **options):
    """A report on one region that carries every truth."""
    attributes = tuple(
        AttributeInfo(name, "kind", "parent", "is", frequency)
        for name, frequency in (("a", "head"), ("b/c", "medium"), ("d", "tail"))
    )
    truth = {"caption": "a dog", "attributes": (1, 1, 1), "category": "dog"}
    regions = [RegionRecord(1, 1, BOX, **truth)]
    region_set = RegionSet("x", "test", {}, regions, (), attributes, ("dog", "cat"))
    scores = tuple(ScoredName(item.name, 0.5, 0.9) for item in attributes)
    categories = (ScoredName("dog", 1.0, 0.7), ScoredName("cat", 0.0, 0.1))
    answer = RegionPrediction(BOX, "a dog", 0.5, (), scores, categories)
    return evaluator(region_set, {1: answer}, **options).metrics


def test_names_of_dense_captioning_are_those_of_its_report():
    metrics = graded(evaluate_dense_caption, similarity=lambda pairs: [1.0] * len(pairs))

    assert tuple(metrics) == METRIC_NAMES["dense_caption"]


def test_names_of_reg_are_those_of_its_report(meteor):
    assert tuple(graded(EVALUATORS["reg"], meteor=meteor)) == METRIC_NAMES["reg"]


def test_names_of_categories_are_those_of_its_report():
    assert set(graded(EVALUATORS["categories"])) == set(METRIC_NAMES["categories"])


def test_names_of_attributes_are_those_of_its_report_without_parent_types():
    found = set(graded(EVALUATORS["attributes"])) - {"map_parent"}

    assert found == set(METRIC_NAMES["attributes"])


def test_every_evaluator_has_its_names():
    assert set(METRIC_NAMES) == set(EVALUATORS)
