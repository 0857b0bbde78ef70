"""Your own regions as a dataset."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lavis_dynrefer.datasets.build_info import CustomInfo
from lavis_dynrefer.datasets.evaluator_choice import fitting_evaluator
from lavis_dynrefer.datasets.prepared import RawDataset, read_manifest
from lavis_dynrefer.datasets.region_source import RegionSource, default_yaml
from lavis_dynrefer.datasets.sources.custom_json import read_custom
from lavis_dynrefer.datasets.sources.raw_files import DatasetError, Opener
from lavis_dynrefer.datasets.sources.region_collector import TRAIN, Stores
from lavis_dynrefer.metrics import EVALUATORS
from lavis_dynrefer.paths import expand_home
from lavis_dynrefer.structures import RegionSet

logger = logging.getLogger(__name__)


class Custom(RegionSource):
    """A json in COCO's layout for each split. Splits have any names; "train" is for training."""

    dataset_name = "custom_region"
    info_type = CustomInfo
    DATASET_CONFIG_DICT = default_yaml("custom_region")
    _fitting: Mapping[str, str] = MappingProxyType({})  # split -> evaluator, once the data is read

    def available_splits(self) -> tuple[str, ...]:
        """Those that `annotations` names; without any, those of the prepared folder."""
        if not self.config.get("build_info"):
            return ()
        info = self.info()
        named = tuple(_named_files(info))
        if named or info.prepared is None:
            return named
        return tuple(read_manifest(info.prepared)["splits"])

    def evaluator_of(self, split: str) -> str:
        """From `evaluators`, else the one that fits the annotations."""
        return self.info().evaluators.get(split) or self._fitting.get(split, self.default_evaluator)

    def sources(self, info: CustomInfo) -> dict[str, Path]:
        """The json of every split in use."""
        files = _named_files(info)
        wanted = files if info.splits is None else info.splits
        return {
            f"annotations.{split}": _place(info, files[split]) for split in wanted if split in files
        }

    def images(self, info: CustomInfo) -> Path:
        """The folder that `file_name` is relative to."""
        return _place(info, info.images.storage or "images")

    def convert(
        self, info: Any, splits: Sequence[str], stores: Stores, opener: Opener
    ) -> Mapping[str, RegionSet]:
        """Read the json of each split."""
        del opener
        sources = self.sources(info)
        return {
            split: read_custom(
                sources[f"annotations.{split}"],
                self.images(info),
                name=info.protocol or f"custom-{split}",
                split=split,
                units=info.box_units,
                stores=stores,
            )
            for split in splits
        }

    def raw(self, info: CustomInfo) -> RawDataset:
        """Needs at least one annotation file."""
        if not _named_files(info):
            raise DatasetError("annotations: name a json for each split, {train: train.json}")
        options = {} if info.box_units is None else {"box_units": info.box_units}
        return replace(super().raw(info), options=options)

    def read(self, info: CustomInfo, splits: Sequence[str]) -> dict[str, RegionSet]:
        """Also finds the evaluator that fits each split."""
        unknown = sorted(set(info.evaluators) - set(self.available_splits()))
        if unknown:
            raise DatasetError(f"evaluators: there is no split {unknown}")
        found = super().read(info, splits)
        self.choose_evaluators(found)
        return found

    def choose_evaluators(self, region_sets: Mapping[str, RegionSet]) -> None:
        """Choose the evaluator that fits each split; logged once where the config names none."""
        info, known = self.info(), self._fitting
        choices = {split: fitting_evaluator(part) for split, part in region_sets.items()}
        self._fitting = {split: choice.evaluator for split, choice in choices.items()}
        for split, choice in choices.items():
            is_named = info.evaluator is not None or split in info.evaluators
            is_news = choice.can_grade and known.get(split) != choice.evaluator
            if split != TRAIN and not is_named and is_news:
                logger.info(
                    "split '%s' is graded by evaluator %s: %s; to choose another, set "
                    "`evaluators: {%s: NAME}`, one of %s",
                    *(split, choice.evaluator, choice.reason, split, ", ".join(EVALUATORS)),
                )


def _named_files(info: CustomInfo) -> dict[str, str]:
    """Split -> its json; a split set to null does not exist."""
    return {split: path for split, path in info.annotations.items() if path is not None}


def _place(info: CustomInfo, path: str) -> Path:
    """A path of the config: absolute, below `root`, or without a root from the current folder."""
    return expand_home(info.root or ".") / expand_home(path)
