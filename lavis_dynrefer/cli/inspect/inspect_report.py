"""What `dynrefer inspect` makes of a split: numbers in the terminal, a page, a contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from lavis_dynrefer.cli.inspect.image_checks import ImageReport, check_images, summarise
from lavis_dynrefer.cli.inspect.inspect_page import (
    SplitView,
    measure,
    quantile_name,
    render_page,
    share,
)
from lavis_dynrefer.cli.inspect.inspect_samples import choose_rejected, choose_samples, draw_sheet
from lavis_dynrefer.cli.inspect.region_statistics import SHARES, SplitStatistics, describe_split
from lavis_dynrefer.structures import RegionSet

_FEW_IMAGES = 2000  # are checked before another process has started
_SHOWN_NAMES = 12
_LONGEST = 160  # characters of a caption or example in the terminal


def view_split(
    region_set: RegionSet,
    console: Console,
    *,
    samples: int,
    seed: int,
    check: str | None,
    processes: int,
) -> SplitView:
    """Count a split, check its images ("header" or "decode"), and choose some to show."""
    with console.status(f"counting {region_set.split}"):
        statistics = describe_split(region_set)
    report = None
    if check:
        images = region_set.images
        findings = check_images(
            images.values(),
            decode=check == "decode",
            processes=1 if len(images) < _FEW_IMAGES else processes,
        )
        with Progress(console=console, transient=True) as progress:
            title = f"checking images of {region_set.split}"
            tracked = progress.track(findings, total=len(images), description=title)
            report = summarise(tracked, decoded=check == "decode")
    rng = np.random.default_rng(seed)
    with console.status(f"drawing images of {region_set.split}"):
        chosen = choose_samples(region_set, samples, rng)
        rejected = choose_rejected(region_set, samples, rng)
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
    page.write_text(html, encoding="utf-8", errors="replace")
    drawn = draw_sheet(
        (f"{view.statistics.name}, {view.statistics.split}{what}", samples)
        for view in views
        for what, samples in (("", view.samples), (": dropped", view.rejected))
    )
    sheet.unlink(missing_ok=True)  # of an earlier run
    if drawn is None:
        return [page]
    drawn.save(sheet)
    return [page, sheet]


def print_numbers(views: Sequence[SplitView], console: Console) -> None:
    """Print the numbers as tables."""
    splits = [view.statistics for view in views]
    console.print(_overview(splits))
    for view in views:
        numbers = view.statistics
        console.print(_sizes(numbers))
        if numbers.drops:
            console.print(_dropped(numbers))
        if view.images is not None and view.images.counts:
            console.print(_images(numbers.split, view.images))
        elif view.images is not None:
            console.print(f"{numbers.split}: {view.images.checked:,} images, nothing unusual")
    for numbers in splits:
        for name in ("words", "categories", "tags", "attributes"):
            top = getattr(numbers, name).top[:_SHOWN_NAMES]
            if top:
                text = ", ".join(f"{_plain(word)} {count:,}" for word, count in top)
                console.print(Text(f"{numbers.split}, frequent {name}: {text}"))


def _overview(splits: Sequence[SplitStatistics]) -> Table:
    table = Table("", title=splits[0].name if splits else "")
    for split in splits:
        table.add_column(split.split, justify="right")
    columns = [_overview_column(split) for split in splits]
    for name in dict.fromkeys(name for column in columns for name in column):
        values = [column.get(name, "0") for column in columns]
        if name == "regions kept" or any(value != "0" for value in values):
            table.add_row(name, *values)
    return table


def _overview_column(split: SplitStatistics) -> dict[str, str]:
    kept, captions = split.regions_kept, split.captions
    noted = {f"in the source: {name.replace('_', ' ')}": n for name, n in split.noted.items()}
    return {
        "images": f"{split.images:,}",
        "without regions": f"{split.bare_images:,}",
        "regions read": f"{split.regions_read:,}",
        "regions kept": f"{kept:,}",
        "graded on": f"{split.graded_on:,}",
        "crowds": _part(split.crowds, kept),
        **{name: _part(count, kept) for name, count in {**split.box_counts, **noted}.items()},
        "captions": f"{captions.count:,}",
        "empty captions": _part(captions.empty, captions.count),
        "non-ASCII captions": _part(captions.non_ascii, captions.count),
        "categories": f"{split.categories.distinct:,}",
        "tags": f"{split.tags.distinct:,}",
        "attributes": f"{split.attributes.distinct:,}",
    }


def _sizes(numbers: SplitStatistics) -> Table:
    table = Table("", title=f"{numbers.split}: sizes and lengths")
    for value in SHARES:
        table.add_column(quantile_name(value), justify="right")
    for name, values in numbers.quantiles.items():
        table.add_row(name, *map(measure, values))
    return table


def _dropped(numbers: SplitStatistics) -> Table:
    table = _counts_table("reason", "number", title=f"{numbers.split}: dropped")
    for drop in numbers.drops:
        count = _part(drop.count, numbers.regions_read) if drop.is_region else f"{drop.count:,}"
        table.add_row(drop.reason.replace("_", " "), count, Text(_plain(drop.example)))
    return table


def _images(split: str, report: ImageReport) -> Table:
    how = "decoded" if report.decoded else "opened"
    title = f"{split}: images {how}: {report.checked:,}, unusable: {report.unusable:,}"
    table = _counts_table("kind", "images", title=title)
    for kind, count in report.counts.items():
        first = report.examples[kind]
        example = f"{first.path or first.image_id}: {first.detail}"
        table.add_row(kind.replace("_", " "), f"{count:,}", Text(_plain(example)))
    return table


def _counts_table(name: str, count: str, *, title: str) -> Table:
    table = Table(name, title=title)
    table.add_column(count, justify="right")
    table.add_column("for example")
    return table


def _part(count: int, whole: int) -> str:
    return f"{count:,} ({share(count, whole)})" if count else "0"


def _plain(text: str) -> str:
    """Short, and without characters that control the terminal."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}\u2026"
