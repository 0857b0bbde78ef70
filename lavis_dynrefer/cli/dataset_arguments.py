"""The arguments that name a dataset on the command line, and its builder from them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml
from lavis.common.registry import registry
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lavis_dynrefer.datasets.region_builder import RegionDatasetBuilder
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.structures import RegionSet
from lavis_dynrefer.training.run_keys import suggestion


def add_dataset_arguments(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    """Dataset, type, folders, splits and further settings; `nargs` is that of the dataset."""
    parser.add_argument("dataset", nargs=nargs, help=f"one of {', '.join(_names())}")
    parser.add_argument("--type", help="type of the dataset, such as v1.0; else its default")
    parser.add_argument("--root", help="folder of the raw files; else the dataset's own variable")
    parser.add_argument("--images", help="folder of the images, here or below the root")
    parser.add_argument("--split", nargs="+", metavar="SPLIT", help="else all there are")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="KEY=VALUE",
        help="another key of build_info in the dataset's yaml; may be repeated",
    )


def builder_from(arguments: argparse.Namespace) -> RegionDatasetBuilder:
    """The builder of the dataset: its default yaml, then what the arguments say.

    Raises:
        ValueError: an unknown dataset, type, split or setting, or a setting without a value.
    """
    asked, names = arguments.dataset, _names()
    name = names.get(asked, asked)
    if name not in names.values():
        raise InputError(f"no dataset {asked!r}; {suggestion(asked, names)}")
    builder_class = registry.get_builder_class(name)
    default = OmegaConf.load(builder_class.default_config_path(arguments.type or "default"))
    try:
        config = OmegaConf.merge(default, {"datasets": {name: _own_config(arguments)}})
    except (yaml.YAMLError, OmegaConfBaseException, TypeError) as error:
        problem = " ".join(str(error).split())
        raise InputError(f"--set {' '.join(arguments.settings)}: {problem}") from error
    builder: RegionDatasetBuilder = builder_class(config.datasets[name])
    builder.info()
    for split in arguments.split or ():
        if split not in builder.available_splits():
            raise InputError(f"--split {split}: {suggestion(split, builder.available_splits())}")
    return builder


def read_splits(builder: RegionDatasetBuilder) -> dict[str, RegionSet]:
    """The splits asked for, made first where the dataset makes them itself.

    Raises:
        DatasetError: a raw file is missing or of another kind.
    """
    builder.make_raw_files(builder.info())
    return builder.read_splits()


def _names() -> dict[str, str]:
    """Short name -> registered name of every dataset of ours, and of plugins made like them."""
    return {
        name.replace("_region", ""): name
        for name in sorted(registry.list_datasets())
        if issubclass(registry.get_builder_class(name), RegionDatasetBuilder)
    }


def _own_config(arguments: argparse.Namespace) -> dict[str, Any]:
    for setting in arguments.settings:
        key, equals, _ = setting.partition("=")
        if not key or not equals:
            raise InputError(f"--set {setting}: expected KEY=VALUE")
    info = OmegaConf.from_dotlist(arguments.settings)
    if arguments.root is not None:
        info.root = arguments.root
    if arguments.images is not None:
        # Typed at a prompt it is often meant from the current folder; in a yaml it never is.
        here = Path(arguments.images).expanduser().absolute()
        info.images = {"storage": str(here) if here.is_dir() else arguments.images}
    if arguments.split:
        info.splits = arguments.split
    own = {"build_info": info}
    return {**own, "type": arguments.type} if arguments.type else own
