"""The datasets LAVIS can name: one builder per source of regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from lavis.common.registry import registry

from lavis_dynrefer.datasets import build_info
from lavis_dynrefer.datasets.region_builder import TRAIN, RegionDatasetBuilder
from lavis_dynrefer.datasets.sources import coco_layout, grit, ovad, refcocog, visual_genome
from lavis_dynrefer.datasets.sources.collector import Stores, in_memory
from lavis_dynrefer.datasets.sources.raw_files import DatasetError, Opener
from lavis_dynrefer.paths import cache_dir, config_path
from lavis_dynrefer.structures import RegionSet
from lavis_dynrefer.synthetic.dataset import VERSION, read_truth, write_dataset
from lavis_dynrefer.synthetic.vocabulary import true_labels

Found = Mapping[str, RegionSet]


@registry.register_builder("vg_region")
class VisualGenomeBuilder(RegionDatasetBuilder):
    """Visual Genome: types v1.2, v1.0, vgcoco, and reg for GLaMM's one caption per image."""

    dataset_name = "vg_region"
    info_type = build_info.VisualGenomeInfo
    root_variable = "VG_ROOT"
    DATASET_CONFIG_DICT: ClassVar[dict[str, str]] = dict.fromkeys(
        ("default", *visual_genome.PROTOCOLS, "reg"), config_path("datasets/vg_region.yaml")
    )

    def available_splits(self) -> tuple[str, ...]:
        """Test only for type reg."""
        return ("test",) if self.config.type == "reg" else visual_genome.SPLITS

    def evaluator_of(self, split: str) -> str:
        """Referring expression generation for type reg."""
        return "reg" if self.config.type == "reg" else super().evaluator_of(split)

    def sources(self, info: build_info.VisualGenomeInfo) -> dict[str, Path]:
        """Region descriptions with what belongs to them, or the captions of type reg."""
        if self.config.type == "reg":
            if info.boxes:
                raise self._error("boxes: type reg asks about its own; use it with another type")
            return self._paths(info, [coco_layout.VG_REG_CAPTIONS])
        if info.boxes and info.max_regions is not None:
            raise self._error("max_regions would leave truth unasked; try boxes with max_images")
        return self._paths(
            info,
            [
                visual_genome.REGION_DESCRIPTIONS,
                visual_genome.IMAGE_DATA,
                visual_genome.SPLITS_FILE,
                *([grit.BOXES] if info.boxes else []),
            ],
        )

    def images(self, info: build_info.VisualGenomeInfo) -> Path:
        """`images` in the root, or the root itself where the two archives were unpacked there."""
        path = self._path(info, visual_genome.IMAGES, info.images.storage)
        unpacked = info.images.storage is None and (path.parent / "VG_100K").is_dir()
        return path.parent if unpacked and not path.is_dir() else path

    def convert(self, info: Any, splits: Sequence[str], stores: Stores, opener: Opener) -> Found:
        """Read region descriptions, or the captions of type reg."""
        sources, images = self.sources(info), self.images(info)
        if self.config.type == "reg":
            path, name = sources["annotations"], info.protocol or "vg-reg-5k"
            found = coco_layout.read_coco_captions(
                path, images, name=name, split="test", stores=stores
            )
            return {"test": found}
        detected = [split for split in splits if info.boxes and split != TRAIN]
        found = visual_genome.read_visual_genome(
            sources["region_descriptions"],
            sources["image_data"],
            sources["densecap_splits"],
            images,
            version="v1.2" if self.config.type == "default" else self.config.type,
            splits=splits,
            name=info.protocol,
            stores=lambda split: in_memory(split) if split in detected else stores(split),
            opener=opener,
        )
        for split in detected:
            truth = found[split]
            name = info.protocol or f"{truth.name.removesuffix('gt')}grit"
            found[split] = grit.read_grit(sources["boxes"], truth, name=name, stores=stores)
        return found


