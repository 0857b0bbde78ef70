"""Convert the raw files of a dataset into tables, or make a tag list of its captions.

dynrefer prepare vg --root /data/vg
dynrefer prepare vg --root /data/vg --tags tags.txt --tag-method scene_graph
dynrefer prepare tags vg --root /data/vg --output tags.txt
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from lavis_dynrefer.cli.dataset_arguments import add_dataset_arguments, builder_from
from lavis_dynrefer.datasets.prepared import MANIFEST, prepare, read_manifest
from lavis_dynrefer.datasets.prepared_tags import prepare_tags, tags_path
from lavis_dynrefer.datasets.region_builder import TRAIN, RegionDatasetBuilder, tag_list_of
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.structures import RegionSet
from lavis_dynrefer.vocab import TAG_METHODS, build_pos_tagger

TAGS = "tags"
_UNUSED_WITH_PREPARED = "prepare reads the raw files; leave out --set prepared=..."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer prepare`."""
    add_dataset_arguments(parser, nargs="+")
    parser.add_argument(
        "--output",
        type=Path,
        help=f"folder to prepare, else one in the cache; after `prepare {TAGS}` the list to write",
    )
    parser.add_argument("--tags", help="tag list, or auto: work out the tags of training captions")
    parser.add_argument("--tag-method", choices=TAG_METHODS, default=TAG_METHODS[0])
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="for the tags")
    parser.add_argument("--size", type=int, default=1000, help=f"`prepare {TAGS}`: most tags")
    parser.add_argument("--min-count", type=int, default=3, help="and how often each must occur")


def run(arguments: argparse.Namespace) -> int:
    """Prepare; returns the exit code."""
    console = Console()
    names = arguments.dataset
    wants_list = len(names) == 2 and names[0] == TAGS
    if len(names) != 1 and not wants_list:
        raise InputError(f"expected one dataset, or {TAGS} and a dataset; got {' '.join(names)}")
    arguments.dataset = names[-1]
    for option in ("processes", "size", "min_count"):
        if getattr(arguments, option) < 1:
            raise InputError(f"--{option.replace('_', '-')}: expected at least 1")
    if wants_list and (arguments.output is None or not arguments.output.parent.is_dir()):
        raise InputError("--output: expected the name of the tag list, in a folder there is")
    builder = builder_from(arguments)
    with _log_to(console), _progress(console) as progress:
        if wants_list:
            return _write_tag_list(arguments, builder, console, progress)
        return _prepare(arguments, builder, console, progress)


def _prepare(
    arguments: argparse.Namespace,
    builder: RegionDatasetBuilder,
    console: Console,
    progress: Progress,
) -> int:
    folder, found = _tables(arguments.output, builder, progress)
    if arguments.tags:
        builder.config.build_info.tags = arguments.tags
        names = builder.tag_names(builder.info(), found.get(TRAIN))
        if TRAIN not in found or not names:
            raise InputError("--tags: there are no training captions among these splits")
        bar = progress.add_task(f"tags by {arguments.tag_method}", total=1)
        regions = found[TRAIN].regions
        prepare_tags(
            regions,
            names,
            arguments.tag_method,
            processes=arguments.processes,
            progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )
        progress.remove_task(bar)
        console.print(f"tags: {tags_path(regions, names, arguments.tag_method)}", soft_wrap=True)
    manifest = read_manifest(folder)
    console.print(_table(manifest["splits"]))
    console.print(f"manifest: {folder / MANIFEST}", soft_wrap=True)
    return 0


def _write_tag_list(
    arguments: argparse.Namespace,
    builder: RegionDatasetBuilder,
    console: Console,
    progress: Progress,
) -> int:
    _, found = _tables(None, builder, progress)
    if TRAIN not in found:
        raise InputError(f"the tags are made of the captions of {TRAIN}; name it in --split")
    names = tag_list_of(
        found[TRAIN],
        size=arguments.size,
        min_count=arguments.min_count,
        pos=build_pos_tagger("textblob"),  # verbs are no tags
    )
    arguments.output.write_text("\n".join(names) + "\n", encoding="utf-8")
    console.print(f"{len(names)} tags, most frequent first: {arguments.output}", soft_wrap=True)
    return 0


def _tables(
    output: Path | None, builder: RegionDatasetBuilder, progress: Progress
) -> tuple[Path, dict[str, RegionSet]]:
    """The prepared folder and its splits, converted if need be."""
    info = builder.info()
    if info.prepared is not None:
        raise InputError(_UNUSED_WITH_PREPARED)
    builder.make_raw_files(info)
    raw = builder.raw(info)
    folder = (output or raw.default_folder()).expanduser().absolute()

    def opener(path: Path) -> BinaryIO:
        return progress.open(path, "rb", description=f"reading {path.name}")

    return folder, prepare(raw, builder.splits(info), folder, opener)


def _table(splits: Mapping[str, Any]) -> Table:
    heads = ("split", "images", "read", "kept", "dropped, by reason", "kept, but noted")
    table = Table(*heads, title="regions")
    for name, split in splits.items():
        dropped, noted = (_listed(split.get(key, {})) for key in ("dropped", "noted"))
        numbers = (split[key] for key in ("images", "regions_read", "regions_kept"))
        table.add_row(name, *(f"{number:,}" for number in numbers), dropped, noted)
    return table


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items()) or "none"


@contextmanager
def _log_to(console: Console) -> Iterator[None]:
    """Show what the readers log, above the progress bar."""
    package = logging.getLogger("lavis_dynrefer")
    handler, level = RichHandler(console=console, show_path=False, show_time=False), package.level
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(level)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
