"""The datasets of `catalog` under the names by which LAVIS knows them."""

from __future__ import annotations

from lavis.common.registry import registry

from lavis_dynrefer.datasets import catalog
from lavis_dynrefer.datasets.region_builder import RegionDatasetBuilder


@registry.register_builder("vg_region")
class VisualGenomeBuilder(catalog.VisualGenome, RegionDatasetBuilder):
    """Visual Genome."""


@registry.register_builder("ovad")
class OvadBuilder(catalog.Ovad, RegionDatasetBuilder):
    """OVAD."""


@registry.register_builder("coco_region")
class CocoBuilder(catalog.Coco, RegionDatasetBuilder):
    """COCO."""


@registry.register_builder("refcocog_region")
class RefcocogBuilder(catalog.Refcocog, RegionDatasetBuilder):
    """RefCOCOg."""


@registry.register_builder("synthetic_region")
class SyntheticBuilder(catalog.Synthetic, RegionDatasetBuilder):
    """Generated scenes."""


@registry.register_builder("custom_region")
class CustomBuilder(catalog.Custom, RegionDatasetBuilder):
    """Your own regions."""
