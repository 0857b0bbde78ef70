"""One dataset: settings, raw files, splits, tables. Does not import LAVIS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from filelock import FileLock
from omegaconf import OmegaConf

from lavis_dynrefer.config import ControlSettings
from lavis_dynrefer.datasets.build_info import RegionInfo
from lavis_dynrefer.datasets.evaluator_choice import grading_problem
from lavis_dynrefer.datasets.prepared import RawDataset, open_current, open_prepared, prepare
from lavis_dynrefer.datasets.region_sets import captions_of
from lavis_dynrefer.datasets.sources.image_turns import TURNED, turned_images
from lavis_dynrefer.datasets.sources.raw_files import DatasetError, Opener, RawFile
from lavis_dynrefer.datasets.sources.region_collector import LONG_CAPTION, OVER_LONG, TRAIN, Stores
from lavis_dynrefer.datasets.tables import RegionTable
from lavis_dynrefer.paths import config_path, expand_home, replace_file, resource_path
from lavis_dynrefer.settings import from_mapping
from lavis_dynrefer.structures import RegionSet
from lavis_dynrefer.vocab import build_vocabulary, load_names
from lavis_dynrefer.vocab.pos import PosTagger

KEYS = ("data_type", "type", "vis_processor", "text_processor", "build_info")
CONTROL_KEYS = tuple(field.name for field in fields(ControlSettings))


class RegionSource:
    """What all datasets share; a subclass defines the files and how to read them.

    `info` is always an `info_type`.

    Attributes:
        dataset_name: registered name, which is also the key in a run's `datasets:`.
        info_type: settings class of `build_info`.
        files: annotation files; each is a setting of `build_info` too.
        image_folder: folder that all images lie below.
        root_variable: environment variable that the default yaml takes `root` from.
        default_evaluator: grades the answers unless the config names another.
        DATASET_CONFIG_DICT: type -> default yaml.

    Args:
        config: the dataset's section of a run, merged with its default yaml.
    """

    dataset_name: ClassVar[str] = ""
    info_type: ClassVar[type[RegionInfo]] = RegionInfo
    files: ClassVar[Sequence[RawFile]] = ()
    image_folder: ClassVar[RawFile | None] = None
    root_variable: ClassVar[str] = ""
    default_evaluator: ClassVar[str] = "dense_caption"
    DATASET_CONFIG_DICT: ClassVar[Mapping[str, str]]

    def __init__(self, config: Any) -> None:
        self.config = config

    def available_splits(self) -> tuple[str, ...]:
        """Splits the raw files have."""
        return ("val",)

    def evaluator_of(self, split: str) -> str:
        """The evaluator of a split unless the config names another."""
        del split
        return self.default_evaluator

    def choose_evaluators(self, region_sets: Mapping[str, RegionSet]) -> None:
        """Let `evaluator_of` follow from the data; most datasets have their own evaluator."""

    def warnings_about(self, region_sets: Mapping[str, RegionSet]) -> list[str]:
        """What may spoil a run: splits that cannot be graded, turned images, long captions."""
        self.choose_evaluators(region_sets)
        own = self.info().evaluator
        found = []
        for split, region_set in region_sets.items():
            found += noted_warnings(region_set)
            problem = grading_problem(region_set, own or self.evaluator_of(split))
            if split != TRAIN and problem is not None:
                found.append(problem)
        return found

    def sources(self, info: Any) -> dict[str, Path]:
        """Setting -> raw file of annotations."""
        return self._paths(info, self.files)

    def images(self, info: Any) -> Path:
        """Folder that all images lie below."""
        if self.image_folder is None:
            raise NotImplementedError
        return self._path(info, self.image_folder, info.images.storage)

    def convert(
        self, info: Any, splits: Sequence[str], stores: Stores, opener: Opener
    ) -> Mapping[str, RegionSet]:
        """Read the raw files into the stores."""
        raise NotImplementedError

    def make_raw_files(self, info: Any) -> None:
        """Generate the raw files, if the dataset is generated."""

    def raw(self, info: Any) -> RawDataset:
        """The input of `prepare`."""
        return RawDataset(
            dataset=self.dataset_name,
            type=str(self.config.type),
            protocol=info.protocol,
            sources=self.sources(info),
            images=self.images(info),
            read=partial(self.convert, info),
        )

    def read(self, info: Any, splits: Sequence[str]) -> dict[str, RegionSet]:
        """The splits, from tables; these are made from the raw files on first use."""
        if info.prepared is None:
            return prepare(self.raw(info), splits)
        storage = info.images.storage
        # A name below a root that is not set is the default; the manifest knows the folder.
        is_given = storage and (info.root or expand_home(storage).is_absolute())
        return open_prepared(info.prepared, splits, self.images(info) if is_given else None)

    def read_prepared(self) -> dict[str, RegionSet]:
        """The splits selected by the config that are prepared already; nothing is converted.

        Raises:
            DatasetError: an unknown key or split, or raw files whose place is not known.
        """
        info = self.info()
        splits = self.splits(info)
        if info.prepared is not None:
            return self.read(info, splits)
        found = open_current(self.raw(info), splits)
        self.choose_evaluators(found)
        return found

    @classmethod
    def default_config_path(cls, type: str = "default") -> str:
        """Yaml of a type.

        Raises:
            DatasetError: there is no such type.
        """
        known = cls.DATASET_CONFIG_DICT
        if type not in known:
            raise DatasetError(
                f"datasets.{cls.dataset_name}.type: {type!r} is unknown; choose from {list(known)}"
            )
        return known[type]

    def splits(self, info: RegionInfo) -> tuple[str, ...]:
        """The splits selected by `info`.

        Raises:
            DatasetError: the dataset has no such split.
        """
        available = self.available_splits()
        unknown = sorted(set(info.splits or ()) - set(available))
        if unknown:
            raise self._error(f"splits: unknown {unknown}; there are {available}")
        return info.splits or available

    def read_splits(self) -> dict[str, RegionSet]:
        """The splits selected by the config, complete.

        Raises:
            DatasetError: an unknown key or split, a missing file, a split without usable regions.
        """
        info = self.info()
        splits = self.splits(info)
        try:
            return self.read(info, splits)
        except DatasetError as error:
            raise self._error(str(error)) from error

    def info(self) -> Any:
        """`build_info` as an `info_type`.

        Raises:
            DatasetError: an unknown key or an invalid value.
        """
        unknown = sorted(set(self.config) - set(KEYS))
        if unknown:
            raise DatasetError(
                f"datasets.{self.dataset_name}: unknown {unknown}; expected some of {list(KEYS)}"
            )
        own = OmegaConf.to_container(self.config.build_info, resolve=True)
        values = {**self.model_controls(), **own}
        where = f"datasets.{self.dataset_name}.build_info"
        try:
            return from_mapping(self.info_type, values, where=where)
        except ValueError as error:
            raise DatasetError(str(error)) from error

    def model_controls(self) -> dict[str, Any]:
        """The settings of control words that the model of the run names; none without a run."""
        run = OmegaConf.create(
            {"captioning": "${oc.select:model.captioning,null}"}, parent=self.config
        )
        found = run.captioning or {}
        return {key: found[key] for key in CONTROL_KEYS if key in found}

    def tag_names(self, info: RegionInfo, train: RegionSet | None) -> list[str] | None:
        """The tag list: the file `tags` names, or with "auto" frequent words of the captions."""
        if info.tags is None:
            return None
        if info.tags != "auto":
            key = f"datasets.{self.dataset_name}.build_info.tags"
            return load_names(resource_path(info.tags, key=key))
        return None if train is None else frequent_tags(train)

    def _paths(self, info: RegionInfo, files: Sequence[RawFile]) -> dict[str, Path]:
        return {file.setting: self._path(info, file, getattr(info, file.setting)) for file in files}

    def _path(self, info: RegionInfo, file: RawFile, value: str | None) -> Path:
        """The configured path of a raw file, or its usual name below `root`."""
        path = expand_home(value or file.name)
        if path.is_absolute():
            return path
        if info.root is None:
            variable = self.root_variable
            raise file.error(f"root is not set: name the folder of {path}, or export {variable}")
        return expand_home(info.root) / path

    def _error(self, problem: str) -> DatasetError:
        where = f"datasets.{self.dataset_name}.build_info"
        return DatasetError(problem if problem.startswith(where) else f"{where}: {problem}")


def noted_warnings(region_set: RegionSet) -> list[str]:
    """What the reader of a split noted that may spoil a run in silence."""
    where, found = f"split '{region_set.split}'", []
    turned, long = (region_set.noted.get(what, 0) for what in (TURNED, OVER_LONG))
    if turned:
        found.append(f"{where}: {turned_images(turned)}")
    if long and region_set.split == TRAIN:
        found.append(
            f"{where}: {long:,} captions have more than {LONG_CAPTION} words; models are trained "
            "on the first model.captioning.max_text_length tokens, by default "
            f"{LONG_CAPTION + 1}; `dynrefer validate` counts with the tokenizer of a run"
        )
    return found


def default_yaml(name: str, *types: str) -> dict[str, str]:
    """A `DATASET_CONFIG_DICT`: type "default" and further types share one yaml of the package."""
    return dict.fromkeys(("default", *types), config_path(f"datasets/{name}.yaml"))


def frequent_tags(train: RegionSet) -> list[str]:
    """A tag list from the training captions; saved next to the tables of a prepared split.

    Of the processes that ask for it at once, one makes it and the others read it.
    """
    regions = train.regions
    if not isinstance(regions, RegionTable):
        return tag_list_of(train, size=1000, min_count=1)
    kept = regions.path.with_name("frequent_words.txt")
    if not kept.exists():
        with FileLock(kept.with_name(f".{kept.name}.lock")):
            if not kept.exists():
                names = tag_list_of(train, size=1000, min_count=1)
                unfinished = kept.with_name(f"{kept.name}.unfinished")
                unfinished.write_text("\n".join(names), encoding="utf-8")
                replace_file(unfinished, kept)
    return load_names(kept)


def tag_list_of(
    train: RegionSet, *, size: int, min_count: int, pos: PosTagger | None = None
) -> list[str]:
    """The most frequent words of the captions; see `vocab.build_vocabulary`."""
    stop_words = load_names(resource_path("vocab/data/stop_words.txt", key="stop_words"))
    return build_vocabulary(captions_of(train), stop_words, size=size, min_count=min_count, pos=pos)
