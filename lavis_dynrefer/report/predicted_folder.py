"""The folder of `dynrefer predict`, as answers that can be drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.jsonl import ROWS, read_results
from lavis_dynrefer.report.plot_style import (
    INK,
    SERIES,
    Plot,
    new_figure,
    plot_settings,
    short,
)
from lavis_dynrefer.report.run_answers import AnsweredSplit
from lavis_dynrefer.structures import ImageRecord, RegionRecord, RegionSet

_MOST = 25  # names of a plot


def is_predicted(folder: str | Path) -> bool:
    """Whether a folder is one of `dynrefer predict`."""
    return (Path(folder) / ROWS).is_file()


def read_predicted(folder: str | Path) -> AnsweredSplit:
    """Answers of a folder; the categories that came with the boxes are the annotations.

    Raises:
        InputError: no answer, or a damaged row.
    """
    images, regions, predictions = {}, [], {}
    for number, result in enumerate(read_results(Path(folder) / ROWS), start=1):
        images[number] = ImageRecord(number, result.path, result.width, result.height)
        own = result.categories or (None,) * len(result.regions)
        for prediction, category in zip(result.regions, own):
            region_id = len(regions) + 1
            name = category.name if category else None
            regions.append(RegionRecord(region_id, number, prediction.box, category=name))
            predictions[region_id] = prediction
    if not regions:
        raise InputError(f"{folder}: {ROWS} has no region yet")
    return AnsweredSplit(RegionSet(Path(folder).name, "predicted", images, regions), predictions)


def name_plot(read: Mapping[str, AnsweredSplit], task: str) -> Plot | None:
    """How often each name was given: the best category of a region, or all its tags.

    Args:
        read: folder -> answers.
        task: "categories" or "tags".
    """
    counts = {
        label: Counter(
            name
            for answer in one.predictions.values()
            for name, _ in (answer.categories[:1] if task == "categories" else answer.tags)
        )
        for label, one in read.items()
    }
    total = Counter[str]()
    for one in counts.values():
        total.update(one)
    names = [name for name, _ in total.most_common(_MOST)]
    if not names:
        return None
    height = 0.8 / len(counts)
    with plot_settings():
        figure, (ax,) = new_figure(height=1.0 + 0.22 * len(names) * max(1, len(counts) / 2))
        for number, (label, one) in enumerate(counts.items()):
            places = [-row - height * (number - (len(counts) - 1) / 2) for row in range(len(names))]
            values = [one[name] for name in names]
            bars = ax.barh(
                places, values, 0.88 * height, color=SERIES[number % len(SERIES)], label=label
            )
            ax.bar_label(bars, [f"{n:,}" for n in values], padding=3, fontsize=8, color=INK)
        ax.set_yticks([-row for row in range(len(names))], [short(name) for name in names])
        ax.grid(visible=False, axis="y")
        ax.set_xlabel("regions")
        if len(counts) > 1:
            figure.legend(loc="outside upper left", ncols=min(len(counts), 4))
    best = ", ".join(f"{name} {total[name]:,}" for name in names[:5])
    title = {"categories": "Categories named", "tags": "Tags given"}[task]
    left_out = len(total) - len(names)
    return Plot(
        title,
        f"{title}, by number of regions. Most often: {best}.",
        figure,
        ("name", *counts),
        [(name, *(f"{one[name]:,}" for one in counts.values())) for name in names],
        f"{left_out:,} rarer names are left out." if left_out else "",
    )
