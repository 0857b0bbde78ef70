"""Pretraining of a small backbone, where no EVA weights of its size exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from lavis.common.registry import registry
from lavis.models.base_model import BaseModel
from omegaconf import OmegaConf
from torch import Tensor, nn

from lavis_dynrefer.config import RegionEncoderConfig, TaggingConfig, VisionConfig, from_mapping
from lavis_dynrefer.models.backbone import Backbone, build_backbone
from lavis_dynrefer.models.builder import LAVIS_KEYS
from lavis_dynrefer.models.decoders.tagging import multi_hot
from lavis_dynrefer.models.region_encoder import crop_regions
from lavis_dynrefer.paths import config_path, resource_path
from lavis_dynrefer.vocab import load_names


@dataclass(frozen=True)
class PretrainingConfig:
    """The sections of a DynRefer config that matter here."""

    vision: VisionConfig = field(default_factory=VisionConfig)
    region: RegionEncoderConfig = field(default_factory=RegionEncoderConfig)
    tagging: TaggingConfig = field(default_factory=TaggingConfig)


@registry.register_model("dynrefer_backbone")
class BackbonePretraining(BaseModel):
    """A backbone with two linear layers that name the tags of the region in every single view.

    One layer reads the mean of the RoI features, another the class token: what they need is then
    in every token in the same form, where the Q-Former's attention finds it however it spreads.
    (One layer on all cells side by side recognises as much, but a Q-Former learns little from such
    features.) Afterwards the layers are thrown away.

    Args:
        backbone: what is trained.
        tags: names to recognise.
        region: how the region is cut out.
    """

    PRETRAINED_MODEL_CONFIG_DICT: ClassVar[dict[str, str]] = {
        "default": config_path("models/dynrefer_backbone.yaml"),
        "tiny": config_path("models/dynrefer_backbone.yaml"),
    }

    def __init__(self, backbone: Backbone, *, tags: list[str], region: RegionEncoderConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.tags = tuple(tags)
        self.region = region
        self.region_head = nn.Linear(backbone.width, len(tags))
        self.summary_head = nn.Linear(backbone.width, len(tags))

    @classmethod
    def from_config(cls, cfg: Any) -> BackbonePretraining:
        """Build from the `model` section of a LAVIS config, with random weights."""
        values = OmegaConf.to_container(cfg, resolve=True)
        own = {key: value for key, value in values.items() if key not in LAVIS_KEYS}
        config = from_mapping(PretrainingConfig, own, where="model")
        if config.tagging.vocabulary is None:
            raise ValueError("model.tagging.vocabulary: name a file with one tag per line")
        tags = load_names(resource_path(config.tagging.vocabulary, key="tagging.vocabulary"))
        return cls(build_backbone(config.vision), tags=tags, region=config.region)

    def forward(self, samples: Mapping[str, Any]) -> dict[str, Tensor]:
        """Binary cross-entropy of every tag in every view, summed over tags and the two layers.

        Args:
            samples: views (B, V, 3, S, S), boxes (B, V, 4), tags: B lists of names.
        """
        views, boxes = samples["views"], samples["boxes"]
        tokens = self.backbone(rearrange(views, "b v c h w -> (b v) c h w"))
        features = crop_regions(
            rearrange(tokens, "(b v) n c -> b v n c", b=len(views)),
            boxes,
            image_size=self.backbone.image_size,
            roi_size=self.region.roi_size,
            sampling_ratio=self.region.sampling_ratio,
        )
        means = reduce(features.region, "b v c h w -> b v c", "mean")
        # (2, B, V, K)
        logits = torch.stack([self.region_head(means), self.summary_head(features.summary)])
        targets = multi_hot(samples["tags"], self.tags).to(logits.device)[:, None]
        loss = F.binary_cross_entropy_with_logits(
            logits, targets.expand_as(logits), reduction="none"
        )
        return {"loss": loss.sum(dim=-1).mean(dim=(1, 2)).sum()}
