"""The datasets by name, each with its files and its reader. Does not import LAVIS."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from lavis_dynrefer.cores import available_cores
from lavis_dynrefer.datasets import build_info
from lavis_dynrefer.datasets.custom_source import Custom
from lavis_dynrefer.datasets.region_source import RegionSource, default_yaml
from lavis_dynrefer.datasets.sources import coco_layout, grit, ovad, refcocog, visual_genome
from lavis_dynrefer.datasets.sources.raw_files import Opener
from lavis_dynrefer.datasets.sources.region_collector import (
    TRAIN,
    MaskedStore,
    MemoryStore,
    Stores,
    in_memory,
)
from lavis_dynrefer.paths import cache_dir, expand_home
from lavis_dynrefer.structures import RegionSet
from lavis_dynrefer.synthetic.scene_dataset import VERSION, truth_of, write_dataset
from lavis_dynrefer.synthetic.scene_vocabulary import true_labels

Splits = Mapping[str, RegionSet]
SCENES_OF_A_PROCESS = 200  # drawn in about six seconds; a process needs two to start


class VisualGenome(RegionSource):
    """Visual Genome: types v1.2, v1.0, vgcoco, and reg for GLaMM's one caption per image."""

    dataset_name = "vg_region"
    info_type = build_info.VisualGenomeInfo
    files = (
        visual_genome.REGION_DESCRIPTIONS,
        visual_genome.IMAGE_DATA,
        visual_genome.SPLITS_FILE,
    )
    image_folder = visual_genome.IMAGES
    root_variable = "VG_ROOT"
    DATASET_CONFIG_DICT = default_yaml("vg_region", *visual_genome.PROTOCOLS, "reg")

    def available_splits(self) -> tuple[str, ...]:
        """Test only for type reg."""
        return ("test",) if self.config.type == "reg" else visual_genome.SPLITS

    def evaluator_of(self, split: str) -> str:
        """Referring expression generation for type reg."""
        return "reg" if self.config.type == "reg" else super().evaluator_of(split)

    def sources(self, info: build_info.VisualGenomeInfo) -> dict[str, Path]:
        """Region descriptions, image data and splits, or the captions of type reg."""
        if self.config.type == "reg":
            if info.boxes:
                raise self._error("boxes: type reg has its own; use them with another type")
            return self._paths(info, [coco_layout.VG_REG_CAPTIONS])
        if info.boxes and info.max_regions is not None:
            raise self._error("max_regions would drop boxes of graded images; use max_images")
        return self._paths(info, [*self.files, *([grit.BOXES] if info.boxes else [])])

    def images(self, info: build_info.VisualGenomeInfo) -> Path:
        """`images` in the root, or the root itself if the two archives were unpacked there."""
        path = super().images(info)
        unpacked = info.images.storage is None and (path.parent / "VG_100K").is_dir()
        return path.parent if unpacked and not path.is_dir() else path

    def convert(self, info: Any, splits: Sequence[str], stores: Stores, opener: Opener) -> Splits:
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
            *(sources[file.setting] for file in self.files),
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


class _Val2017(RegionSource):
    """One annotation file about images of COCO val2017."""

    info_type = build_info.AnnotationsInfo
    reader: ClassVar[Callable[..., RegionSet]]  # of `coco_layout` or `ovad`

    def convert(self, info: Any, splits: Sequence[str], stores: Stores, opener: Opener) -> Splits:
        """The protocol id, such as "ovad-14300", differs for a part of the file."""
        del splits, opener
        name = self.dataset_name.removesuffix("_region")
        (path,) = self.sources(info).values()
        found = self.reader(path, self.images(info), name=name, stores=stores)
        return {"val": replace(found, name=info.protocol or f"{name}-{len(found.truth())}")}


class Ovad(_Val2017):
    """OVAD attributes."""

    dataset_name = "ovad"
    files = (ovad.ANNOTATIONS,)
    image_folder = ovad.IMAGES
    root_variable = "OVAD_ROOT"
    default_evaluator = "attributes"
    DATASET_CONFIG_DICT = default_yaml("ovad")
    reader = staticmethod(ovad.read_ovad)


class Coco(_Val2017):
    """COCO categories."""

    dataset_name = "coco_region"
    files = (coco_layout.INSTANCES,)
    image_folder = coco_layout.IMAGES
    root_variable = "COCO_ROOT"
    default_evaluator = "categories"
    DATASET_CONFIG_DICT = default_yaml("coco_region")
    reader = staticmethod(coco_layout.read_coco_instances)


