"""Several runs side by side: their metrics, and the settings in which they differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lavis_dynrefer.report.plot_style import (
    INK,
    SOFT,
    WIDTH,
    Plot,
    new_figure,
    plot_settings,
    series,
    short,
)
from lavis_dynrefer.report.run_folder import RunFolder
from lavis_dynrefer.report.training_curves import SHOWN

_PLACES = ("run.output_dir", "run.dist_url", "run.rank", "run.gpu")  # of a run, not of what it does
ABSENT = "not set"


def last_reports(run: RunFolder) -> dict[str, Mapping[str, Any]]:
    """Split -> its newest report."""
    return {split: reports[-1] for split, reports in run.reports.items()}


def shown_metrics(report: Mapping[str, Any]) -> list[str]:
    """The metrics of a report that are drawn, the primary one first."""
    names = dict.fromkeys((report["primary"], *SHOWN.get(report["evaluator"], ())))
    return [name for name in names if name in report["metrics"]]


def metric_table(runs: Sequence[RunFolder]) -> list[tuple[str, str, list[float | None]]]:
    """Protocol and split, metric, and its value for each run; None where a run has none.

    Values stand in one row only if split, protocol and mode are the same.
    """
    rows: dict[tuple[str, str], list[float | None]] = {}
    for number, run in enumerate(runs):
        for split, report in last_reports(run).items():
            where = f"{split}: {report['protocol']}, {report['mode']}"
            for name in dict.fromkeys((*shown_metrics(report), *report["metrics"])):
                values = rows.setdefault((where, name), [None] * len(runs))
                values[number] = float(report["metrics"][name])
    return [(where, name, values) for (where, name), values in rows.items()]


def comparison_plot(runs: Sequence[RunFolder]) -> Plot | None:
    """The main metrics of the newest reports, run beside run."""
    metrics: dict[str, dict[str, float]] = {}
    for run in runs:
        for split, report in last_reports(run).items():
            for name in shown_metrics(report)[:1]:
                value = float(report["metrics"][name])
                metrics.setdefault(run.label, {})[f"{name}\n{split}"] = value
    if not metrics:
        return None
    title = "Main metrics" if len(runs) == 1 else "Main metrics of the runs"
    changed = [key for key, _ in differing_settings(runs)]
    if changed and all(_of_views(key) for key in changed):
        title = "View policies compared"
    return metric_plot(metrics, title=title, note="Of the newest report of each split.")


def differing_settings(runs: Sequence[RunFolder]) -> list[tuple[str, list[str]]]:
    """Keys whose values differ between the runs, and these as text; those without it: "not set"."""
    flat = [_flat(run.config) for run in runs]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = [(key, [one.get(key, ABSENT) for one in flat]) for key in keys if key not in _PLACES]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _of_views(key: str) -> bool:
    return ".vis_processor." in key


def _flat(section: Any, place: str = "") -> dict[str, str]:
    """Leaves by their place: "run.max_epoch" -> "3"."""
    if isinstance(section, Mapping) and section:
        return {
            key: value
            for name, part in section.items()
            for key, value in _flat(part, f"{place}.{name}" if place else str(name)).items()
        }
    return {place: str(section)}


def metric_plot(
    metrics: Mapping[str, Mapping[str, float]], *, title: str = "Metrics", note: str = ""
) -> Plot:
    """Metrics side by side, such as those of several runs or view policies.

    Args:
        metrics: run or policy -> metric -> percent; those missing are left out.
        title: what is compared.
        note: how to read it.
    """
    names = list(dict.fromkeys(name for found in metrics.values() for name in found))
    width = 0.8 / len(metrics)
    with plot_settings():
        figure, (ax,) = new_figure(
            height=3.2, width=min(WIDTH, 2.5 + 1.3 * len(names) * max(1, len(metrics) / 3))
        )
        for number, (label, found) in enumerate(metrics.items()):
            places = [row for row, name in enumerate(names) if _finite(found.get(name))]
            at = [row + width * (number - (len(metrics) - 1) / 2) for row in places]
            values = [found[names[row]] for row in places]
            bars = ax.bar(
                at, values, width=0.88 * width, color=series(number)["color"], label=label
            )
            ax.bar_label(bars, fmt="%.1f", padding=2, fontsize=8, color=INK)
        ax.set_xticks(
            range(len(names)),
            ["\n".join(short(line) for line in name.split("\n")) for name in names],
        )
        ax.grid(visible=False, axis="x")
        ax.set_ylabel("percent")
        ax.margins(y=0.12)
        if len(metrics) > 1:
            figure.legend(loc="outside upper left", ncols=min(len(metrics), 4), labelcolor=SOFT)
    rows = [
        (
            name.replace("\n", " · "),
            *(f"{found[name]:.2f}" if name in found else "" for found in metrics.values()),
        )
        for name in names
    ]
    said = "; ".join(
        f"{name}: ".replace("\n", " · ")
        + ", ".join(
            f"{label} {found[name]:.1f}" for label, found in metrics.items() if name in found
        )
        for name in names
    )
    return Plot(title, f"{title} in percent. {said}.", figure, ("metric", *metrics), rows, note)


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