def _named_by_size(region_set: RegionSet, protocol: str | None) -> RegionSet:
    """Protocol id such as "ovad-14300": it tells the whole file from a part of it."""
    name = protocol or f"{region_set.name}-{len(region_set.truth())}"
    return replace(region_set, name=name)


@registry.register_builder("ovad")
class OvadBuilder(RegionDatasetBuilder):
    """OVAD attributes."""

    dataset_name = "ovad"
    info_type = build_info.AnnotationsInfo
    root_variable = "OVAD_ROOT"
    default_evaluator = "attributes"
    DATASET_CONFIG_DICT: ClassVar[dict[str, str]] = {"default": config_path("datasets/ovad.yaml")}

    def sources(self, info: build_info.AnnotationsInfo) -> dict[str, Path]:
        """ovad2000.json."""
        return self._paths(info, [ovad.ANNOTATIONS])

    def images(self, info: build_info.AnnotationsInfo) -> Path:
        """COCO's val2017."""
        return self._path(info, ovad.IMAGES, info.images.storage)

    def convert(self, info: Any, splits: Sequence[str], stores: Stores, opener: Opener) -> Found:
        """Read ovad2000.json."""
        del splits, opener
        path = self.sources(info)["annotations"]
        found = ovad.read_ovad(path, self.images(info), name="ovad", stores=stores)
        return {"val": _named_by_size(found, info.protocol)}


@registry.register_builder("coco_region")
class CocoBuilder(RegionDatasetBuilder):
    """COCO categories."""

    dataset_name = "coco_region"
    info_type = build_info.AnnotationsInfo
    root_variable = "COCO_ROOT"
    default_evaluator = "categories"
    DATASET_CONFIG_DICT: ClassVar[dict[str, str]] = {
        "default": config_path("datasets/coco_region.yaml")
    }

    def sources(self, info: build_info.AnnotationsInfo) -> dict[str, Path]:
        """instances_val2017.json."""
        return self._paths(info, [coco_layout.INSTANCES])

    def images(self, info: build_info.AnnotationsInfo) -> Path:
        """val2017."""
        return self._path(info, coco_layout.IMAGES, info.images.storage)

    def convert(self, info: Any, splits: Sequence[str], stores: Stores, opener: Opener) -> Found:
        """Read instances_val2017.json."""
        del splits, opener
        path = self.sources(info)["annotations"]
        found = coco_layout.read_coco_instances(path, self.images(info), name="coco", stores=stores)
        return {"val": _named_by_size(found, info.protocol)}


@registry.register_builder("refcocog_region")
class RefcocogBuilder(RegionDatasetBuilder):
    """RefCOCOg, umd split."""

    dataset_name = "refcocog_region"
    info_type = build_info.RefcocogInfo
    root_variable = "REFCOCOG_ROOT"
    default_evaluator = "reg"
    DATASET_CONFIG_DICT: ClassVar[dict[str, str]] = {
        "default": config_path("datasets/refcocog_region.yaml")
    }

    def available_splits(self) -> tuple[str, ...]:
        """All three of the umd split."""
        return refcocog.SPLITS

    def sources(self, info: build_info.RefcocogInfo) -> dict[str, Path]:
        """refs(umd).p and the boxes it refers to."""
        return self._paths(info, [refcocog.REFS, refcocog.INSTANCES])

    def images(self, info: build_info.RefcocogInfo) -> Path:
        """COCO's train2014."""
        return self._path(info, refcocog.IMAGES, info.images.storage)

    def convert(self, info: Any, splits: Sequence[str], stores: Stores, opener: Opener) -> Found:
        """Read refs(umd).p."""
        del opener
        sources = self.sources(info)
        return refcocog.read_refcocog(
            sources["refs"],
            sources["instances"],
            self.images(info),
            splits=splits,
            name=info.protocol or "refcocog-umd",
            stores=stores,
        )