class Refcocog(RegionSource):
    """RefCOCOg, umd split."""

    dataset_name = "refcocog_region"
    info_type = build_info.RefcocogInfo
    files = (refcocog.REFS, refcocog.INSTANCES)
    image_folder = refcocog.IMAGES
    root_variable = "REFCOCOG_ROOT"
    default_evaluator = "reg"
    DATASET_CONFIG_DICT = default_yaml("refcocog_region")

    def available_splits(self) -> tuple[str, ...]:
        """All three of the umd split."""
        return refcocog.SPLITS

    def convert(self, info: Any, splits: Sequence[str], stores: Stores, opener: Opener) -> Splits:
        """Read refs(umd).p."""
        del opener
        return refcocog.read_refcocog(
            *self.sources(info).values(),
            self.images(info),
            splits=splits,
            name=info.protocol or "refcocog-umd",
            stores=stores,
        )


class Synthetic(RegionSource):
    """Generated scenes in the raw formats of Visual Genome, OVAD and COCO."""

    dataset_name = "synthetic_region"
    info_type = build_info.SyntheticInfo
    DATASET_CONFIG_DICT = default_yaml("synthetic_region")

    def available_splits(self) -> tuple[str, ...]:
        """The three of Visual Genome, and one for each other task."""
        return (*visual_genome.SPLITS, "attributes", "categories")

    def evaluator_of(self, split: str) -> str:
        """The splits of the two other tasks are named after their evaluators."""
        return split if split in ("attributes", "categories") else self.default_evaluator

    def sources(self, info: build_info.SyntheticInfo) -> dict[str, Path]:
        """The generated files, laid out like the real ones."""
        root = self.images(info)
        return {
            **{file.setting: root / "vg" / file.name for file in VisualGenome.files},
            "attributes": root / "ovad" / ovad.ANNOTATIONS.name,
            "categories": root / "coco" / coco_layout.INSTANCES.name,
        }

    def images(self, info: build_info.SyntheticInfo) -> Path:
        """The folder of the scenes, in which splits have folders of their own."""
        name = f"synthetic-v{VERSION}-{'+'.join(info.world)}-{info.scenes}-{info.seed}"
        return expand_home(info.root) if info.root else cache_dir(create=False) / name

    def read(self, info: build_info.SyntheticInfo, splits: Sequence[str]) -> dict[str, RegionSet]:
        """With `captions: full` without the short ones, with `labels: truth` all facts as tags."""
        found = super().read(info, splits)
        root = self.images(info)
        for split in set(found).intersection(visual_genome.SPLITS):
            if info.captions == "full":
                found[split] = _with_full_captions(found[split], root)
            if info.labels == "truth":
                found[split] = _with_true_tags(found[split], root)
        return found

    def convert(self, info: Any, splits: Sequence[str], stores: Stores, opener: Opener) -> Splits:
        """Read the generated files as if they were the real ones, and masks from the truth."""
        sources, protocol = self.sources(info), info.protocol or "synthetic"
        root = self.images(info)
        stores = partial(_store_with_masks, stores, root)
        found: dict[str, RegionSet] = {}
        described = [split for split in splits if split in visual_genome.SPLITS]
        if described:
            found = visual_genome.read_visual_genome(
                *(sources[file.setting] for file in VisualGenome.files),
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
        processes = min(available_cores(), info.scenes // SCENES_OF_A_PROCESS)
        write_dataset(
            self.images(info),
            scenes=info.scenes,
            seed=info.seed,
            world=info.world,
            processes=processes,
        )


def _store_with_masks(stores: Stores, root: Path, split: str) -> MemoryStore:
    """The store of a split, whose regions get the masks of the truth."""
    truth = truth_of(root, split if split in visual_genome.SPLITS else "val2017")
    masks = {row["region_id"]: row["mask"] for row in truth}
    if split == "attributes":  # OVAD's ids are places in the file
        masks = dict(enumerate(masks.values()))
    return MaskedStore(stores(split), masks)


def _with_full_captions(region_set: RegionSet, root: Path) -> RegionSet:
    """Each object once, with its full caption; only in training there are others."""
    rows = truth_of(root, region_set.split)
    full = {row["region_id"] for row in rows if row["form"] == "full"}
    regions = [region for region in region_set.regions if region.region_id in full]
    return replace(region_set, regions=regions, name=f"{region_set.name}-full")


def _with_true_tags(region_set: RegionSet, root: Path) -> RegionSet:
    """Each object once, tagged with all true facts, mentioned or not."""
    # Two objects may have the same box, but no pixel.
    by_object = {(one.image_id, one.mask["counts"]): one for one in region_set.regions}
    wanted = {region.region_id for region in by_object.values()}
    labels = {
        row["region_id"]: true_labels(row["facts"])
        for row in truth_of(root, region_set.split)
        if row["region_id"] in wanted
    }
    regions = [replace(region, tags=labels[region.region_id]) for region in by_object.values()]
    return replace(region_set, regions=regions, name=f"{region_set.name}-truth")


SOURCES: dict[str, type[RegionSource]] = {
    source.dataset_name: source
    for source in (VisualGenome, Ovad, Coco, Refcocog, Synthetic, Custom)
}
