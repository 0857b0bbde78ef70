"""Plots of graded answers: attributes and categories."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lavis_dynrefer.pages.html_page import attribute
from lavis_dynrefer.report.plot_style import (
    INK,
    LINE,
    ON_SERIES,
    SERIES,
    SOFT,
    WIDTH,
    Plot,
    new_figure,
    plot_settings,
    series,
    short,
)
from lavis_dynrefer.report.run_answers import (
    FREQUENCIES,
    AttributeScores,
    Confusions,
)

MOST_CATEGORIES = 20  # of a confusion matrix that can still be read
MOST_ATTRIBUTES = 45  # of a panel
_MOST_MEANS = 3  # in the title of a panel


def attribute_plot(scores: Mapping[str, AttributeScores], *, title: str = "") -> Plot:
    """Average precision of each attribute, best first, a panel for each frequency.

    Args:
        scores: run -> its scores; all of the same attributes.
        title: by default "Average precision of each attribute".
    """
    first = next(iter(scores.values()))
    graded = [row for row in range(len(first.names)) if not math.isnan(first.precisions[row])]
    graded.sort(key=lambda row: -first.precisions[row])
    panels = {
        name: [row for row in graded if first.frequency[row] == name] for name in (*FREQUENCIES, "")
    }
    panels = {name: rows for name, rows in panels.items() if rows}
    shown = {name: _ends(rows) for name, rows in panels.items()}
    with plot_settings():
        height = 1.2 + 0.2 * max(len(rows) for rows in shown.values())
        figure, axes = new_figure(1, len(panels), height=height)
        most = max(map(len, shown.values()))
        for ax, (name, rows) in zip(axes, shown.items()):
            _draw_attributes(ax, scores, rows)
            ax.set_ylim(len(rows) - most - 0.6, len(rows) - 0.4)  # bars as thick in every panel
            means = [_mean(one.precisions[panels[name]]) for one in scores.values()]
            for number, mean in enumerate(means):
                ax.axvline(mean, color=series(number)["color"], linewidth=1, linestyle="--")
            told = f": mAP {', '.join(f'{mean:.1f}' for mean in means)}"
            ax.set_title(f"{name or 'all'}{told if len(means) <= _MOST_MEANS else ''}")
            ax.set_xlim(0, 100)
            ax.set_xlabel("average precision, percent")
        _run_legend(figure, list(scores))
    means = ", ".join(f"{label} {_mean(one.precisions):.1f}" for label, one in scores.items())
    alt = (
        f"Average precision of {len(graded)} attributes. Mean: {means} percent. Best: "
        f"{_names(first, graded[:3])}. Worst: {_names(first, graded[::-1][:3])}."
    )
    rows = [
        (
            first.names[row],
            first.frequency[row],
            int(first.positives[row]),
            *(f"{one.precisions[row]:.1f}" for one in scores.values()),
        )
        for row in graded
    ]
    heads = ("attribute", "frequency", "regions that have it", *_of_runs("AP", scores))
    none = len(first.names) - len(graded)
    left_out = len(graded) - sum(map(len, shown.values()))
    notes = ["Dashed: the mean of the group."]
    if left_out:
        notes.append(f"{left_out:,} between the best and the worst are in the table only.")
    if none:
        notes.append(f"{none:,} attributes have no region, and so no average precision.")
    title = title or "Average precision of each attribute"
    return Plot(title, alt, figure, heads, rows, " ".join(notes))


def calibration_plot(scores: Mapping[str, AttributeScores]) -> Plot:
    """Scores of attributes beside the share of regions that have them."""
    bins = {label: one.calibration() for label, one in scores.items()}
    with plot_settings():
        from matplotlib.ticker import LogFormatter

        figure, (left, right) = new_figure(1, 2, height=3.2, width=0.85 * WIDTH)
        left.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle="--", label="calibrated")
        for number, (label, found) in enumerate(bins.items()):
            look = series(number)
            left.plot([one[0] for one in found], [one[1] for one in found], **look, label=label)
            width = 0.09 / len(bins)
            right.bar(
                [
                    math.floor(10 * min(one[0], 0.999)) / 10 + width * (number + 0.5)
                    for one in found
                ],
                [one[2] for one in found],
                width=width,
                color=look["color"],
            )
        left.set(
            xlabel="score",
            ylabel="share that have the attribute",
            xlim=(0, 1),
            ylim=(-0.03, 1.03),
            title="Share by score",
        )
        right.set(
            xlabel="score", ylabel="labels", xlim=(0, 1), yscale="log", title="Labels by score"
        )
        right.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        right.yaxis.set_minor_formatter(LogFormatter())  # the default writes formulas
        if len(bins) > 1:
            left.legend(labelcolor=SOFT)
    error = {label: _calibration_error(found) for label, found in bins.items()}
    said = ", ".join(
        f"{label} {value:.3f}" if len(error) > 1 else f"{value:.3f}"
        for label, value in error.items()
    )
    rows = [
        (label, f"{score:.3f}", f"{share:.3f}", f"{count:,}")
        for label, found in bins.items()
        for score, share, count in found
    ]
    return Plot(
        "Calibration of attribute scores",
        f"Share of regions with an attribute by its score. Expected calibration error: {said}.",
        figure,
        ("run", "mean score", "share that have it", "labels"),
        rows,
        f"Expected calibration error: {said}. Above the dashed line, scores are too low.",
    )


def confusion_plot(confusions: Confusions, *, title: str = "") -> Plot:
    """The matrix of categories, rows adding up to 100 percent.

    Of more than `MOST_CATEGORIES`, those that are confused most.
    """
    counts, names = confusions.counts, confusions.names
    chosen = _most_confused(counts)
    columns = [*chosen]
    heads = [short(names[row], 18) for row in chosen]
    rest = np.delete(counts[:, : len(names)], chosen, axis=1).sum(axis=1)
    table = np.column_stack([counts[:, chosen], rest, counts[:, -1]])[chosen]
    heads += ["others", "no answer"]
    kept = [
        column
        for column in range(table.shape[1])
        if column < len(columns) or table[:, column].any()
    ]
    table, heads = table[:, kept], [heads[column] for column in kept]
    totals = np.maximum(table.sum(axis=1, keepdims=True), 1)
    shares = table / totals
    with plot_settings():
        cell = min(0.55, (WIDTH - 2.5) / len(heads))
        figure, (ax,) = new_figure(
            height=1.6 + cell * 0.8 * len(chosen), width=2.6 + cell * len(heads)
        )
        _draw_matrix(ax, shares, diagonal=len(chosen))
        labels = [f"{short(names[row], 18)}  {counts[row].sum():,}" for row in chosen]
        ax.set_yticks(range(len(chosen)), labels)
        ax.set_xticks(range(len(heads)), heads, rotation=45, ha="right", rotation_mode="anchor")
        ax.set_ylabel("annotated, with number of regions")
        ax.set_xlabel("named by the model")
    right = int(np.trace(counts[:, : len(names)]))
    top = confusions.top(3)
    said = "; ".join(f"{truth} named {named} {count} times" for truth, named, count, _ in top)
    left_out = len(names) - len(chosen)
    return Plot(
        title or "Which category is named for which",
        f"Confusion matrix of {len(chosen)} categories. {right} of {counts.sum()} regions are "
        f"named right. Most frequent confusions: {said or 'none'}.",
        figure,
        ("annotated", "regions", *heads),
        [
            (names[row], int(counts[row].sum()), *table[place].tolist())
            for place, row in enumerate(chosen)
        ],
        "Percent of each row; blue is right, orange wrong. The table has the counts."
        + (f" {left_out} categories that are confused less are left out." if left_out else ""),
    )


def _ends(rows: Sequence[int]) -> list[int]:
    """The best and the worst, where there are too many for a panel."""
    if len(rows) <= MOST_ATTRIBUTES:
        return list(rows)
    half = MOST_ATTRIBUTES // 2
    return [*rows[:half], *rows[-half:]]


def _mean(values: Any) -> float:
    return float(np.nanmean(values))


def _names(scores: AttributeScores, rows: Sequence[int]) -> str:
    return ", ".join(f"{scores.names[row]} {scores.precisions[row]:.0f}" for row in rows)


def _of_runs(head: str, runs: Mapping[str, Any]) -> list[str]:
    return [head] if len(runs) == 1 else [f"{head}, {label}" for label in runs]


def _draw_attributes(ax: Any, scores: Mapping[str, AttributeScores], rows: Sequence[int]) -> None:
    first = next(iter(scores.values()))
    places = list(range(len(rows)))[::-1]
    if len(scores) == 1:
        values = first.precisions[rows]
        ax.barh(places, values, color=SERIES[0], height=0.72)
        for place, value in zip(places, values):
            inside = value > 88
            ax.annotate(
                f"{value:.0f}",
                (value, place),
                xytext=(-3 if inside else 3, 0),
                textcoords="offset points",
                va="center",
                ha="right" if inside else "left",
                fontsize=8,
                color=ON_SERIES if inside else INK,
            )
    else:
        values = np.array([one.precisions[rows] for one in scores.values()])
        ax.hlines(places, values.min(axis=0), values.max(axis=0), color=LINE, linewidth=3)
        for number, (label, row) in enumerate(zip(scores, values)):
            look = series(number)
            ax.plot(
                row,
                places,
                color=look["color"],
                marker=look["marker"],
                linestyle="none",
                markersize=5,
                label=label,
            )
    ax.set_yticks(places, [short(_plain(first.names[row]), 26) for row in rows])
    ax.tick_params(axis="y", labelsize=9, length=0)
    ax.grid(visible=False, axis="y")


def _plain(name: str) -> str:
    kind, word = attribute(name)
    return f"{word} ({kind})" if kind else word


def _run_legend(figure: Any, labels: Sequence[str]) -> None:
    if len(labels) < 2:
        return
    handles, _ = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        [short(label, 40) for label in labels],
        loc="outside upper left",
        ncols=min(len(labels), 4),
        labelcolor=SOFT,
    )


def _calibration_error(bins: Sequence[tuple[float, float, int]]) -> float:
    total = sum(count for _, _, count in bins)
    return sum(count * abs(score - share) for score, share, count in bins) / max(total, 1)


def _most_confused(counts: Any) -> list[int]:
    """Rows to show, in the order they have."""
    size = len(counts)
    if size <= MOST_CATEGORIES:
        return list(range(size))
    square = counts[:, :size] * (1 - np.eye(size, dtype=int))
    wrong = square.sum(axis=0) + square.sum(axis=1)
    return sorted(np.argsort(-wrong, kind="stable")[:MOST_CATEGORIES].tolist())


def _draw_matrix(ax: Any, shares: Any, *, diagonal: int) -> None:
    from matplotlib.patches import Rectangle

    rows, columns = shares.shape
    for row in range(rows):
        for column in range(columns):
            share = float(shares[row, column])
            if not share:
                continue
            colour = SERIES[0] if row == column < diagonal else SERIES[1]
            place = (column - 0.5, row - 0.5)
            ax.add_patch(
                Rectangle(place, 1, 1, facecolor=colour, alpha=0.12 + 0.88 * share, linewidth=0)
            )
            if share >= 0.005:
                ax.text(
                    column,
                    row,
                    f"{100 * share:.0f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color=ON_SERIES if share > 0.6 else INK,
                )
    ax.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    ax.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    ax.grid(visible=False, which="major")
    ax.grid(visible=True, which="minor")
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)
