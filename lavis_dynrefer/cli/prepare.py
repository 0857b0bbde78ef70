"""Convert the raw files of a dataset into tables, or make a tag list of its captions.

dynrefer prepare vg --root /data/vg
dynrefer prepare vg --root /data/vg --tags tags.txt --tag-method scene_graph
dynrefer prepare tags vg --root /data/vg --output tags.txt
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import Progress
from rich.table import Table

from lavis_dynrefer.cli.dataset_arguments import add_dataset_arguments, source_from
from lavis_dynrefer.cli.model_arguments import at_least
from lavis_dynrefer.cores import available_cores
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.json_stream import replace_bytes
from lavis_dynrefer.paths import expand_home
from lavis_dynrefer.vocab import TAG_METHODS, build_pos_tagger

if TYPE_CHECKING:
    from lavis_dynrefer.datasets.region_source import RegionSource
    from lavis_dynrefer.structures import RegionSet

TAGS = "tags"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer prepare`."""
    add_dataset_arguments(parser, nargs="+")
    parser.add_argument(
        "--output",
        type=Path,
        help=f"folder to prepare, else one in the cache; after `prepare {TAGS}` the list to write",
    )
    parser.add_argument("--tags", help="tag list, or auto: find the tags of training captions")
    parser.add_argument("--tag-method", choices=TAG_METHODS, default=TAG_METHODS[0])
    parser.add_argument(
        "--processes",
        type=at_least(1),
        default=available_cores(),
        help="worker processes for tagging",
    )
    parser.add_argument(
        "--size", type=at_least(1), default=1000, help=f"`prepare {TAGS}`: maximum number of tags"
    )
    parser.add_argument(
        "--min-count",
        type=at_least(1),
        default=3,
        help=f"`prepare {TAGS}`: how often each tag must occur at least",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prepare; returns the exit code."""
    names = arguments.dataset
    wants_list = len(names) == 2 and names[0] == TAGS
    if len(names) != 1 and not wants_list:
        raise InputError(f"expected one dataset, or {TAGS} and a dataset; got {' '.join(names)}")
    arguments.dataset = names[-1]
    if wants_list and (arguments.output is None or not arguments.output.parent.is_dir()):
        raise InputError("--output: expected the name of the tag list, in an existing folder")
    source = source_from(arguments)
    console = Console(markup=False, emoji=False)  # paths and names may look like either
    with _log_to(console), Progress(console=console) as progress:
        folder, region_sets = _convert(None if wants_list else arguments.output, source, progress)
        if wants_list:
            _write_tag_list(arguments, region_sets, console)
            return 0
        if arguments.tags:
            _prepare_tags(arguments, source, region_sets, console, progress)
        problems = source.warnings_about(region_sets)
    _print_manifest(folder, console)
    for problem in problems:
        console.print(f"warning: {problem}", soft_wrap=True, highlight=False, markup=False)
    return 0


def _convert(
    output: Path | None, source: RegionSource, progress: Progress
) -> tuple[Path, dict[str, RegionSet]]:
    """The prepared folder and its splits, converted if they are not there."""
    from lavis_dynrefer.datasets.prepared import prepare

    info = source.info()
    if info.prepared is not None:
        raise InputError("prepare reads the raw files; leave out --set prepared=...")
    source.make_raw_files(info)
    raw = source.raw(info)
    folder = expand_home(output or raw.default_folder()).absolute()

    def opener(path: Path) -> BinaryIO:
        return progress.open(path, "rb", description=f"reading {path.name}")

    return folder, prepare(raw, source.splits(info), folder, opener)


def _prepare_tags(
    arguments: argparse.Namespace,
    source: RegionSource,
    region_sets: Mapping[str, RegionSet],
    console: Console,
    progress: Progress,
) -> None:
    from lavis_dynrefer.datasets.prepared_tags import prepare_tags, tags_path
    from lavis_dynrefer.datasets.sources.region_collector import TRAIN

    source.config.build_info.tags = arguments.tags
    names = source.tag_names(source.info(), region_sets.get(TRAIN))
    if TRAIN not in region_sets or not names:
        raise InputError("--tags: these splits have no training captions")
    regions, method = region_sets[TRAIN].regions, arguments.tag_method
    bar = progress.add_task(f"tags by {method}", total=1)
    prepare_tags(
        regions,
        names,
        method,
        processes=arguments.processes,
        progress=lambda done, total: progress.update(bar, completed=done, total=total),
    )
    progress.remove_task(bar)
    console.print(f"tags: {tags_path(regions, names, method)}", soft_wrap=True)


def _write_tag_list(
    arguments: argparse.Namespace, region_sets: Mapping[str, RegionSet], console: Console
) -> None:
    from lavis_dynrefer.datasets.region_source import tag_list_of
    from lavis_dynrefer.datasets.sources.region_collector import TRAIN

    if TRAIN not in region_sets:
        raise InputError(f"tags come from the captions of {TRAIN}; include it in --split")
    names = tag_list_of(
        region_sets[TRAIN],
        size=arguments.size,
        min_count=arguments.min_count,
        pos=build_pos_tagger("textblob"),  # verbs are no tags
    )
    replace_bytes(arguments.output, ("\n".join(names) + "\n").encode())
    console.print(f"{len(names)} tags, most frequent first: {arguments.output}", soft_wrap=True)


def _print_manifest(folder: Path, console: Console) -> None:
    from lavis_dynrefer.datasets.prepared import MANIFEST, read_manifest

    heads = ("split", "images", "read", "kept", "dropped, by reason", "kept, but noted")
    table = Table(*heads, title="regions")
    for name, split in read_manifest(folder)["splits"].items():
        numbers = (f"{split[key]:,}" for key in ("images", "regions_read", "regions_kept"))
        table.add_row(name, *numbers, *(_listed(split, key) for key in ("dropped", "noted")))
    console.print(table)
    console.print(f"manifest: {folder / MANIFEST}", soft_wrap=True)


def _listed(split: Mapping[str, Any], key: str) -> str:
    counts = split.get(key, {})
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items()) or "none"


@contextmanager
def _log_to(console: Console) -> Iterator[None]:
    """Show log messages of the readers above the progress bar."""
    package = logging.getLogger("lavis_dynrefer")
    handler, level = RichHandler(console=console, show_path=False, show_time=False), package.level
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(level)
