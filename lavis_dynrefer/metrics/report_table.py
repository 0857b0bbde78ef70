"""Tables as plain text: for the log and for the file beside the json."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from lavis_dynrefer.structures import MetricReport

_WIDTH = 100  # characters
_HEADS = ("evaluator", "protocol", "mode", "metric", "value", "regions", "missing", "rejected")


def render_table(reports: Sequence[MetricReport]) -> str:
    """One line per report, then every metric (in percent) and count."""
    rows = []
    for report in reports:
        counts = [str(report.counts.get(name, "")) for name in _HEADS[5:]]
        value = f"{report.metrics[report.primary]:.2f}"
        names = (report.evaluator, report.protocol, report.mode, report.primary)
        rows.append((*names, value, *counts))
    text = plain_table(_HEADS, rows, numbers=4)
    for report in reports:
        text += f"\n{report.evaluator} on {report.protocol}, {report.mode}, in percent\n"
        text += _columns({name: f"{value:.2f}" for name, value in report.metrics.items()})
        text += _columns({name: str(value) for name, value in report.counts.items()})
    return text


def plain_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int = 0) -> str:
    """A table in plain text, its head underlined.

    Args:
        heads: of the columns.
        rows: cells; never wrapped or cut.
        numbers: how many columns, the last ones, are aligned on the right.

    >>> print(plain_table(["name", "n"], [["dog", "12"], ["umbrella", "3"]], numbers=1), end="")
    name       n
    ------------
    dog       12
    umbrella   3
    """
    from rich.box import Box
    from rich.table import Table

    line = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
    table = Table(box=line, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for number, head in enumerate(heads):
        right = number >= len(heads) - numbers
        table.add_column(head, justify="right" if right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return _text(table, 10_000)


def _columns(values: Mapping[str, str]) -> str:
    """Names with their values, as many side by side as fit."""
    from rich.columns import Columns
    from rich.padding import Padding

    name_width = max(map(len, values), default=0)
    value_width = max(map(len, values.values()), default=0)
    cells = [f"{name:<{name_width}} {value:>{value_width}}" for name, value in values.items()]
    return _text(Padding(Columns(cells, padding=(0, 3)), (0, 0, 0, 2)), _WIDTH) if cells else ""


def _text(renderable: Any, width: int) -> str:
    from rich.console import Console

    file = io.StringIO()
    Console(file=file, width=width, color_system=None, markup=False, highlight=False).print(
        renderable
    )
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())
