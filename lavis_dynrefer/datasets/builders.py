"""The datasets LAVIS can name: one builder per source of regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from lavis.common.registry import registry

from lavis_dynrefer.datasets import settings
from lavis_dynrefer.datasets.region_builder import TRAIN, RegionDatasetBuilder, first_regions
from lavis_dynrefer.datasets.sources import coco, grit, ovad, refcocog, visual_genome
from lavis_dynrefer.datasets.sources.raw_files import DatasetError
from lavis_dynrefer.paths import cache_dir, config_path
from lavis_dynrefer.structures import RegionSet
from lavis_dynrefer.synthetic.dataset import VERSION, read_truth, write_dataset
from lavis_dynrefer.synthetic.vocabulary import true_labels


@registry.register_builder("vg_region")
class VisualGenomeBuilder(RegionDatasetBuilder):
    """Visual Genome: types v1.2, v1.0, vgcoco, and reg for GLaMM's one caption per picture."""

    dataset_name = "vg_region"
    info_type = settings.VisualGenomeInfo
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

    def read(self, info: settings.VisualGenomeInfo, splits: Sequence[str]) -> dict[str, RegionSet]:
        """Read region descriptions, or the captions of type reg."""
        images = self._images(info)
        if self.config.type == "reg":
            if info.boxes:
                raise self._error("boxes: type reg asks about its own; use it with another type")
            path = self._path(info, coco.VG_REG_CAPTIONS, info.annotations)
            name = info.protocol or "vg-reg-5k"
            return {"test": coco.read_coco_captions(path, images, name=name, split="test")}
        found = visual_genome.read_visual_genome(
            self._path(info, visual_genome.REGION_DESCRIPTIONS, info.region_descriptions),
            self._path(info, visual_genome.IMAGE_DATA, info.image_data),
            self._path(info, visual_genome.SPLITS_FILE, info.densecap_splits),
            images,
            version="v1.2" if self.config.type == "default" else self.config.type,
            splits=splits,
            name=info.protocol,
        )
        if not info.boxes:
            return found
        return {
            split: part if split == TRAIN else self._with_boxes(info, part)
            for split, part in found.items()
        }

    def _with_boxes(self, info: settings.VisualGenomeInfo, annotated: RegionSet) -> RegionSet:
        """GRiT's detections on the annotated pictures, graded on what is annotated there."""
        if info.max_regions is not None:
            raise self._error("max_regions would leave truth unasked; try boxes with max_images")
        # Pictures without a detection count too, so a trial begins with the truth.
        truth = first_regions(annotated, info.max_images, None)
        name = info.protocol or f"{annotated.name.removesuffix('gt')}grit"
        return grit.read_grit(self._path(info, grit.BOXES, info.boxes), truth, name=name)

    def _images(self, info: settings.VisualGenomeInfo) -> Path:
        """`images` in the root, or the root itself where the two archives were unpacked there."""
        path = self._path(info, visual_genome.IMAGES, info.images.storage)
        unpacked = info.images.storage is None and (path.parent / "VG_100K").is_dir()
        return path.parent if unpacked and not path.is_dir() else path


def _named_by_size(region_set: RegionSet, protocol: str | None) -> RegionSet:
    """Protocol id such as "ovad-14300": it tells the whole file from a part of it."""
    name = protocol or f"{region_set.name}-{len(region_set.truth())}"
    return replace(region_set, name=name)


@registry.register_builder("ovad")
class OvadBuilder(RegionDatasetBuilder):
    """OVAD attributes."""

    dataset_name = "ovad"
    info_type = settings.AnnotationsInfo
    root_variable = "OVAD_ROOT"
    default_evaluator = "attributes"
    DATASET_CONFIG_DICT: ClassVar[dict[str, str]] = {"default": config_path("datasets/ovad.yaml")}

    def read(self, info: settings.AnnotationsInfo, splits: Sequence[str]) -> dict[str, RegionSet]:
        """Read ovad2000.json."""
        del splits
        path = self._path(info, ovad.ANNOTATIONS, info.annotations)
        images = self._path(info, ovad.IMAGES, info.images.storage)
        found = ovad.read_ovad(path, images, name="ovad")
        return {"val": _named_by_size(found, info.protocol)}


@registry.register_builder("coco_region")
class CocoBuilder(RegionDatasetBuilder):
    """COCO categories."""

    dataset_name = "coco_region"
    info_type = settings.AnnotationsInfo
    root_variable = "COCO_ROOT"
    default_evaluator = "categories"
    DATASET_CONFIG_DICT: ClassVar[dict[str, str]] = {
        "default": config_path("datasets/coco_region.yaml")
    }

    def read(self, info: settings.AnnotationsInfo, splits: Sequence[str]) -> dict[str, RegionSet]:
        """Read instances_val2017.json."""
        del splits
        path = self._path(info, coco.INSTANCES, info.annotations)
        images = self._path(info, coco.IMAGES, info.images.storage)
        found = coco.read_coco_instances(path, images, name="coco")
        return {"val": _named_by_size(found, info.protocol)}


