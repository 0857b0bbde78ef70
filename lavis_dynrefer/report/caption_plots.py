"""Plots of captions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lavis_dynrefer.report.plot_style import SOFT, Plot, new_figure, plot_settings, series, short
from lavis_dynrefer.report.run_answers import RegionExample

_LENGTHS = (1, 3, 5, 7, 9, 12, 16, 25)  # words: where the bins of annotations begin
_BINS = 6  # of probabilities
_LONGEST = 30  # words; longer captions are in the last bin
_FEWEST = 3  # captions of a bin that is drawn

Rows = list[tuple[Any, ...]]
Scored = Sequence[tuple[RegionExample, float]]


def caption_plot(
    captions: Mapping[str, Sequence[RegionExample]],
    meteor: Mapping[str, Sequence[tuple[RegionExample, float]]],
) -> Plot:
    """Lengths of captions, and their METEOR by the length of the annotation and by probability.

    Args:
        captions: run -> captions.
        meteor: run -> captions with METEOR in percent; may be empty.
    """
    graded = any(meteor.values())
    rows: list[tuple[Any, ...]] = []
    with plot_settings():
        figure, axes = new_figure(1, 3 if graded else 1, height=3.1)
        for number, (label, found) in enumerate(captions.items()):
            look = series(number)
            _draw_lengths(axes[0], found, look, label, rows)
            if meteor.get(label):
                _draw_by_length(axes[1], meteor[label], look, label, rows)
                _draw_by_probability(axes[2], meteor[label], look, label, rows)
        truths = [_words(one.truth) for one in next(iter(captions.values())) if one.truth]
        if truths:
            _draw_annotated_lengths(axes[0], truths, rows)
        axes[0].set(title="Length of captions", xlabel="words", ylabel="percent of regions")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(
            handles,
            [short(label, 40) for label in labels],
            loc="outside upper left",
            ncols=min(len(labels), 4),
            labelcolor=SOFT,
        )
        if graded:
            axes[1].set(
                title="METEOR by length",
                xlabel="words of the annotation",
                ylabel="mean METEOR, percent",
                ylim=(0, None),
            )
            axes[2].set(
                title="METEOR by probability",
                xlabel="probability of the caption",
                ylabel="mean METEOR, percent",
                ylim=(0, None),
            )
    means = "; ".join(
        f"{label}: {np.mean([_words(one.answer) for one in found]):.1f} words on average"
        + (
            f", METEOR {np.mean([score for _, score in meteor[label]]):.1f}"
            if meteor.get(label)
            else ""
        )
        for label, found in captions.items()
        if found
    )
    heads = ("run", "what", "bin", "value", "regions")
    notes = []
    if graded:
        notes.append(
            "Bars: standard error of the mean. A mean of regions is not the METEOR of the metrics, "
            "which is one of all captions together."
        )
    if any(row[2] == _LONGEST for row in rows):
        notes.append(f"{_LONGEST} words stand for {_LONGEST} or more.")
    alt = f"Lengths and scores of captions. {means}."
    return Plot("Captions", alt, figure, heads, rows, " ".join(notes))


def _draw_lengths(
    ax: Any, captions: Sequence[RegionExample], look: Mapping[str, Any], label: str, rows: Rows
) -> None:
    lengths = [_words(one.answer) for one in captions]
    shares = _shares(lengths)
    ax.plot(*list(zip(*shares))[:2], **look, markersize=4, label=label)
    rows.extend(
        (label, "words of the caption", words, f"{share:.1f} %", count)
        for words, share, count in shares
        if count
    )


def _draw_annotated_lengths(ax: Any, lengths: Sequence[int], rows: Rows) -> None:
    shares = _shares(lengths)
    ax.bar(*list(zip(*shares))[:2], width=0.9, color=SOFT, alpha=0.3, label="annotations", zorder=0)
    rows.extend(
        ("annotations", "words", words, f"{share:.1f} %", count)
        for words, share, count in shares
        if count
    )


def _shares(lengths: Sequence[int]) -> list[tuple[int, float, int]]:
    """Words, percent of the captions and their number, from the shortest to the longest."""
    capped = [min(length, _LONGEST) for length in lengths]
    counts = [capped.count(words) for words in range(max(capped) + 2)]
    return [(words, 100 * count / len(lengths), count) for words, count in enumerate(counts)]


def _draw_by_length(
    ax: Any, scored: Scored, look: Mapping[str, Any], label: str, rows: Rows
) -> None:
    """Bins of the same lengths in every run, each at its mean length."""
    bins = [
        [(_words(one.truth), score) for one, score in scored if low <= _words(one.truth) < high]
        for low, high in zip(_LENGTHS, [*_LENGTHS[1:], math.inf])
    ]
    _draw_bins(ax, bins, look, label, rows, "METEOR by words of the annotation")


def _draw_by_probability(
    ax: Any, scored: Scored, look: Mapping[str, Any], label: str, rows: Rows
) -> None:
    """Bins of as many captions each."""
    pairs = sorted((one.number, score) for one, score in scored)
    count = max(min(_BINS, len(pairs) // _FEWEST), 1)
    edges = [len(pairs) * number // count for number in range(count + 1)]
    bins = [pairs[low:high] for low, high in zip(edges, edges[1:])]
    _draw_bins(ax, bins, look, label, rows, "METEOR by probability")
    if pairs[0][0] > 0 and pairs[-1][0] > 20 * pairs[0][0]:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.xaxis.set_minor_formatter("")


def _draw_bins(
    ax: Any,
    bins: Sequence[Sequence[tuple[float, float]]],
    look: Mapping[str, Any],
    label: str,
    rows: Rows,
    what: str,
) -> None:
    """Means of the second numbers at the means of the first, with standard errors."""
    found = []
    for pairs in bins:
        if len(pairs) < _FEWEST:
            continue
        values, scores = np.array(pairs).T
        error = float(scores.std(ddof=1) / np.sqrt(len(scores)))
        found.append((float(values.mean()), float(scores.mean()), error))
        edges = f"{values.min():.3g}\u2013{values.max():.3g}"
        rows.append((label, what, edges, f"{scores.mean():.1f}", len(scores)))
    if found:
        places, means, errors = zip(*found)
        ax.errorbar(places, means, yerr=errors, **look, markersize=5, capsize=3, label=label)


def _words(text: str) -> int:
    return len(text.split())
