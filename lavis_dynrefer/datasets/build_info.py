"""The `build_info` of every builder, read strictly.

Paths of annotation files and image folders are absolute or relative to `root`; None means the
name the file has on its own site.
"""

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Literal, Optional

from pydantic import BeforeValidator, Field, Strict

from lavis_dynrefer.config import ControlSettings
from lavis_dynrefer.formats.reading.box_units import UNITS
from lavis_dynrefer.metrics import EVALUATORS
from lavis_dynrefer.settings import settings
from lavis_dynrefer.synthetic.scene_world import WORLDS
from lavis_dynrefer.vocab import TAG_METHODS

Evaluator = Literal[tuple(EVALUATORS)]
BoxUnit = Literal[UNITS]
TagMethod = Literal[TAG_METHODS]
World = Literal[WORLDS]
# One, or several that the scenes of a split take one after the other.
Worlds = Annotated[
    tuple[World, ...],
    Strict(False),
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    Field(min_length=1, max_length=12),
]


@settings
class ImageStorage:
    """LAVIS's own place for the image folder, which `load_dataset(vis_path=...)` sets."""

    storage: Optional[str] = None


@settings
class RegionInfo(ControlSettings):
    """Settings of every dataset."""

    root: Optional[str] = None  # folder of the dataset
    images: ImageStorage = field(default_factory=ImageStorage)
    splits: Optional[tuple[str, ...]] = None  # None: all
    split_names: Mapping[str, str] = field(default_factory=dict)  # split -> its name in the run
    evaluator: Optional[Evaluator] = None  # None: the one that fits
    protocol: Optional[str] = None  # label of the reports; None: the dataset's own
    prepared: Optional[str] = None  # folder of `dynrefer prepare`; None: prepared in the cache
    tags: Optional[str] = None  # file with one tag per line, "auto": frequent words, None: no tags
    tag_method: TagMethod = "match"  # how captions are tagged
    on_error: Literal["raise", "skip"] = "raise"  # skip: count an unreadable image and go on
    regions_per_image: int = Field(default=1, ge=1)  # in training: of one decoded image
    repeats: int = Field(default=1, ge=1)  # in training: how often an epoch has each sample
    max_images: Optional[int] = Field(default=None, ge=1)  # for trials: the first of a split
    max_regions: Optional[int] = Field(default=None, ge=1)  # for trials: the first of a split


@settings
class VisualGenomeInfo(RegionInfo):
    """Visual Genome, all types."""

    region_descriptions: Optional[str] = None
    image_data: Optional[str] = None
    densecap_splits: Optional[str] = None
    annotations: Optional[str] = None  # type reg: GLaMM's test_caption.json
    boxes: Optional[str] = None  # GRiT's vg_instances_results.json, captioned in evaluation


@settings
class AnnotationsInfo(RegionInfo):
    """Datasets of one annotation file: OVAD, COCO."""

    annotations: Optional[str] = None


@settings
class RefcocogInfo(RegionInfo):
    """RefCOCOg."""

    refs: Optional[str] = None
    instances: Optional[str] = None


@settings
class SyntheticInfo(RegionInfo):
    """Generated scenes; `root` None means the cache folder."""

    scenes: int = Field(default=400, ge=1)  # images in train, val and test together
    seed: int = Field(default=0, ge=0)
    world: Worlds = ("landmark",)  # what the captions relate a region to
    labels: Literal["captions", "truth"] = "captions"  # tags: of the captions, or all that is true
    captions: Literal["all", "full"] = "all"  # full: without the short ones of training


@settings
class CustomInfo(RegionInfo):
    """Your own regions; `root` None means the current folder."""

    annotations: Mapping[str, Optional[str]] = field(default_factory=dict)  # split -> COCO json
    evaluators: Mapping[str, Evaluator] = field(default_factory=dict)  # split -> its evaluator
    box_units: Optional[BoxUnit] = None  # of all boxes; None: pixels, which must not look relative
