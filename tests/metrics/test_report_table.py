import pytest

from lavis_dynrefer.metrics import plain_table, render_table
from lavis_dynrefer.structures import MetricReport

REPORT = MetricReport(
    "attributes",
    "ovad-14300",
    "strict",
    "map",
    {"map": 29.2, "map_head": 51.234, "map_[red]": 10.0},
    {"regions": 14300, "missing": 3, "rejected": 0},
)


def test_a_report_has_one_line_and_then_all_its_numbers():
    assert render_table([REPORT]).splitlines() == [
        "evaluator   protocol    mode    metric  value  regions  missing  rejected",
        "-------------------------------------------------------------------------",
        "attributes  ovad-14300  strict  map     29.20    14300        3         0",
        "",
        "attributes on ovad-14300, strict, in percent",
        "  map       29.20   map_head  51.23   map_[red] 10.00",
        "  regions  14300   missing      3   rejected     0",
    ]


def test_metrics_fill_lines_of_a_terminal():
    many = {f"iou_0.3_meteor_{row}": float(row) for row in range(40)}
    report = MetricReport("dense_caption", "vg", "strict", "iou_0.3_meteor_0", many)

    lines = render_table([report]).splitlines()

    assert max(map(len, lines)) <= 100
    assert lines == [line.rstrip() for line in lines]


def test_long_cells_are_not_cut():
    assert plain_table(["name"], [["x y" * 100]]).splitlines()[2] == "x y" * 100


def test_the_table_of_no_reports_is_its_head():
    assert render_table([]).splitlines()[0].startswith("evaluator")


@pytest.mark.parametrize("counts", [{}, {"regions": 5}])
def test_missing_counts_leave_cells_empty(counts):
    report = MetricReport("reg", "vg-reg-5k", "official", "meteor", {"meteor": 21.2}, counts)

    assert render_table([report]).splitlines()[2].split()[4:] == [
        "21.20",
        *map(str, counts.values()),
    ]
