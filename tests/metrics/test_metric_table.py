import pytest

from lavis_dynrefer.metrics import render_table
from lavis_dynrefer.structures import MetricReport

REPORT = MetricReport(
    "attributes",
    "ovad-14300",
    "strict",
    "map",
    {"map": 29.2, "map_head": 51.234, "map_tail": 10.0},
    {"regions": 14300, "missing": 3, "rejected": 0},
)


def test_first_lines_are_one_per_report():
    lines = render_table([REPORT, REPORT]).splitlines()

    assert lines[0].split()[:5] == ["evaluator", "protocol", "mode", "metric", "value"]
    expected = ["attributes", "ovad-14300", "strict", "map", "29.20", "14300", "3", "0"]
    assert [line.split() for line in lines[2:4]] == [expected, expected]


def test_every_metric_and_count_is_printed():
    words = render_table([REPORT]).split()

    assert {"map_head", "51.23", "map_tail", "10.00", "missing", "3"} <= set(words)


def test_no_line_is_wider_than_a_terminal_or_ends_in_blanks():
    many = {f"iou_0.3_meteor_{row}": float(row) for row in range(40)}
    report = MetricReport("dense_caption", "vg", "strict", "iou_0.3_meteor_0", many)

    lines = render_table([report]).splitlines()

    assert max(map(len, lines)) <= 100
    assert lines == [line.rstrip() for line in lines]


def test_table_of_no_report_is_its_head():
    assert render_table([]).splitlines()[0].startswith("evaluator")


@pytest.mark.parametrize("counts", [{}, {"regions": 5}])
def test_missing_counts_leave_their_place_empty(counts):
    report = MetricReport("reg", "vg-reg-5k", "official", "meteor", {"meteor": 21.2}, counts)

    assert "21.20" in render_table([report])
