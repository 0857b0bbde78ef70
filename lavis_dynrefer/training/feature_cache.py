"""How large the kept features of a run will become, told before it begins."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lavis  # noqa: F401  first, for threads
from torch import nn

from lavis_dynrefer.datasets.region_dataset import RegionDataset
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.backbone import Backbone
from lavis_dynrefer.models.vision.view_cache import ViewCache
from lavis_dynrefer.paths import expand_home
from lavis_dynrefer.views.policies import RandomScales, crops_of
from lavis_dynrefer.views.view_processor import ViewProcessor

logger = logging.getLogger(__name__)


def use_feature_cache(folder: str, model: nn.Module, datasets: Iterable[Any]) -> None:
    """Let a model keep what its frozen ViT makes of the views it is trained on.

    Args:
        folder: of the cache.
        model: a `DynRefer`.
        datasets: that it will be trained on.

    Raises:
        InputError: another kind of model or dataset, a ViT that is trained, or too small a disk.
    """
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, Backbone) or not hasattr(model, "view_cache"):
        raise InputError(f"run.feature_cache: {type(model).__name__} has no features to keep")
    if any(weight.requires_grad for weight in backbone.parameters()):
        raise InputError(
            "run.feature_cache: the backbone is trained, so that its features change; leave it "
            "out of model.trainable, or the cache out of the run"
        )
    counts = [views_of(part) for part in datasets]
    cache = ViewCache(Path(expand_home(folder)))
    needed, kept = sum(counts) * backbone.bytes_of_a_view, cache.bytes_kept()
    free = shutil.disk_usage(cache.folder).free
    size = (
        f"up to {sum(counts):,} different views of {backbone.bytes_of_a_view / 1e6:.2f} MB are "
        f"{needed / 1e9:.1f} GB; {kept / 1e9:.1f} GB are kept in {cache.folder}, and "
        f"{free / 1e9:.1f} GB are free there"
    )
    if needed - kept > free:
        raise InputError(
            f"run.feature_cache: {size}; name a folder on a larger disk, or have fewer candidates "
            "of scales"
        )
    logger.info("run.feature_cache: %s", size)
    model.view_cache = cache


def views_of(dataset: Any) -> int:
    """How many different views the regions of a training set have at most.

    Raises:
        InputError: not a dataset of ours, or with a view processor of its own.
    """
    processor = dataset.vis_processor if isinstance(dataset, RegionDataset) else None
    if not isinstance(processor, ViewProcessor):
        raise InputError(
            "run.feature_cache: the views can be counted of datasets of this package with its view "
            f"processors only, not of {type(dataset).__name__}"
        )
    policy = processor.policy
    if isinstance(policy, RandomScales):
        each = 1 + len(policy.candidates) if policy.num_views > 1 else 1
    else:
        each = crops_of(policy)
    plain = 0 < processor.mask_share < 1  # some regions are seen without their mask, too
    if processor.mask_views == "dim":
        each *= 1 + plain
    elif processor.mask_views == "dim_own" and processor.asks_for_masks:
        each += plain + 2 * processor.mask_noise  # of the own view
    return each * len(dataset.region_set.regions)
