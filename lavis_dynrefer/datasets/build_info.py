"""The `build_info` of every builder as a frozen dataclass, read strictly.

Paths of annotation files and image folders are absolute or relative to `root`; None means the
name the file has on its own site.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional


@dataclass(frozen=True)
class ImageStorage:
    """LAVIS's own place for the folder of images, which `load_dataset(vis_path=...)` sets."""

    storage: Optional[str] = None


@dataclass(frozen=True)
class RegionInfo:
    """What every dataset can be told."""

    root: Optional[str] = None  # folder of the dataset
    images: ImageStorage = field(default_factory=ImageStorage)
    splits: Optional[tuple[str, ...]] = None  # None: all there are
    split_names: Mapping[str, Any] = field(default_factory=dict)  # split -> its name in the run
    evaluator: Optional[str] = None  # None: the one that fits
    protocol: Optional[str] = None  # label of the reports; None: the dataset's own
    prepared: Optional[str] = None  # folder of `dynrefer prepare`; None: prepared in the cache
    tags: Optional[str] = None  # file with one tag per line, "auto": frequent words, None: no tags
    tag_method: str = "match"  # or "match+pos", "scene_graph": how captions are tagged
    on_error: str = "raise"  # or "skip": an image that cannot be read is counted and left out
    regions_per_image: int = 1  # in training: regions of an image that share its decoding
    max_images: Optional[int] = None  # for trials: the first images of each split
    max_regions: Optional[int] = None  # for trials: the first regions of each split


@dataclass(frozen=True)
class VisualGenomeInfo(RegionInfo):
    """Visual Genome, all types."""

    region_descriptions: Optional[str] = None
    image_data: Optional[str] = None
    densecap_splits: Optional[str] = None
    annotations: Optional[str] = None  # type reg: GLaMM's test_caption.json
    boxes: Optional[str] = None  # GRiT's vg_instances_results.json, captioned in evaluation


@dataclass(frozen=True)
class AnnotationsInfo(RegionInfo):
    """Datasets of one annotation file: OVAD, COCO."""

    annotations: Optional[str] = None


@dataclass(frozen=True)
class RefcocogInfo(RegionInfo):
    """RefCOCOg."""

    refs: Optional[str] = None
    instances: Optional[str] = None


@dataclass(frozen=True)
class SyntheticInfo(RegionInfo):
    """Generated scenes; `root` None means the cache folder."""

    scenes: int = 400  # images in train, val and test together
    seed: int = 0
    world: str = "landmark"  # or "neighbour": what the captions relate a region to
    labels: str = "captions"  # tags of a region from its captions, or all that is true: "truth"


@dataclass(frozen=True)
class CustomInfo(RegionInfo):
    """Your own regions; `root` None means the current folder."""

    annotations: Mapping[str, Any] = field(default_factory=dict)  # split -> json in COCO's layout
    evaluators: Mapping[str, Any] = field(default_factory=dict)  # split -> evaluator of that split
