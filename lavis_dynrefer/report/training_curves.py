"""Plots of trainings: losses, learning rate, speed by step; metrics by epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from lavis_dynrefer.report.plot_style import (
    INK,
    LINE,
    SOFT,
    Plot,
    new_figure,
    plot_settings,
    series,
    short,
)
from lavis_dynrefer.report.run_folder import TRAIN, RunFolder
from lavis_dynrefer.training.run_settings import RunSettings
from lavis_dynrefer.training.scalars.scalar_file import ScalarRow

Points = list[tuple[float, float]]

_LOSS = "loss"
_TITLES = {
    "loss": "Loss",
    "loss_caption": "Loss of captions",
    "loss_tag": "Loss of tags",
    "loss_contrast": "Loss of region-text contrast",
    "lr": "Learning rate",
    "grad_norm": "Norm of the gradients",
    "scale": "Scale of the gradient scaler",
    "skipped_steps": "Steps skipped by the scaler, in all",
    "regions_per_second": "Regions per second",
    "gpu_memory_mb": "Most GPU memory so far, MiB",
}
_STEPPING = ("lr", "grad_norm", "scale", "skipped_steps")
_SPEED = ("regions_per_second", "gpu_memory_mb")
# Evaluator -> the metrics of which the course is shown.
SHOWN = {
    "dense_caption": ("map", "detmap"),
    "reg": ("meteor", "cider", "bleu_4", "rouge_l"),
    "attributes": ("map", "map_head", "map_medium", "map_tail"),
    "categories": ("acc", "acc_official"),
}
_COLUMNS = 2
_TABLE_ROWS = 200  # of the points of a curve
_MOST_MARKS = 30  # epochs whose ends are marked
_MANY = 60  # points of a curve, from which on it is smoothed


def training_plots(runs: Sequence[RunFolder]) -> list[Plot]:
    """Losses, learning rate and steps, speed: those that any of the runs has."""
    plots = []
    losses = [name for name in _names(runs) if name.startswith(_LOSS)]
    for title, names, note in (
        ("Losses", losses, _loss_note(runs)),
        ("Learning rate and steps", _STEPPING, ""),
        ("Speed and memory", _SPEED, "Time between two rows of the log; validation is left out."),
    ):
        plot = _curves(runs, title, [name for name in names if name in _names(runs)], note)
        if plot is not None:
            plots.append(plot)
    return plots


def validation_plots(runs: Sequence[RunFolder]) -> list[Plot]:
    """The metrics of each split that is evaluated after the epochs, with the best epoch marked."""
    splits = dict.fromkeys(
        split
        for run in runs
        for split in run.epochs
        if split != TRAIN and len(run.evaluations(split)) > 1
    )
    return [_validation(runs, split) for split in splits]


def _names(runs: Sequence[RunFolder]) -> list[str]:
    """Names of all curves, losses of runs without numbers by step included."""
    by_step = [name for run in runs for row in run.steps for name in row.scalars]
    by_epoch = [name for run in runs for row in run.epochs.get(TRAIN, ()) for name in row]
    return [
        name for name in dict.fromkeys([*by_step, *by_epoch]) if name in _TITLES or _is_loss(name)
    ]


def _is_loss(name: str) -> bool:
    return name.startswith("loss")


def _loss_note(runs: Sequence[RunFolder]) -> str:
    if not any(run.steps for run in runs):
        return "A point is the mean of an epoch."
    freq = max(int(run.settings.get("log_freq") or RunSettings.log_freq) for run in runs)
    return (
        f"A point of a line is the mean of up to {freq} batches, a wide bar that of an epoch. Of "
        f"more than {_MANY} points, the strong line is a moving average and the faint one has all."
    )


def _curves(runs: Sequence[RunFolder], title: str, names: Sequence[str], note: str) -> Plot | None:
    unit, divisors = _unit(runs)
    drawn = {
        (name, run.label): (
            _by_step(run, name, divisors[run.label]),
            _by_epoch(run, name, divisors[run.label]),
        )
        for name in names
        for run in runs
    }
    names = [name for name in names if any(any(drawn[name, run.label]) for run in runs)]
    if not names:
        return None
    with plot_settings():
        rows = -(-len(names) // _COLUMNS)
        figure, axes = new_figure(rows, min(_COLUMNS, len(names)))
        for ax, name in zip(axes, names):
            for number, run in enumerate(runs):
                _draw_curve(ax, *drawn[name, run.label], number=number, label=run.label)
            if len(runs) == 1:
                _mark_epochs(ax, runs[0], divisors[runs[0].label])
            ax.set_title(_TITLES.get(name, name))
            ax.set_xlabel(unit)
            ax.margins(x=0.02)
            _thousands(ax.xaxis)
            if name in ("lr", "scale"):
                ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 4))
            if name in _SPEED:
                ax.set_ylim(bottom=0)
            if name.startswith("skipped"):
                ax.yaxis.get_major_locator().set_params(integer=True)
        for ax in axes[len(names) :]:
            ax.set_visible(False)
        _legend(figure, runs)
    table = [
        (run.label, _TITLES.get(name, name), kind, _place(step), _digits(value))
        for name in names
        for run in runs
        for kind, points in zip(("batches", "epoch"), drawn[name, run.label])
        for step, value in _thinned(points)
    ]
    heads = ("run", "curve", "mean of", unit, "value")
    return Plot(title, _said(title, names, runs, drawn), figure, heads, table, note)


def _unit(runs: Sequence[RunFolder]) -> tuple[str, dict[str, float | None]]:
    """What the axis of a curve counts, and by how many batches that is, for each run.

    Batches where every run has numbers by step, else epochs; None: no epoch of the run is finished,
    so that its length is not known.
    """
    if all(run.steps or not run.epochs.get(TRAIN) for run in runs):
        return "batches trained on", {run.label: 1.0 for run in runs}
    return "epochs trained", {run.label: _epoch_length(run) for run in runs}


def _epoch_length(run: RunFolder) -> float | None:
    if not run.steps:
        return 1.0
    return next((row.step / (row.epoch + 1) for row in _epoch_ends(run)), None)


def _epoch_ends(run: RunFolder) -> list[ScalarRow]:
    return [row for row in run.steps if f"{TRAIN}_loss" in row.scalars]


def _by_step(run: RunFolder, name: str, divisor: float | None) -> Points:
    if divisor is None:
        return []
    points = [(row.step / divisor, row.scalars[name]) for row in run.steps if name in row.scalars]
    if name == "skipped_steps":
        totals = accumulate(value for _, value in points)
        points = [(step, total) for (step, _), total in zip(points, totals)]
        return points if points and points[-1][1] else []
    return points


def _by_epoch(run: RunFolder, name: str, divisor: float | None) -> Points:
    """Means of epochs, at their last batch; by epoch where steps are not known."""
    if name == "lr" or divisor is None:
        return []
    ends = {row.epoch: row.step / divisor for row in _epoch_ends(run)}
    rows = [row for row in run.evaluations(TRAIN) if name in row]
    if run.steps:
        return [(ends[row["epoch"]], row[name]) for row in rows if row["epoch"] in ends]
    return [(float(row["epoch"] + 1), row[name]) for row in rows]


def _draw_curve(ax: Any, steps: Points, epochs: Points, *, number: int, label: str) -> None:
    look = series(number)
    line = {"color": look["color"], "linestyle": look["linestyle"]}
    if len(steps) > _MANY:
        ax.plot(*zip(*steps), **line, alpha=0.3, linewidth=0.9)
        ax.plot(*zip(*smoothed(steps)), **line, label=label)
    elif steps:
        ax.plot(*zip(*steps), **line, label=label)
    if epochs and steps:  # a mean over the whole epoch is drawn over the whole epoch
        starts = [0.0, *(end for end, _ in epochs[:-1])]
        ends = [end for end, _ in epochs]
        values = [value for _, value in epochs]
        ax.hlines(values, starts, ends, color=look["color"], alpha=0.35, linewidth=5)
    elif epochs:
        ax.plot(*zip(*epochs), **look, markersize=6, label=label)


def smoothed(points: Points) -> Points:
    """An exponential mean over about a thirtieth of the curve, right from its first point.

    >>> smoothed([(0.0, 2.0), (1.0, 2.0)])
    [(0.0, 2.0), (1.0, 2.0)]
    """
    keep = 1 - 1 / max(len(points) / 30, 1)
    mean = weight = 0.0
    found = []
    for step, value in points:
        if math.isfinite(value):
            mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        found.append((step, mean / weight if weight else math.nan))
    return found


def _mark_epochs(ax: Any, run: RunFolder, divisor: float | None) -> None:
    ends = sorted({row.step / (divisor or 1.0) for row in _epoch_ends(run)})
    for end in ends if len(ends) <= _MOST_MARKS else ():
        ax.axvline(end, color=LINE, linewidth=1.2, linestyle=":", zorder=0)


def _validation(runs: Sequence[RunFolder], split: str) -> Plot:
    rows = {run.label: run.evaluations(split) for run in runs}
    present = dict.fromkeys(name for found in rows.values() for row in found for name in row)
    reports = {run.label: run.reports[split][-1] for run in runs if run.reports.get(split)}
    primary = {
        run.label: str(reports[run.label]["primary"]) if run.label in reports else "agg_metrics"
        for run in runs
    }
    shown = [name for one in reports.values() for name in SHOWN.get(str(one["evaluator"]), ())]
    names = [name for name in dict.fromkeys((*primary.values(), *shown)) if name in present]
    with plot_settings():
        count = -(-len(names) // _COLUMNS)
        figure, axes = new_figure(count, min(_COLUMNS, len(names)))
        for ax, name in zip(axes, names):
            for number, run in enumerate(runs):
                points = [(row["epoch"], row[name]) for row in rows[run.label] if name in row]
                if not points:
                    continue
                ax.plot(*zip(*points), **series(number), label=run.label, markersize=5)
                best = _best(points)
                if name == primary[run.label] and best is not None:
                    _mark_best(ax, best, number)
            ax.set_title(f"{name}, percent")
            ax.set_xlabel("epoch, counted from 0")
            ax.xaxis.get_major_locator().set_params(integer=True)
            ax.margins(x=0.06, y=0.18)
        for ax in axes[len(names) :]:
            ax.set_visible(False)
        _legend(figure, runs)
    best_of = {
        run.label: _best(
            [
                (row["epoch"], row[primary[run.label]])
                for row in rows[run.label]
                if primary[run.label] in row
            ]
        )
        for run in runs
    }
    said = "; ".join(
        f"{label} is best in epoch {best[0]} with {best[1]:.2f}"
        for label, best in best_of.items()
        if best is not None
    )
    table = [
        (run.label, row["epoch"], *(_digits(row[name]) if name in row else "" for name in names))
        for run in runs
        for row in rows[run.label]
    ]
    alt = f"Metrics of split {split} by epoch: {said or 'no finite number'}."
    heads = ("run", "epoch", *names)
    main = " or ".join(dict.fromkeys(primary.values()))
    note = f"The ring marks the best {main}, which picks the weights." if said else ""
    return Plot(f"Validation: {split}", alt, figure, heads, table, note)


def _best(points: Points) -> tuple[float, float] | None:
    """The first of the highest, as the run chooses it."""
    finite = [point for point in points if math.isfinite(point[1])]
    return max(finite, key=lambda point: point[1]) if finite else None


def _mark_best(ax: Any, best: tuple[float, float], number: int) -> None:
    colour = series(number)["color"]
    ax.plot(
        *best,
        marker="o",
        markersize=13,
        markerfacecolor="none",
        markeredgecolor=colour,
        markeredgewidth=1.6,
        linestyle="none",
    )
    ax.annotate(
        f"{best[1]:.2f}",
        best,
        xytext=(0, 11),
        textcoords="offset points",
        ha="center",
        color=INK,
        fontsize=9,
    )


def _legend(figure: Any, runs: Sequence[RunFolder]) -> None:
    if len(runs) < 2:
        return
    handles, labels = [], []
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels()):
            if label not in labels:
                handles.append(handle)
                labels.append(label)
    figure.legend(
        handles,
        [short(label, 40) for label in labels],
        loc="outside upper left",
        ncols=min(len(labels), 4),
        labelcolor=SOFT,
    )


def _thousands(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.get_major_locator().set_params(integer=True)


def _thinned(points: Points) -> Iterator[tuple[float, float]]:
    every = -(-len(points) // _TABLE_ROWS) or 1
    yield from points[::every]


def _place(step: float) -> str:
    """Batches are whole numbers, epochs may be parts.

    >>> _place(12345.0), _place(0.25)
    ('12,345', '0.25')
    """
    return f"{step:,.3f}".rstrip("0").rstrip(".")


def _digits(value: float) -> str:
    return f"{value:.4g}"


def _said(
    title: str,
    names: Sequence[str],
    runs: Sequence[RunFolder],
    drawn: Mapping[tuple[str, str], tuple[Points, Points]],
) -> str:
    parts = []
    for run in runs:
        for name in names:
            steps, epochs = drawn[name, run.label]
            points = epochs if len(epochs) > 1 and _is_loss(name) else steps or epochs
            if points:
                of = f"{run.label}: " if len(runs) > 1 else ""
                ends = f"from {_digits(points[0][1])} to {_digits(points[-1][1])}"
                parts.append(f"{of}{_TITLES.get(name, name)} {ends}")
    return f"{title} over the training. {'; '.join(parts)}."
