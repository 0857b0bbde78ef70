"""Reports as text: for the terminal and for a file beside the json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lavis_dynrefer.structures import MetricReport

WIDTH = 100  # characters


def render_table(reports: Sequence[MetricReport]) -> str:
    """All reports as plain text: one line each, then every metric and count.

    Args:
        reports: may be empty.

    Returns:
        ASCII lines of at most 100 characters unless a name is longer, ending in a line break;
        metrics are in percent.
    """
    head = ("evaluator", "protocol", "mode", "metric", "value", "regions", "missing", "rejected")
    rows = [head, *(_summary(report) for report in reports)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [_aligned(row, widths) for row in rows]
    lines.insert(1, "-" * len(lines[0]))
    for report in reports:
        lines += ["", f"{report.evaluator} on {report.protocol}, {report.mode}, in percent"]
        lines += _columns({name: f"{value:.2f}" for name, value in report.metrics.items()})
        lines += _columns({name: str(value) for name, value in report.counts.items()})
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _summary(report: MetricReport) -> tuple[str, ...]:
    return (
        *(report.evaluator, report.protocol, report.mode, report.primary),
        f"{report.metrics[report.primary]:.2f}",
        *(str(report.counts.get(name, "")) for name in ("regions", "missing", "rejected")),
    )


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    names = [cell.ljust(width) for cell, width in zip(row[:4], widths)]
    numbers = [cell.rjust(width) for cell, width in zip(row[4:], widths[4:])]
    return "  ".join([*names, *numbers])


def _columns(values: Mapping[str, str]) -> list[str]:
    if not values:
        return []
    name_width = max(map(len, values))
    value_width = max(map(len, values.values()))
    cells = [f"{name:<{name_width}} {value:>{value_width}}" for name, value in values.items()]
    per_line = max(1, (WIDTH - 2) // (len(cells[0]) + 3))
    starts = range(0, len(cells), per_line)
    return ["  " + "   ".join(cells[start : start + per_line]) for start in starts]