@registry.register_builder("synthetic_region")
class SyntheticBuilder(RegionDatasetBuilder):
    """Generated scenes in the raw formats of Visual Genome, OVAD and COCO."""

    dataset_name = "synthetic_region"
    info_type = build_info.SyntheticInfo
    DATASET_CONFIG_DICT: ClassVar[dict[str, str]] = {
        "default": config_path("datasets/synthetic_region.yaml")
    }

    def available_splits(self) -> tuple[str, ...]:
        """The three of Visual Genome, then one for each other task."""
        return (*visual_genome.SPLITS, "attributes", "categories")

    def evaluator_of(self, split: str) -> str:
        """The two other tasks are called like their evaluators."""
        return split if split in ("attributes", "categories") else self.default_evaluator

    def sources(self, info: build_info.SyntheticInfo) -> dict[str, Path]:
        """The generated files, laid out like the real ones."""
        root = self.images(info)
        return {
            "region_descriptions": root / "vg" / visual_genome.REGION_DESCRIPTIONS.name,
            "image_data": root / "vg" / visual_genome.IMAGE_DATA.name,
            "densecap_splits": root / "vg" / visual_genome.SPLITS_FILE.name,
            "attributes": root / "ovad" / ovad.ANNOTATIONS.name,
            "categories": root / "coco" / coco_layout.INSTANCES.name,
        }

    def images(self, info: build_info.SyntheticInfo) -> Path:
        """The folder of the scenes; those of different splits lie in different folders of it."""
        name = f"synthetic-v{VERSION}-{info.world}-{info.scenes}-{info.seed}"
        return Path(info.root).expanduser() if info.root else cache_dir() / name

    def read(self, info: build_info.SyntheticInfo, splits: Sequence[str]) -> dict[str, RegionSet]:
        """As any dataset, and the tags that are true instead of said where the config says so."""
        found = super().read(info, splits)
        if info.labels == "truth":
            root = self.images(info)
            return {
                split: _with_true_tags(part, root) if split in visual_genome.SPLITS else part
                for split, part in found.items()
            }
        if info.labels != "captions":
            raise DatasetError(f"labels: expected captions or truth, got {info.labels!r}")
        return found

    def convert(self, info: Any, splits: Sequence[str], stores: Stores, opener: Opener) -> Found:
        """Read the generated files as if they were the real ones."""
        sources, protocol = self.sources(info), info.protocol or "synthetic"
        root = self.images(info)
        found: dict[str, RegionSet] = {}
        described = [split for split in splits if split in visual_genome.SPLITS]
        if described:
            found = visual_genome.read_visual_genome(
                sources["region_descriptions"],
                sources["image_data"],
                sources["densecap_splits"],
                root / "vg" / visual_genome.IMAGES.name,
                splits=described,
                name=f"{protocol}-densecap",
                stores=stores,
                opener=opener,
            )
        readers = {"attributes": ovad.read_ovad, "categories": coco_layout.read_coco_instances}
        for split in set(splits).intersection(readers):
            images, name = root / "coco" / "val2017", f"{protocol}-{split}"
            found[split] = readers[split](
                sources[split], images, name=name, split=split, stores=stores
            )
        return found

    def make_raw_files(self, info: build_info.SyntheticInfo) -> None:
        """Draw the scenes on first use."""
        write_dataset(self.images(info), scenes=info.scenes, seed=info.seed, world=info.world)


def _with_true_tags(region_set: RegionSet, root: Path) -> RegionSet:
    """Each object once, tagged with all that is true of it, said in a caption or not."""
    truth = read_truth(root, region_set.split)
    by_object = {(region.image_id, region.box): region for region in region_set.regions}
    regions = [
        replace(region, tags=true_labels(truth[region.region_id]["facts"]))
        for region in by_object.values()
    ]
    return replace(region_set, regions=regions, name=f"{region_set.name}-truth")
