"""The page of `dynrefer inspect`: one html file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image

from lavis_dynrefer import __version__
from lavis_dynrefer.cli.inspect.image_checks import UNUSABLE, UNUSUAL, ImageReport
from lavis_dynrefer.cli.inspect.inspect_samples import Sample
from lavis_dynrefer.cli.inspect.region_statistics import (
    BEYOND_IMAGE,
    SHARES,
    Histogram,
    SplitStatistics,
)
from lavis_dynrefer.pages.region_drawing import COLOURS, REJECTED_COLOUR, visible_box
from lavis_dynrefer.structures import Box

TEMPLATE = Path(__file__).parents[2] / "pages" / "templates" / "inspect.html"
JPEG_QUALITY = 80
_TICKS = 7  # labels on an axis, at most
_LABEL = 0.036  # height of a box's number, of the image's longer side
_MANY_DROPPED = 0.05  # of the regions read
_MANY_BEYOND = 0.01  # of the regions kept
# Pointing at a region shows the same one in the image or beside it.
_SCRIPT = """
document.addEventListener("pointerover", event => {
  document.querySelectorAll(".on").forEach(item => item.classList.remove("on"));
  const region = event.target.closest("[data-region]");
  if (region) region.closest(".card")
    .querySelectorAll(`[data-region="${region.dataset.region}"]`)
    .forEach(item => item.classList.add("on"));
});
"""


@dataclass(frozen=True)
class SplitView:
    """What the page shows of one split.

    Args:
        statistics: its numbers.
        samples: images with regions.
        rejected: images with regions that were dropped.
        images: what a check of the image files found, if there was one.
    """

    statistics: SplitStatistics
    samples: Sequence[Sample] = ()
    rejected: Sequence[Sample] = ()
    images: ImageReport | None = None


@dataclass(frozen=True)
class Bar:
    """One bin as drawn: `height` is a share of the highest."""

    height: float
    label: str


@dataclass(frozen=True)
class Chart:
    """A histogram as drawn.

    Args:
        bars: its bins.
        ticks: where on the axis and what is written there; a share of the width.
        median: where, as a share of the width.
        whole: the bins are single numbers, which are written below their middle.
    """

    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    median: float
    whole: bool


def render_page(
    title: str,
    facts: Sequence[tuple[str, str]],
    splits: Sequence[SplitView],
    warnings: Sequence[str] = (),
) -> str:
    """The page as html.

    Args:
        title: name of the dataset.
        facts: what was read, name and value.
        splits: in the order shown.
        warnings: sentences at the top.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        count=lambda number: f"{number:,}",
        measure=measure,
        share=share,
        chart=chart,
        data_url=data_url,
        words=lambda name: name.replace("_", " "),
    )
    digest = hashlib.sha256(_SCRIPT.encode()).digest()
    environment.globals.update(
        script=Markup(_SCRIPT),
        script_hash=base64.b64encode(digest).decode("ascii"),  # no other script may run
        notices=notices,
        colour_of=lambda sample, index: (
            REJECTED_COLOUR if sample.rejected else COLOURS[index % len(COLOURS)]
        ),
        mark=mark,
        meanings={**UNUSABLE, **UNUSUAL},
        unusable=UNUSABLE,
        quantile_names=[quantile_name(value) for value in SHARES],
        version=__version__,
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(title=title, facts=facts, splits=splits, warnings=warnings)


def notices(view: SplitView) -> list[str]:
    """What a person should know first."""
    numbers, found = view.statistics, []
    dropped = numbers.regions_read - numbers.regions_kept
    if dropped > _MANY_DROPPED * numbers.regions_read:
        part = share(dropped, numbers.regions_read)
        found.append(f"{part} of the regions were dropped, mostly: {_main_reason(numbers)}.")
    # Some datasets' own rules cut boxes at the edge: those are noted as the source has them.
    beyond = max(numbers.box_counts[BEYOND_IMAGE], numbers.noted.get("box_partly_outside", 0))
    if beyond > _MANY_BEYOND * numbers.regions_kept:
        found.append(
            f"{share(beyond, numbers.regions_kept)} of the boxes reach beyond their image: "
            "are they scaled, or corners and sizes mixed up?"
        )
    problems = [sample.problem for sample in view.samples if sample.problem]
    if problems:
        found.append(
            f"{len(problems)} of {len(view.samples)} images drawn by lot do not fit or cannot "
            f"be read, for example: {problems[0]}"
        )
    if view.images is not None and view.images.unusable:
        found.append(
            f"{view.images.unusable:,} of {view.images.checked:,} image files cannot be used."
        )
    return found


def measure(value: float) -> str:
    """A number in as many digits as one reads.

    >>> [measure(value) for value in (0.01234, 1.5, 12.345, 1234.5)]
    ['0.012', '1.5', '12.3', '1,234']
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 1 if abs(value) >= 1 else 1 - math.floor(math.log10(abs(value)))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".")


def share(part: int, whole: int) -> str:
    """A part in percent.

    >>> [share(1, 8), share(1, 100000), share(0, 0)]
    ['12.5 %', '< 0.1 %', '0 %']
    """
    if not part or not whole:
        return "0 %"
    percent = 100 * part / whole
    return "< 0.1 %" if percent < 0.1 else f"{percent:.3g} %"


def quantile_name(value: float) -> str:
    """Head of a column of quantiles."""
    return {0.0: "least", 0.5: "median", 1.0: "most"}.get(value, f"{value:.0%}")


def chart(histogram: Histogram, unit: str, *, trim: bool = True) -> Chart:
    """Bars of a histogram, without the empty bins at its ends unless they are wanted."""
    edges, counts = histogram.edges, histogram.counts
    filled = [index for index, count in enumerate(counts) if count]
    first, last = (filled[0], filled[-1]) if trim else (0, len(counts) - 1)
    shown = range(first, last + 1)
    middle = 0.5 if histogram.is_whole else 0.0
    bars = tuple(
        Bar(
            counts[index] / max(counts),
            f"{_bin(histogram, index)} {unit}: {counts[index]:,} ({part})",
        )
        for index in shown
        for part in [share(counts[index], sum(counts))]
    )
    every = math.ceil(len(shown) / _TICKS)
    return Chart(
        bars=bars,
        ticks=tuple(
            ((index - first + middle) / len(shown), measure(edges[index]))
            for index in shown[::every]
        ),
        median=(_place(histogram, histogram.median) - first + middle) / len(shown),
        whole=histogram.is_whole,
    )


def mark(box: Box, size: tuple[int, int]) -> dict[str, float] | None:
    """Where a box and its number are drawn, in pixels of the image; None for no box at all."""
    seen = visible_box(box, size)
    if seen is None:
        return None
    height = max(size) * _LABEL
    x1, y1, x2, y2 = seen
    above = y1 - height
    top = above if above >= 0 else min(y2, size[1] - height)
    return {
        "x": x1,
        "y": y1,
        "width": x2 - x1,
        "height": y2 - y1,
        "label": height,
        "left": max(min(x1, size[0] - 1.4 * height), 0),
        "top": max(top, 0),
    }


def data_url(image: Image.Image) -> str:
    """An image as part of a page."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _main_reason(numbers: SplitStatistics) -> str:
    reasons = (drop.reason for drop in numbers.drops if drop.is_region)
    return next(reasons, "").replace("_", " ")


def _bin(histogram: Histogram, index: int) -> str:
    edges = histogram.edges
    if index + 1 == len(edges):
        return f"{measure(edges[index])} and more"
    if histogram.is_whole:
        return measure(edges[index])
    return f"{measure(edges[index])}\u2013{measure(edges[index + 1])}"


def _place(histogram: Histogram, value: float) -> float:
    """Where a value lies, in bins from the first edge."""
    edges = histogram.edges
    index = max(i for i, edge in enumerate(edges) if edge <= value)
    if index + 1 == len(edges):
        return index + (0.0 if histogram.is_whole else 0.5)
    return index + (value - edges[index]) / (edges[index + 1] - edges[index])
