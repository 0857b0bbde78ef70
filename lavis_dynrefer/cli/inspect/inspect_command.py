"""Show what a dataset holds: counts, sizes, captions, and images with their regions.

dynrefer inspect vg --root /data/vg --split val --check-images decode
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lavis_dynrefer.cli.dataset_arguments import add_dataset_arguments, read_splits, source_from
from lavis_dynrefer.cli.model_arguments import at_least
from lavis_dynrefer.cores import available_cores
from lavis_dynrefer.datasets.sources.image_turns import TURNED

if TYPE_CHECKING:
    from lavis_dynrefer.datasets.region_source import RegionSource
    from lavis_dynrefer.structures import RegionSet


_LOOKED_AT = 200  # images of a split whose headers are read without --check-images


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer inspect`."""
    add_dataset_arguments(parser)
    parser.add_argument(
        "--output", type=Path, help="folder of inspect.html and regions.png; else inspect-DATASET"
    )
    parser.add_argument(
        "--samples", type=at_least(0), default=12, help="images shown of each split"
    )
    parser.add_argument(
        "--seed", type=at_least(0), default=0, help="seed for choosing these images"
    )
    parser.add_argument(
        "--check-images",
        choices=("header", "decode"),
        help="open all image files, or decode them, which alone finds damaged ones",
    )
    parser.add_argument(
        "--processes",
        type=at_least(1),
        default=available_cores(),
        help="worker processes for --check-images",
    )


def run(arguments: argparse.Namespace) -> int:
    """Inspect; returns the exit code."""
    from rich.console import Console

    from lavis_dynrefer.cli.inspect import inspect_report  # imports torch: slow
    from lavis_dynrefer.datasets.region_sets import first_regions

    console = Console(markup=False, emoji=False)  # names in the data may look like either
    source = source_from(arguments)
    info = source.info()
    with console.status(f"reading {source.dataset_name}"):
        region_sets = read_splits(source)
    views = [
        inspect_report.view_split(
            first_regions(region_set, info.max_images, info.max_regions), arguments, console
        )
        for region_set in region_sets.values()
    ]
    inspect_report.print_numbers(views, console)
    folder = _image_folder(source, region_sets)
    warnings = []
    if not folder.is_dir():
        warnings.append(f"There is no folder {folder}: only annotation statistics are reported.")
    if not arguments.check_images:
        warnings += [
            text for region_set in region_sets.values() for text in _turned(region_set, folder)
        ]
    warnings += [f"{problem}." for problem in source.warnings_about(region_sets)]
    for text in warnings:
        console.print(f"warning: {text}", soft_wrap=True, highlight=False)
    kind = str(source.config.type).replace("default", "")
    facts = [*_sources(source), ("images", str(folder)), ("seed", str(arguments.seed))]
    files = inspect_report.write_files(
        arguments.output or Path(f"inspect-{source.dataset_name}"),
        views,
        title=f"{source.dataset_name} {kind}".strip(),
        facts=facts,
        warnings=warnings,
    )
    for path in files:
        console.print(str(path), soft_wrap=True, highlight=False)
    return 0


def _turned(region_set: RegionSet, folder: Path) -> Iterator[str]:
    """A warning if some images have an EXIF rotation that the reader did not look for."""
    from lavis_dynrefer.cli.inspect.image_checks import check_image

    if TURNED in region_set.noted or not folder.is_dir():
        return
    images = list(region_set.images.values())
    looked_at = images[:: max(-(-len(images) // _LOOKED_AT), 1)]
    found = [check_image(image, decode=False) for image in looked_at]
    turned = [finding for finding in found if TURNED in finding.kinds]
    if turned:
        first = turned[0]
        yield (
            f"split '{region_set.split}': {len(turned)} of {len(looked_at)} images looked at have "
            f"an EXIF rotation, which is not applied, for example {first.path}: {first.detail}."
        )


def _image_folder(source: RegionSource, region_sets: Mapping[str, RegionSet]) -> Path:
    images = next(iter(region_sets.values())).images
    # A prepared dataset knows where its images were.
    folder = getattr(images, "folder", None)
    return source.images(source.info()).absolute() if folder is None else Path(folder)


def _sources(source: RegionSource) -> list[tuple[str, str]]:
    """Name and path of what was read."""
    info = source.info()
    if info.prepared:
        return [("prepared", str(Path(info.prepared).absolute()))]
    sources = source.sources(info).items()
    return [(setting.replace("_", " "), str(path.absolute())) for setting, path in sources]
