"""The arguments that name a dataset on the command line, and what reads it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from lavis_dynrefer.errors import InputError, choice_problem
from lavis_dynrefer.paths import expand_home

if TYPE_CHECKING:
    from lavis_dynrefer.datasets.region_source import RegionSource
    from lavis_dynrefer.structures import RegionSet

# Short name -> registered name; others are looked up in LAVIS's registry.
DATASETS = {
    "vg": "vg_region",
    "coco": "coco_region",
    "refcocog": "refcocog_region",
    "ovad": "ovad",
    "custom": "custom_region",
    "synthetic": "synthetic_region",
}


def add_dataset_arguments(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    """Dataset, type, folders, splits and further settings; `nargs` is that of the dataset."""
    parser.add_argument(
        "dataset", nargs=nargs, help=f"{', '.join(DATASETS)}, or another registered name"
    )
    parser.add_argument("--type", help="type of the dataset, such as v1.0; default: its own")
    parser.add_argument(
        "--root", help="folder of the raw files; default: the environment variable of the dataset"
    )
    parser.add_argument("--images", help="folder of the images, here or below the root")
    parser.add_argument("--split", nargs="+", metavar="SPLIT", help="default: all splits")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="KEY=VALUE",
        help="another key of build_info in the dataset's yaml; may be repeated",
    )


def source_from(arguments: argparse.Namespace) -> RegionSource:
    """The source of the dataset: its default yaml, then what the arguments say.

    Raises:
        InputError: an unknown dataset, type, split or setting, or a setting without a value.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from lavis_dynrefer.datasets.region_source import RegionSource
    from lavis_dynrefer.training.known_names import dataset_class

    name = DATASETS.get(arguments.dataset, arguments.dataset)
    if dataset_class(name) is None:  # datasets of other packages have short names, too
        name = f"{name}_region"
    source_class = dataset_class(name)
    if source_class is None or not issubclass(source_class, RegionSource):
        raise InputError(choice_problem("dataset", arguments.dataset, DATASETS))
    default = OmegaConf.load(source_class.default_config_path(arguments.type or "default"))
    try:
        config = OmegaConf.merge(default, {"datasets": {name: _overrides(arguments)}})
    except (yaml.YAMLError, OmegaConfBaseException, TypeError, UnicodeError) as error:
        problem = " ".join(str(error).split())
        raise InputError(f"--set {' '.join(arguments.settings)}: {problem}") from error
    source: RegionSource = source_class(config.datasets[name])
    source.info()
    for split in arguments.split or ():
        problem = choice_problem("--split", split, source.available_splits())
        if problem:
            raise InputError(problem)
    return source


def read_splits(source: RegionSource) -> dict[str, RegionSet]:
    """The chosen splits, generated first if the dataset is synthetic.

    Raises:
        DatasetError: a raw file is missing or invalid.
    """
    source.make_raw_files(source.info())
    return source.read_splits()


def _overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    from omegaconf import OmegaConf

    for setting in arguments.settings:
        key, equals, _ = setting.partition("=")
        if not key or not equals:
            raise InputError(f"--set {setting}: expected KEY=VALUE")
    info = OmegaConf.from_dotlist(arguments.settings)
    if arguments.root is not None:
        info.root = arguments.root
    if arguments.images is not None:
        # On the command line it often means the current folder; in a yaml it never does.
        here = expand_home(arguments.images).absolute()
        info.images = {"storage": str(here) if here.is_dir() else arguments.images}
    if arguments.split:
        info.splits = arguments.split
    kind = {"type": arguments.type} if arguments.type else {}
    return {"build_info": info, **kind}
