"""Your own regions as a dataset that LAVIS can name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from lavis.common.registry import registry

from lavis_dynrefer.datasets import build_info
from lavis_dynrefer.datasets.prepared import RawDataset, read_manifest
from lavis_dynrefer.datasets.region_builder import RegionDatasetBuilder
from lavis_dynrefer.datasets.region_dataset import RegionDataset
from lavis_dynrefer.datasets.sources.collector import Stores
from lavis_dynrefer.datasets.sources.custom_json import read_custom
from lavis_dynrefer.datasets.sources.raw_files import DatasetError, Opener
from lavis_dynrefer.datasets.tables import RegionTable, captions_of
from lavis_dynrefer.paths import config_path
from lavis_dynrefer.structures import RegionRecord, RegionSet

Found = Mapping[str, RegionSet]


@registry.register_builder("custom_region")
class CustomBuilder(RegionDatasetBuilder):
    """A json in COCO's layout for every split, under any names; "train" is trained on."""

    dataset_name = "custom_region"
    info_type = build_info.CustomInfo
    DATASET_CONFIG_DICT: ClassVar[dict[str, str]] = {
        "default": config_path("datasets/custom_region.yaml")
    }

    def __init__(self, cfg: Any = None) -> None:
        super().__init__(cfg)
        self._fitting: dict[str, str] = {}  # split -> evaluator, once the data is read

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
        """As `evaluators` says, else what fits the annotations."""
        return self.info().evaluators.get(split) or self._fitting.get(split, self.default_evaluator)

    def sources(self, info: build_info.CustomInfo) -> dict[str, Path]:
        """The json of every split in use."""
        files = _named_files(info)
        wanted = files if info.splits is None else info.splits
        return {
            f"annotations.{split}": _place(info, files[split]) for split in wanted if split in files
        }

    def images(self, info: build_info.CustomInfo) -> Path:
        """The folder that `file_name` is relative to."""
        return _place(info, info.images.storage or "images")

    def convert(self, info: Any, splits: Sequence[str], stores: Stores, opener: Opener) -> Found:
        """Read the json of each split."""
        del opener
        sources = self.sources(info)
        return {
            split: read_custom(
                sources[f"annotations.{split}"],
                self.images(info),
                name=info.protocol or f"custom-{split}",
                split=split,
                stores=stores,
            )
            for split in splits
        }

    def raw(self, info: build_info.CustomInfo) -> RawDataset:
        """As any dataset; there must be something to prepare."""
        if not _named_files(info):
            raise DatasetError("annotations: name a json for each split, {train: train.json}")
        return super().raw(info)

    def read(self, info: build_info.CustomInfo, splits: Sequence[str]) -> dict[str, RegionSet]:
        """As any dataset; notes what each split can be graded by."""
        unknown = sorted(set(info.evaluators) - set(self.available_splits()))
        if unknown:
            raise DatasetError(f"evaluators: there is no split {unknown}")
        found = super().read(info, splits)
        self._fitting = {split: fitting_evaluator(part) for split, part in found.items()}
        return found

    def build(self) -> dict[str, RegionDataset]:
        """As any dataset; the tags that the annotations give must be in the tag list."""
        datasets = super().build()
        info = self.info()
        listed = self.tag_names(info, None) or []
        for dataset in datasets.values():
            given = tags_given(dataset.region_set.regions) if dataset.train else set()
            unlisted = sorted(given.difference(listed))
            if listed and unlisted:
                raise self._error(
                    f"tags: {len(unlisted)} tags of the annotations are not in {info.tags}, for "
                    f"example {unlisted[:5]}; add them to that file, or take them out"
                )
        return datasets


def fitting_evaluator(region_set: RegionSet) -> str:
    """Captions are graded first, then attributes, then categories."""
    if next(captions_of(region_set), None) is not None:
        return "dense_caption"
    if region_set.attributes:
        return "attributes"
    return "categories" if region_set.category_names else RegionDatasetBuilder.default_evaluator


def tags_given(regions: Sequence[RegionRecord]) -> set[str]:
    """Every tag that the annotations themselves name."""
    if not isinstance(regions, RegionTable):
        return {tag for region in regions for tag in region.tags}
    reader = pa.ipc.open_file(pa.memory_map(str(regions.path)))
    found: set[str] = set()
    for number in range(reader.num_record_batches):
        records = reader.get_batch(number).column("regions").flatten()
        found.update(records.field("tags").flatten().unique().to_pylist())
    return found


def _named_files(info: build_info.CustomInfo) -> dict[str, str]:
    """Split -> its json; a split set to null is not there."""
    files = {str(split): path for split, path in info.annotations.items() if path is not None}
    for split, path in files.items():
        if not isinstance(path, str):
            raise DatasetError(f"annotations.{split}: expected the path of a json, got {path!r}")
    return files


def _place(info: build_info.CustomInfo, path: str) -> Path:
    """A path of the config: absolute, below `root`, or without a root from the current folder."""
    return Path(info.root or ".").expanduser() / Path(path).expanduser()
