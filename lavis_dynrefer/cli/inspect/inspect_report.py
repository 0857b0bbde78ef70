"""What `dynrefer inspect` makes of a split: numbers in the terminal, a page, a contact sheet."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from lavis_dynrefer.cli.inspect.image_checks import ImageReport, check_images, count_findings
from lavis_dynrefer.cli.inspect.inspect_page import (
    SplitView,
    measure,
    percent,
    quantile_name,
    render_page,
)
from lavis_dynrefer.cli.inspect.inspect_samples import choose_rejected, choose_samples, draw_sheet
from lavis_dynrefer.cli.inspect.region_statistics import SHARES, SplitStatistics, describe_split
from lavis_dynrefer.errors import shorten
from lavis_dynrefer.formats.json_stream import replace_bytes, replacing_path
from lavis_dynrefer.structures import RegionSet

_FEW_IMAGES = 2000  # are checked before another process has started
_EXAMPLE = "for example"  # head of a column
_SHOWN_NAMES = 12
_MAX_LENGTH = 160  # characters of a name or example in the terminal
_CLOSED_LISTS = ("categories", "tags", "attributes")


def view_split(region_set: RegionSet, arguments: argparse.Namespace, console: Console) -> SplitView:
    """Count a split, check its images, and choose some to show."""
    with console.status(f"counting {region_set.split}"):
        statistics = describe_split(region_set)
    report = None
    if arguments.check_images:
        images, decode = region_set.images, arguments.check_images == "decode"
        processes = 1 if len(images) < _FEW_IMAGES else arguments.processes
        findings = check_images(images.values(), decode=decode, processes=processes)
        with Progress(console=console, transient=True) as progress:
            title = f"checking images of {region_set.split}"
            tracked = progress.track(findings, total=len(images), description=title)
            report = count_findings(tracked, decoded=decode)
    rng = np.random.default_rng(arguments.seed)
    with console.status(f"drawing images of {region_set.split}"):
        chosen = choose_samples(region_set, arguments.samples, rng)
        rejected = choose_rejected(region_set, arguments.samples, rng)
    return SplitView(statistics, chosen, rejected, report)


def write_files(
    folder: Path,
    views: Sequence[SplitView],
    *,
    title: str,
    facts: Sequence[tuple[str, str]],
    warnings: Sequence[str],
) -> list[Path]:
    """Write the page and the contact sheet; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    page, sheet = folder / "inspect.html", folder / "regions.png"
    html = render_page(title, facts, views, warnings)
    replace_bytes(page, html.encode(errors="replace"))
    drawn = draw_sheet(
        (f"{view.statistics.name}, {view.statistics.split}{what}", samples)
        for view in views
        for what, samples in (("", view.samples), (": dropped", view.rejected))
    )
    sheet.unlink(missing_ok=True)  # of an earlier run
    if drawn is None:
        return [page]
    with replacing_path(sheet) as partial:
        drawn.save(partial, "PNG")
    return [page, sheet]


def print_numbers(views: Sequence[SplitView], console: Console) -> None:
    """Print the numbers as tables."""
    splits = [view.statistics for view in views]
    console.print(_overview(splits))
    for view in views:
        numbers, checked = view.statistics, view.images
        rows = [(name, *map(measure, values)) for name, values in numbers.quantiles.items()]
        heads = ("", *map(quantile_name, SHARES))
        console.print(_table(f"{numbers.split}: sizes and lengths", heads, rows))
        if numbers.drops:
            console.print(_dropped(numbers))
        if checked is not None and checked.counts:
            console.print(_images(numbers.split, checked))
        elif checked is not None:
            console.print(f"{numbers.split}: {checked.checked:,} images, nothing unusual")
    for numbers in splits:
        for name, names in numbers.names.items():
            if names.top:
                top = names.top[:_SHOWN_NAMES]
                text = ", ".join(f"{_plain(word)} {count:,}" for word, count in top)
                console.print(Text(f"{numbers.split}, frequent {name}: {text}"))


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table whose first column holds names, and an example in the column of that name."""
    table = Table(title=title)
    for number, head in enumerate(heads):
        table.add_column(head, justify="left" if number == 0 or head == _EXAMPLE else "right")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _overview(splits: Sequence[SplitStatistics]) -> Table:
    columns = [_overview_column(split) for split in splits]
    rows = [
        (name, *(column.get(name, "0") for column in columns))
        for name in dict.fromkeys(name for column in columns for name in column)
    ]
    shown = [row for row in rows if row[0] == "regions kept" or set(row[1:]) != {"0"}]
    return _table(splits[0].name, ("", *(split.split for split in splits)), shown)


def _overview_column(split: SplitStatistics) -> dict[str, str]:
    numbers = {
        "images": split.images,
        "without regions": split.bare_images,
        "regions read": split.regions_read,
        "regions kept": split.regions_kept,
        "graded on": split.graded_on,
        "captions": split.captions,
    }
    return {
        **{name: f"{number:,}" for name, number in numbers.items()},
        **{name: _part(*count) for name, count in split.counts.items()},
        **{name: f"{split.names[name].distinct:,}" for name in _CLOSED_LISTS},
    }


def _dropped(numbers: SplitStatistics) -> Table:
    read = numbers.regions_read
    rows = [
        (
            drop.reason.replace("_", " "),
            _part(drop.count, read) if drop.is_region else f"{drop.count:,}",
            _plain(drop.example),
        )
        for drop in numbers.drops
    ]
    return _table(f"{numbers.split}: dropped", ("reason", "number", _EXAMPLE), rows)


def _images(split: str, report: ImageReport) -> Table:
    rows = []
    for kind, count in report.counts.items():
        first = report.examples[kind]
        example = _plain(f"{first.path or first.image_id}: {first.detail}")
        rows.append((kind.replace("_", " "), f"{count:,}", example))
    how = "decoded" if report.decoded else "opened"
    title = f"{split}: images {how}: {report.checked:,}, unusable: {report.unusable:,}"
    return _table(title, ("kind", "images", _EXAMPLE), rows)


def _part(count: int, whole: int) -> str:
    return f"{count:,} ({percent(count, whole)})" if count else "0"


def _plain(text: str) -> str:
    return shorten(text, _MAX_LENGTH, printable=True)
