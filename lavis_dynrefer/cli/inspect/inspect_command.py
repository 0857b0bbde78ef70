"""Show what a dataset holds: counts, sizes, captions, and images with their regions.

dynrefer inspect vg --root /data/vg --split val --check-images decode
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from lavis_dynrefer.cli.dataset_arguments import add_dataset_arguments, builder_from, read_splits
from lavis_dynrefer.cli.inspect.image_checks import ImageReport, check_images
from lavis_dynrefer.cli.inspect.inspect_page import (
    SplitView,
    measure,
    quantile_name,
    render_page,
    share,
)
from lavis_dynrefer.cli.inspect.inspect_samples import choose_rejected, choose_samples, draw_sheet
from lavis_dynrefer.cli.inspect.region_statistics import SHARES, SplitStatistics, describe_split
from lavis_dynrefer.datasets.region_builder import RegionDatasetBuilder, first_regions
from lavis_dynrefer.datasets.tables import ImageTable
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.structures import RegionSet

_FEW_IMAGES = 2000  # are checked before another process has started
_SHOWN_NAMES = 12
_LONGEST = 160  # characters of a caption or example in the terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer inspect`."""
    add_dataset_arguments(parser)
    parser.add_argument(
        "--output", type=Path, help="folder of inspect.html and regions.png; else inspect-DATASET"
    )
    parser.add_argument("--samples", type=int, default=12, help="images drawn of each split")
    parser.add_argument("--seed", type=int, default=0, help="of the lot that draws them")
    parser.add_argument(
        "--check-images",
        choices=("header", "decode"),
        help="open all image files, or decode them, which alone finds damaged ones",
    )
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="that check many images"
    )


def run(arguments: argparse.Namespace) -> int:
    """Inspect; returns the exit code."""
    for option, least in (("samples", 0), ("processes", 1), ("seed", 0)):
        if getattr(arguments, option) < least:
            raise InputError(f"--{option}: expected at least {least}")
    console = Console(markup=False, emoji=False)  # names of the data may look like either
    builder = builder_from(arguments)
    output: Path = arguments.output or Path(f"inspect-{builder.dataset_name}")
    info = builder.info()
    with console.status(f"reading {builder.dataset_name}"):
        found = read_splits(builder)
    folder, warnings = _image_folder(builder, found), []
    if not folder.is_dir():
        warnings.append(f"There is no folder {folder}: the numbers stand without the images.")
    views = []
    for region_set in found.values():
        part = first_regions(region_set, info.max_images, info.max_regions)
        views.append(_view(part, arguments, console))
    show(console, views)
    output.mkdir(parents=True, exist_ok=True)
    for text in warnings:
        console.print(f"warning: {text}", soft_wrap=True, highlight=False)
    facts = [*_sources(builder), ("images", str(folder)), ("seed", str(arguments.seed))]
    kind = str(builder.config.type).replace("default", "")
    page = render_page(f"{builder.dataset_name} {kind}".strip(), facts, views, warnings)
    (output / "inspect.html").write_text(page, encoding="utf-8")
    _draw(views, output / "regions.png")
    for name in ("inspect.html", "regions.png"):
        if (output / name).exists():
            console.print(f"{output / name}", soft_wrap=True, highlight=False)
    return 0


def _view(region_set: RegionSet, arguments: argparse.Namespace, console: Console) -> SplitView:
    with console.status(f"counting {region_set.split}"):
        statistics = describe_split(region_set)
    report = None
    if arguments.check_images:
        report = _check(region_set, arguments, console)
    rng = np.random.default_rng(arguments.seed)
    with console.status(f"drawing images of {region_set.split}"):
        samples = choose_samples(region_set, arguments.samples, rng)
        rejected = choose_rejected(region_set, arguments.samples, rng)
    return SplitView(statistics, samples, rejected, report)


def _check(region_set: RegionSet, arguments: argparse.Namespace, console: Console) -> ImageReport:
    images = region_set.images
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task(f"checking images of {region_set.split}", total=len(images))
        return check_images(
            images.values(),
            decode=arguments.check_images == "decode",
            processes=1 if len(images) < _FEW_IMAGES else arguments.processes,
            on_progress=lambda done: progress.advance(bar, done),
        )


def _image_folder(builder: RegionDatasetBuilder, found: Mapping[str, RegionSet]) -> Path:
    images = next(iter(found.values())).images
    if isinstance(images, ImageTable):
        return Path(images.folder)
    return builder.images(builder.info()).absolute()


