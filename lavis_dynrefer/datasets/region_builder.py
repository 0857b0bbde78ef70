"""The LAVIS builder of any `RegionSource`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import lavis  # noqa: F401  first, for threads
from lavis.datasets.builders.base_dataset_builder import (
    BaseDatasetBuilder,
    load_dataset_config,
)
from omegaconf import DictConfig, OmegaConf

from lavis_dynrefer.config import MODELS
from lavis_dynrefer.cores import available_cores
from lavis_dynrefer.datasets.build_info import RegionInfo
from lavis_dynrefer.datasets.prepared_tags import prepare_tags, tags_path
from lavis_dynrefer.datasets.region_dataset import RegionDataset, RegionTags
from lavis_dynrefer.datasets.region_sets import first_regions, tags_of
from lavis_dynrefer.datasets.region_source import CONTROL_KEYS, RegionSource
from lavis_dynrefer.datasets.sources.raw_files import DatasetError
from lavis_dynrefer.datasets.sources.region_collector import TRAIN
from lavis_dynrefer.datasets.tables import RegionTable
from lavis_dynrefer.paths import config_path
from lavis_dynrefer.structures import RegionSet
from lavis_dynrefer.vocab import TAG_METHODS, build_tagger
from lavis_dynrefer.vocab.control_words import ControlSampler

logger = logging.getLogger(__name__)


class Splits(dict[str, RegionDataset]):
    """Datasets by the name of their split in the run, and `splits["val"]` by its own, too.

    Args:
        datasets: name in the run -> dataset.
        names: split -> its name in the run.
    """

    def __init__(self, datasets: Mapping[str, RegionDataset], names: Mapping[str, str]) -> None:
        super().__init__(datasets)
        self._names = dict(names)

    def __missing__(self, split: str) -> RegionDataset:
        name = self._names.get(split, split)
        if name != split and name in self:
            return self[name]
        raise KeyError(f"no split {split!r}; there are {list(self)}")


class RegionDatasetBuilder(RegionSource, BaseDatasetBuilder):
    """Builds the datasets of a run; a subclass defines the files and how to read them.

    Args:
        cfg: the dataset's section of a run, or the yaml file that holds it; None for its default
            yaml. A section may have some of the keys: the others are those of the default yamls of
            the dataset and, where the file has a section `model`, of the model.
    """

    def __init__(self, cfg: Any = None) -> None:
        if cfg is None or isinstance(cfg, str):
            cfg = load_dataset_config(cfg or self.default_config_path())
        BaseDatasetBuilder.__init__(self, self._complete(cfg))
        self._prepared: dict[str, RegionSet] | None = None  # read in this process, for `build`

    def _complete(self, section: DictConfig) -> DictConfig:
        """The section with the keys of the default yamls, below the sections that it belongs to."""
        root, name = section._get_root(), self.dataset_name
        if "datasets" not in root:
            root = OmegaConf.create({"datasets": {name: section}})
        if name not in root.datasets:  # LAVIS takes the first dataset of a file
            raise DatasetError(f"expected a section datasets.{name}, got {list(root.datasets)}")
        own = root.datasets[name] or {}
        defaults = [OmegaConf.load(self.default_config_path(own.get("type", "default")))]
        model = root.get("model") or {}
        family = MODELS.get(model.get("arch"))
        if family is not None:
            kind = model.get("model_type") or "default"
            if kind in family.yamls:
                defaults.append(OmegaConf.load(config_path(family.yamls[kind])))
        return OmegaConf.merge(*defaults, root).datasets[name]

    def build(self) -> dict[str, RegionDataset]:
        """Read the raw files and wrap every split.

        Returns:
            Name of the split in the run -> dataset. The one named "train" serves single regions.
            A split that `split_names` renames is found under its own name, too.

        Raises:
            DatasetError: an unknown key or split, a missing file, a split without usable regions.
        """
        self.build_processors()
        info = self.info()
        splits = self.splits(info)
        complete = self.read_splits() if self._prepared is None else self._prepared
        self._prepared = None
        region_sets = {
            split: first_regions(found, info.max_images, info.max_regions)
            for split, found in complete.items()
        }
        names = {split: info.split_names.get(split, split) for split in splits}
        if len(set(names.values())) < len(names):
            raise self._error(f"split_names: two splits share a name: {names}")
        tag_list = self.tag_names(info, region_sets.get(TRAIN)) or ()
        return Splits(
            {
                names[split]: self._dataset(info, split, names[split], region_sets[split], tag_list)
                for split in splits
            },
            names,
        )

    def _dataset(
        self,
        info: RegionInfo,
        split: str,
        name: str,
        region_set: RegionSet,
        tag_list: Sequence[str],
    ) -> RegionDataset:
        options: dict[str, Any] = {
            "train": name == TRAIN,
            "evaluator": info.evaluator or self.evaluator_of(split),
            "on_error": info.on_error,
        }
        if name != TRAIN:
            return RegionDataset(region_set, self.vis_processors["eval"], **options)
        return RegionDataset(
            region_set,
            self.vis_processors["train"],
            self.text_processors["train"] if self.config.get("text_processor") else None,
            tags=self._tags(info, tag_list, region_set),
            controls=self._controls(info),
            regions_per_image=info.regions_per_image,
            repeats=info.repeats,
            **options,
        )

    def _controls(self, info: RegionInfo) -> ControlSampler:
        origins = {
            **dict.fromkeys(CONTROL_KEYS, "the default"),
            **dict.fromkeys(self.model_controls(), "the model's"),
            **dict.fromkeys(self.config.build_info, "the dataset's"),
        }
        used = [f"{key} {getattr(info, key)}, {origins[key]}" for key in CONTROL_KEYS]
        logger.info("%s: %s", self.dataset_name, "; ".join(used))
        return ControlSampler.from_settings(info)

    def _tags(self, info: RegionInfo, tag_list: Sequence[str], region_set: RegionSet) -> RegionTags:
        """Tags found ahead of time, or a tagger that finds them when a region is loaded."""
        if not tag_list:
            logger.warning("%s: regions have no tags; set build_info.tags", self.dataset_name)
            return RegionTags()
        unlisted = sorted(tags_of(region_set).difference(tag_list))
        if unlisted:
            raise self._error(
                f"tags: {len(unlisted)} tags of the annotations are not in {info.tags}, for "
                f"example {unlisted[:5]}; add them to that file, or remove them"
            )
        regions, method = region_set.regions, info.tag_method
        try:
            if isinstance(regions, RegionTable) and (
                method != TAG_METHODS[0] or tags_path(regions, tag_list, method).exists()
            ):
                # All ranks come here: one works with all cores, and the others wait for it.
                table = prepare_tags(regions, tag_list, method, processes=available_cores())
                return RegionTags(tag_list, table=table)
            return RegionTags(tag_list, tagger=build_tagger(method, tag_list))
        except (ValueError, ImportError) as error:
            raise self._error(f"tag_method: {error}") from error

    def _download_ann(self) -> None:
        """Prepare the dataset; LAVIS calls this in one process while the others wait."""
        try:
            self.make_raw_files(self.info())
        except ValueError as error:
            raise self._error(str(error)) from error
        self._prepared = self.read_splits()

    def _download_vis(self) -> None:
        """Nothing to download."""
