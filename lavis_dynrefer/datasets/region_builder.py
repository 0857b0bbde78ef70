"""What all LAVIS builders share: strict settings, splits and their names, tags, trial sizes."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from lavis.datasets.builders.base_dataset_builder import BaseDatasetBuilder
from omegaconf import OmegaConf

from lavis_dynrefer.config import from_mapping
from lavis_dynrefer.datasets.build_info import RegionInfo
from lavis_dynrefer.datasets.prepared import RawDataset, open_prepared, prepare
from lavis_dynrefer.datasets.prepared_tags import prepare_tags, tags_path
from lavis_dynrefer.datasets.region_dataset import RegionDataset
from lavis_dynrefer.datasets.sources.collector import Stores
from lavis_dynrefer.datasets.sources.raw_files import DatasetError, Opener, RawFile
from lavis_dynrefer.datasets.tables import RegionTable, captions_of, rows_by_image
from lavis_dynrefer.paths import resource_path
from lavis_dynrefer.structures import RegionSet
from lavis_dynrefer.vocab import (
    TAG_METHODS,
    CaptionTagger,
    build_tagger,
    build_vocabulary,
    load_names,
)
from lavis_dynrefer.vocab.pos import PosTagger

logger = logging.getLogger(__name__)
TRAIN = "train"
KEYS = ("data_type", "type", "vis_processor", "text_processor", "build_info")


class RegionDatasetBuilder(BaseDatasetBuilder):
    """What the builders share; a subclass says which files it reads.

    Attributes:
        dataset_name: registered name, which is also the key in a run's `datasets:`.
        info_type: dataclass of `build_info`.
        root_variable: environment variable that the default yaml takes `root` from.
        default_evaluator: what grades the answers unless the config says otherwise.
    """

    dataset_name = ""
    info_type: type[RegionInfo] = RegionInfo
    root_variable = ""
    default_evaluator = "dense_caption"
    DATASET_CONFIG_DICT: ClassVar[dict[str, str]] = {}

    def available_splits(self) -> tuple[str, ...]:
        """Splits the raw files have."""
        return ("val",)

    def sources(self, info: Any) -> dict[str, Path]:
        """Setting -> raw file of annotations; `info` is an `info_type`."""
        raise NotImplementedError

    def images(self, info: Any) -> Path:
        """Folder that all images lie below."""
        raise NotImplementedError

    def convert(
        self, info: Any, splits: Sequence[str], stores: Stores, opener: Opener
    ) -> Mapping[str, RegionSet]:
        """Read the raw files into the stores."""
        raise NotImplementedError

    def raw(self, info: Any) -> RawDataset:
        """What there is to prepare; `info` is an `info_type`."""
        return RawDataset(
            dataset=self.dataset_name,
            type=str(self.config.type),
            protocol=info.protocol,
            sources=self.sources(info),
            images=self.images(info),
            read=partial(self.convert, info),
        )

    def make_raw_files(self, info: Any) -> None:
        """Make the raw files, for a dataset that nobody hands out."""

    def read(self, info: Any, splits: Sequence[str]) -> dict[str, RegionSet]:
        """The splits, from tables that are made of the raw files on first use."""
        if info.prepared is not None:
            storage = info.images.storage
            # A name below a root that nobody gave is the default; the manifest knows the folder.
            is_given = storage and (info.root or Path(storage).expanduser().is_absolute())
            images = self.images(info) if is_given else None
            return open_prepared(info.prepared, splits, images)
        return prepare(self.raw(info), splits)

    def evaluator_of(self, split: str) -> str:
        """What grades a split unless the config says otherwise."""
        del split
        return self.default_evaluator

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

    def build(self) -> dict[str, RegionDataset]:
        """Read the raw files and wrap every split.

        Returns:
            Name of the split in the run -> dataset. The one named "train" serves single regions.

        Raises:
            DatasetError: an unknown key or split, a missing file, a split without usable regions.
        """
        self.build_processors()
        info = self.info()
        splits = self.splits(info)
        region_sets = {
            split: first_regions(found, info.max_images, info.max_regions)
            for split, found in self.read_splits().items()
        }
        names = {split: str(info.split_names.get(split, split)) for split in splits}
        if len(set(names.values())) < len(names):
            raise self._error(f"split_names: two splits share a name: {names}")
        tags = self.tag_names(info, region_sets.get(TRAIN))
        return {
            names[split]: self._dataset(info, split, names[split], region_sets[split], tags)
            for split in splits
        }

    def _dataset(
        self,
        info: RegionInfo,
        split: str,
        name: str,
        region_set: RegionSet,
        tags: Sequence[str] | None,
    ) -> RegionDataset:
        mode = "train" if name == TRAIN else "eval"
        tagger = None
        if name == TRAIN and tags:
            region_set, tagger = self._tagged(info, tags, region_set)
        elif name == TRAIN:
            logger.warning("%s: regions have no tags; set build_info.tags", self.dataset_name)
        return RegionDataset(
            region_set,
            self.vis_processors[mode],
            self.text_processors[mode],
            train=name == TRAIN,
            evaluator=info.evaluator or self.evaluator_of(split),
            tagger=tagger,
            on_error=info.on_error,
            regions_per_image=info.regions_per_image,
        )

    def splits(self, info: RegionInfo) -> tuple[str, ...]:
        """The splits that `info` asks for.

        Raises:
            DatasetError: the dataset has no such split.
        """
        available = self.available_splits()
        unknown = sorted(set(info.splits or ()) - set(available))
        if unknown:
            raise self._error(f"splits: unknown {unknown}; there are {available}")
        return info.splits or available

    def read_splits(self) -> dict[str, RegionSet]:
        """The splits that the config asks for, whole.

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
            DatasetError: an unknown key or a value of the wrong kind.
        """
        unknown = sorted(set(self.config) - set(KEYS))
        if unknown:
            raise DatasetError(
                f"datasets.{self.dataset_name}: unknown {unknown}; expected some of {list(KEYS)}"
            )
        values = OmegaConf.to_container(self.config.build_info, resolve=True)
        where = f"datasets.{self.dataset_name}.build_info"
        try:
            return from_mapping(self.info_type, values, where=where)
        except ValueError as error:
            raise DatasetError(str(error)) from error

    def tag_names(self, info: RegionInfo, train: RegionSet | None) -> list[str] | None:
        """The tag list: the file `tags` names, or with "auto" frequent words of the captions."""
        if info.tags is None:
            return None
        if info.tags != "auto":
            key = f"datasets.{self.dataset_name}.build_info.tags"
            return load_names(resource_path(info.tags, key=key))
        return None if train is None else frequent_words(train)

    def _tagged(
        self, info: RegionInfo, names: Sequence[str], region_set: RegionSet
    ) -> tuple[RegionSet, CaptionTagger | None]:
        """The regions with their tags, or with what finds them when a region is asked for."""
        regions, method = region_set.regions, info.tag_method
        try:
            if isinstance(regions, RegionTable) and (
                method != TAG_METHODS[0] or tags_path(regions, names, method).exists()
            ):
                processes = os.cpu_count() or 1
                tagged = prepare_tags(regions, names, method, processes=processes)
                return replace(region_set, regions=tagged), None
            return region_set, build_tagger(method, names)
        except (ValueError, ImportError) as error:
            raise self._error(f"tag_method: {error}") from error

    def _paths(self, info: RegionInfo, sources: Sequence[RawFile]) -> dict[str, Path]:
        return {
            source.setting: self._path(info, source, getattr(info, source.setting))
            for source in sources
        }

    def _path(self, info: RegionInfo, source: RawFile, value: str | None) -> Path:
        """Where a raw file should be: as the config says, else by its usual name under `root`."""
        path = Path(value or source.name).expanduser()
        if path.is_absolute():
            return path
        if info.root is None:
            variable = self.root_variable
            raise source.error(f"root is not set: name the folder of {path}, or export {variable}")
        return Path(info.root).expanduser() / path

    def _error(self, problem: str) -> DatasetError:
        return DatasetError(f"datasets.{self.dataset_name}.build_info: {problem}")

    def _download_ann(self) -> None:
        """Prepare the dataset; LAVIS calls this in one process while the others wait."""
        try:
            self.make_raw_files(self.info())
        except (ValueError, FileExistsError) as error:
            raise self._error(str(error)) from error
        self.read_splits()

    def _download_vis(self) -> None:
        """Nothing to fetch."""


def frequent_words(train: RegionSet) -> list[str]:
    """A tag list made of the training captions; kept beside the tables of a prepared split."""
    regions = train.regions
    kept = (
        regions.path.with_name("frequent_words.txt") if isinstance(regions, RegionTable) else None
    )
    if kept is not None and kept.exists():
        return load_names(kept)
    names = tag_list_of(train, size=1000, min_count=1)
    if kept is not None:
        unfinished = kept.with_name(f"{kept.name}.{os.getpid()}")
        unfinished.write_text("\n".join(names), encoding="utf-8")
        os.replace(unfinished, kept)
    return names


def tag_list_of(
    train: RegionSet, *, size: int, min_count: int, pos: PosTagger | None = None
) -> list[str]:
    """The most frequent words of the captions; see `vocab.build_vocabulary`."""
    stop_words = load_names(resource_path("vocab/data/stop_words.txt", key="stop_words"))
    return build_vocabulary(captions_of(train), stop_words, size=size, min_count=min_count, pos=pos)


def first_regions(
    region_set: RegionSet, max_images: int | None, max_regions: int | None
) -> RegionSet:
    """The beginning of a split, for trials, under a name of its own; None is no limit.

    Images that are graded without a region to ask about, as a detector leaves some, count too.
    """
    if max_images is None and max_regions is None:
        return region_set
    kept = dict.fromkeys(islice(region_set.images, max_images))
    rows = [
        row
        for group in islice(rows_by_image(region_set), max_images)
        if region_set.regions[group[0]].image_id in kept
        for row in group
    ]
    regions = [region_set.regions[row] for row in sorted(rows)[:max_regions]]
    if max_regions is not None:
        kept = dict.fromkeys(region.image_id for region in regions)
    return replace(
        region_set,
        name=f"{region_set.name}-trial",
        regions=regions,
        images={image_id: region_set.images[image_id] for image_id in kept},
        rejected=[item for item in region_set.rejected if item.image_id in kept],
        truth_regions=[item for item in region_set.truth_regions if item.image_id in kept],
    )