@registry.register_builder("refcocog_region")
class RefcocogBuilder(RegionDatasetBuilder):
    """RefCOCOg, umd split."""

    dataset_name = "refcocog_region"
    info_type = settings.RefcocogInfo
    root_variable = "REFCOCOG_ROOT"
    default_evaluator = "reg"
    DATASET_CONFIG_DICT: ClassVar[dict[str, str]] = {
        "default": config_path("datasets/refcocog_region.yaml")
    }

    def available_splits(self) -> tuple[str, ...]:
        """All three of the umd split."""
        return refcocog.SPLITS

    def read(self, info: settings.RefcocogInfo, splits: Sequence[str]) -> dict[str, RegionSet]:
        """Read refs(umd).p."""
        return refcocog.read_refcocog(
            self._path(info, refcocog.REFS, info.refs),
            self._path(info, refcocog.INSTANCES, info.instances),
            self._path(info, refcocog.IMAGES, info.images.storage),
            splits=splits,
            name=info.protocol or "refcocog-umd",
        )


@registry.register_builder("synthetic_region")
class SyntheticBuilder(RegionDatasetBuilder):
    """Generated scenes in the raw formats of Visual Genome, OVAD and COCO."""

    dataset_name = "synthetic_region"
    info_type = settings.SyntheticInfo
    DATASET_CONFIG_DICT: ClassVar[dict[str, str]] = {
        "default": config_path("datasets/synthetic_region.yaml")
    }

    def available_splits(self) -> tuple[str, ...]:
        """The three of Visual Genome, then one for each other task."""
        return (*visual_genome.SPLITS, "attributes", "categories")

    def evaluator_of(self, split: str) -> str:
        """The two other tasks are called like their evaluators."""
        return split if split in ("attributes", "categories") else self.default_evaluator

    def read(self, info: settings.SyntheticInfo, splits: Sequence[str]) -> dict[str, RegionSet]:
        """Read the generated files as if they were the real ones."""
        root, protocol = self._root(info), info.protocol or "synthetic"
        vg, pictures = root / "vg", root / "coco" / "val2017"
        found: dict[str, RegionSet] = {}
        described = [split for split in splits if split in visual_genome.SPLITS]
        if described:
            found = visual_genome.read_visual_genome(
                vg / visual_genome.REGION_DESCRIPTIONS.name,
                vg / visual_genome.IMAGE_DATA.name,
                vg / visual_genome.SPLITS_FILE.name,
                vg / visual_genome.IMAGES.name,
                splits=described,
                name=f"{protocol}-densecap",
            )
        if info.labels == "truth":
            found = {split: self._with_true_tags(part, root) for split, part in found.items()}
        elif info.labels != "captions":
            raise DatasetError(f"labels: expected captions or truth, got {info.labels!r}")
        if "attributes" in splits:
            path = root / "ovad" / ovad.ANNOTATIONS.name
            found["attributes"] = ovad.read_ovad(path, pictures, name=f"{protocol}-attributes")
        if "categories" in splits:
            path = root / "coco" / coco.INSTANCES.name
            name = f"{protocol}-categories"
            found["categories"] = coco.read_coco_instances(path, pictures, name=name)
        return found

    @staticmethod
    def _with_true_tags(region_set: RegionSet, root: Path) -> RegionSet:
        """Each object once, tagged with all that is true of it, said in a caption or not."""
        truth = read_truth(root, region_set.split)
        by_object = {(region.image_id, region.box): region for region in region_set.regions}
        regions = [
            replace(region, tags=true_labels(truth[region.region_id]["facts"]))
            for region in by_object.values()
        ]
        return replace(region_set, regions=regions, name=f"{region_set.name}-truth")

    def _root(self, info: settings.SyntheticInfo) -> Path:
        name = f"synthetic-v{VERSION}-{info.world}-{info.scenes}-{info.seed}"
        return Path(info.root).expanduser() if info.root else cache_dir() / name

    def _download_ann(self) -> None:
        """Generate the scenes on first use; LAVIS calls this in one process only."""
        info = self._info()
        try:
            write_dataset(self._root(info), scenes=info.scenes, seed=info.seed, world=info.world)
        except (ValueError, FileExistsError) as error:
            raise self._error(str(error)) from error