def _sources(builder: RegionDatasetBuilder) -> list[tuple[str, str]]:
    """What was read, name and path."""
    info = builder.info()
    if info.prepared:
        return [("prepared", str(Path(info.prepared).absolute()))]
    sources = builder.sources(info).items()
    return [(setting.replace("_", " "), str(path.absolute())) for setting, path in sources]


def _draw(views: Sequence[SplitView], path: Path) -> None:
    """The contact sheet; that of an earlier run does not stay."""
    sheet = draw_sheet(
        (f"{view.statistics.name}, {view.statistics.split}{what}", samples)
        for view in views
        for what, samples in (("", view.samples), (": dropped", view.rejected))
    )
    path.unlink(missing_ok=True)
    if sheet is not None:
        sheet.save(path)


def show(console: Console, views: Sequence[SplitView]) -> None:
    """The numbers in the terminal."""
    splits = [view.statistics for view in views]
    console.print(_overview(splits))
    for view in views:
        console.print(_sizes(view.statistics))
        if view.statistics.drops:
            console.print(_dropped(view.statistics))
        if view.images is not None and view.images.counts:
            console.print(_images(view.statistics.split, view.images))
        elif view.images is not None:
            console.print(f"{view.statistics.split}: {view.images.checked:,} images, all usual")
    for statistics in splits:
        for name in ("words", "categories", "tags", "attributes"):
            top = getattr(statistics, name).top[:_SHOWN_NAMES]
            if top:
                text = ", ".join(f"{_plain(word)} {count:,}" for word, count in top)
                console.print(Text(f"{statistics.split}, frequent {name}: {text}"))


def _overview(splits: Sequence[SplitStatistics]) -> Table:
    table = Table("", title=splits[0].name if splits else "")
    for split in splits:
        table.add_column(split.split, justify="right")
    rows = {
        "images": [f"{split.images:,}" for split in splits],
        "without regions": [f"{split.bare_images:,}" for split in splits],
        "regions read": [f"{split.regions_read:,}" for split in splits],
        "regions kept": [f"{split.regions_kept:,}" for split in splits],
        "graded on": [f"{split.graded_on:,}" for split in splits],
        "crowds": [_part(split.crowds, split.regions_kept) for split in splits],
    }
    for name in splits[0].box_counts if splits else ():
        rows[name] = [_part(split.box_counts[name], split.regions_kept) for split in splits]
    for name in dict.fromkeys(name for split in splits for name in split.noted):
        values = [_part(split.noted.get(name, 0), split.regions_kept) for split in splits]
        rows[f"in the source: {name.replace('_', ' ')}"] = values
    captions = [split.captions for split in splits]
    rows["captions"] = [f"{item.count:,}" for item in captions]
    rows["empty captions"] = [_part(item.empty, item.count) for item in captions]
    rows["captions beyond ASCII"] = [_part(item.non_ascii, item.count) for item in captions]
    for name in ("categories", "tags", "attributes"):
        rows[name] = [f"{getattr(split, name).distinct:,}" for split in splits]
    for name, values in rows.items():
        if name == "regions kept" or any(value != "0" for value in values):
            table.add_row(name, *values)
    return table


def _sizes(statistics: SplitStatistics) -> Table:
    table = Table("", title=f"{statistics.split}: sizes and lengths")
    for value in SHARES:
        table.add_column(quantile_name(value), justify="right")
    for name, values in statistics.quantiles.items():
        table.add_row(name, *map(measure, values))
    return table


def _dropped(statistics: SplitStatistics) -> Table:
    table = Table("reason", title=f"{statistics.split}: dropped")
    table.add_column("number", justify="right")
    table.add_column("for example")
    for drop in statistics.drops:
        count = _part(drop.count, statistics.regions_read) if drop.is_region else f"{drop.count:,}"
        table.add_row(drop.reason.replace("_", " "), count, Text(_plain(drop.example)))
    return table


def _images(split: str, report: ImageReport) -> Table:
    how = "decoded" if report.decoded else "opened"
    title = f"{split}: images {how}: {report.checked:,}, unusable: {report.unusable:,}"
    table = Table("kind", title=title)
    table.add_column("images", justify="right")
    table.add_column("for example")
    for kind, count in report.counts.items():
        first = report.examples[kind][0]
        example = f"{first.path or first.image_id}: {first.detail}"
        table.add_row(kind.replace("_", " "), f"{count:,}", Text(_plain(example)))
    return table


def _part(count: int, whole: int) -> str:
    return f"{count:,} ({share(count, whole)})" if count else "0"


def _plain(text: str) -> str:
    """Short, and without signs that would steer the terminal."""
    shown = "".join(sign if sign.isprintable() else " " for sign in text)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}\u2026"
