"""The page of `dynrefer inspect`: one html file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lavis_dynrefer.cli.inspect.image_checks import UNUSABLE, UNUSUAL, ImageReport
from lavis_dynrefer.cli.inspect.inspect_samples import SampleImage
from lavis_dynrefer.cli.inspect.region_statistics import (
    BEYOND_IMAGE,
    SHARES,
    SOURCE,
    Histogram,
    SplitStatistics,
)
from lavis_dynrefer.pages.html_page import page_template
from lavis_dynrefer.pages.region_drawing import (
    COLOURS,
    REJECTED_COLOUR,
    number_places,
    visible_box,
)
from lavis_dynrefer.structures import Box

_TICKS = 7  # labels on an axis, at most
_BADGE = 0.036  # height of a region's number, of the image's longer side
_MANY_DROPPED = 0.05  # of the regions read
_MANY_BEYOND = 0.01  # of the regions kept


@dataclass(frozen=True)
class SplitView:
    """What the page shows of one split."""

    statistics: SplitStatistics
    samples: Sequence[SampleImage] = ()
    rejected: Sequence[SampleImage] = ()  # images with regions that were dropped
    images: ImageReport | None = None  # if the image files were checked


class Chart(NamedTuple):
    """A histogram as drawn."""

    bars: list[tuple[float, str]]  # height as a fraction of the highest, and text
    ticks: list[tuple[float, str]]  # place as a fraction of the axis, and text
    whole: bool  # the bins are single numbers, written below their middle


def render_page(
    title: str,
    facts: Sequence[tuple[str, str]],
    splits: Sequence[SplitView],
    warnings: Sequence[str] = (),
) -> str:
    """The page as html; `facts` are names and values of what was read."""
    return page_template("inspect.html").render(
        title=title,
        facts=facts,
        splits=splits,
        warnings=warnings,
        notices=notices,
        chart=chart,
        marks=marks,
        measure=measure,
        percent=percent,
        meanings={**UNUSABLE, **UNUSUAL},
        unusable=UNUSABLE,
        quantile_names=[quantile_name(value) for value in SHARES],
    )


def notices(view: SplitView) -> list[str]:
    """Warnings for the top of the page."""
    numbers, warnings = view.statistics, []
    dropped = numbers.regions_read - numbers.regions_kept
    if dropped > _MANY_DROPPED * numbers.regions_read:
        reasons = (drop.reason.replace("_", " ") for drop in numbers.drops if drop.is_region)
        part = percent(dropped, numbers.regions_read)
        warnings.append(f"{part} of the regions were dropped, mostly: {next(reasons, '')}.")
    # Some datasets clip boxes at the edge by their own rules; the reader counts these.
    noted = numbers.counts.get(f"{SOURCE}box partly outside", (0, 0))
    beyond = max(numbers.counts[BEYOND_IMAGE], noted)[0]
    if beyond > _MANY_BEYOND * numbers.regions_kept:
        warnings.append(
            f"{percent(beyond, numbers.regions_kept)} of the boxes reach beyond their image: "
            "are they scaled, or corners and sizes mixed up?"
        )
    problems = [sample.problem for sample in view.samples if sample.problem]
    if problems:
        warnings.append(
            f"{len(problems)} of {len(view.samples)} sample images do not fit or cannot be read, "
            f"for example: {problems[0]}"
        )
    if view.images is not None and view.images.unusable:
        warnings.append(
            f"{view.images.unusable:,} of {view.images.checked:,} image files cannot be used."
        )
    return warnings


def measure(value: float) -> str:
    """A number with the digits that matter.

    >>> [measure(value) for value in (0.01234, 1.5, 12.345, 1234.5)]
    ['0.012', '1.5', '12.3', '1,234']
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 1 if abs(value) >= 1 else 1 - math.floor(math.log10(abs(value)))
    return f"{value:.{digits}f}".rstrip("0").rstrip(".")


def percent(part: int, whole: int) -> str:
    """A part in percent.

    >>> [percent(1, 8), percent(1, 100000), percent(0, 0)]
    ['12.5 %', '< 0.1 %', '0 %']
    """
    if not part or not whole:
        return "0 %"
    percent = 100 * part / whole
    return "< 0.1 %" if percent < 0.1 else f"{percent:.3g} %"


def quantile_name(value: float) -> str:
    """Head of a column of quantiles."""
    return {0.0: "min", 0.5: "median", 1.0: "max"}.get(value, f"{value:.0%}")


def chart(histogram: Histogram, unit: str, *, trim: bool = True) -> Chart:
    """Bars of a histogram; `trim` leaves out empty bins at its ends."""
    edges, counts = histogram.edges, histogram.counts
    whole = edges[1] - edges[0] == 1
    filled = [index for index, count in enumerate(counts) if count]
    shown = range(filled[0], filled[-1] + 1) if trim else range(len(counts))
    bars = []
    for index in shown:
        text = measure(edges[index])
        if index + 1 == len(edges):
            text += " and more"
        elif not whole:
            text += f"\u2013{measure(edges[index + 1])}"
        part = percent(counts[index], sum(counts))
        bars.append((counts[index] / max(counts), f"{text} {unit}: {counts[index]:,} ({part})"))
    middle = 0.5 if whole else 0.0
    every = math.ceil(len(shown) / _TICKS)
    ticks = [
        ((place + middle) / len(shown), measure(edges[index]))
        for place, index in list(enumerate(shown))[::every]
    ]
    return Chart(bars, ticks, whole)


def marks(sample: SampleImage) -> list[tuple[str, Box | None, Box | None]]:
    """Colour, visible box and place of the number of each region, in pixels of the image."""
    boxes = [visible_box(note.box, sample.size) for note in sample.notes]
    places = number_places(boxes, sample.size, height=_BADGE * max(sample.size))
    colours = [REJECTED_COLOUR] if sample.rejected else COLOURS
    return [
        (colours[index % len(colours)], boxes[index], places[index]) for index in range(len(boxes))
    ]
