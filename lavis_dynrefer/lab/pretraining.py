"""Pretrains the vision parts of a small model, for which no published weights exist."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import lavis  # noqa: F401  first, for threads
import torch
import torch.nn.functional as F
from einops import rearrange
from lavis.common.registry import registry
from lavis.models.base_model import BaseModel
from omegaconf import OmegaConf
from torch import Tensor, nn

from lavis_dynrefer.config import LAVIS_KEYS, MODELS, PretrainingConfig
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images.boxes import area
from lavis_dynrefer.models.backbone import Backbone
from lavis_dynrefer.models.decoders.contrast import ContrastDecoder
from lavis_dynrefer.models.decoders.tagging import multi_hot
from lavis_dynrefer.models.model_parts import set_trainable
from lavis_dynrefer.models.qformer import QFormer
from lavis_dynrefer.models.region_encoder import (
    RegionEncoder,
    build_region_encoder,
    pool_rois,
)
from lavis_dynrefer.models.texts.text_encoder import TextEncoder
from lavis_dynrefer.models.weights.pretrained import load_sources
from lavis_dynrefer.paths import config_path, resource_path
from lavis_dynrefer.settings import from_mapping
from lavis_dynrefer.vocab import load_names
from lavis_dynrefer.vocab.prompts import attribute_prompts

MIN_VISIBLE = 0.5  # share of a region in a view from which the view is trained on it


@registry.register_model("dynrefer_pretraining")
class RegionPretraining(BaseModel):
    """Backbone, region encoder, Q-Former, text encoder and contrast decoder, trained on labels.

    A substitute for the EVA-CLIP and BLIP-2 weights of the full model. Four linear layers predict
    the labels of a region: from all its cells in one view, concatenated, which learns shapes
    fastest; from their mean and from the view's class token, so that each token holds what a
    Q-Former can use; and from the queries. They are discarded afterwards. A view is trained on
    every region of the batch that it shows, not only on the one it was cropped for. The contrast
    decoder learns the texts of the labels as well, because captions alone mention attributes such
    as "shiny" too rarely.

    Args:
        backbone: see `DynRefer`, as are all parts.
        region_encoder: combines the views.
        qformer: compresses them to queries.
        text_encoder: embeds the texts of the labels.
        contrast: scores them.
        labels: names of the labels.
        trainable: modules that get gradients, by their path from the model; "" is all of it. New
            heads on pretrained parts are best trained alone at first: their gradients undo what
            the parts have learned (docs/tiny_model.md).
    """

    PRETRAINED_MODEL_CONFIG_DICT: ClassVar[dict[str, str]] = {
        name: config_path(yaml) for name, yaml in MODELS["dynrefer_pretraining"].yamls.items()
    }

    def __init__(
        self,
        *,
        backbone: Backbone,
        region_encoder: RegionEncoder,
        qformer: QFormer,
        text_encoder: TextEncoder,
        contrast: ContrastDecoder,
        labels: list[str],
        trainable: Sequence[str] = ("",),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.region_encoder = region_encoder
        self.qformer = qformer
        self.text_encoder = text_encoder
        self.contrast = contrast
        self.tag_names = tuple(labels)
        self.prompts = tuple(tuple(attribute_prompts(label)) for label in labels)
        num_queries = qformer.query_tokens.shape[1]
        cells = region_encoder.roi_size**2
        self.cells_head = nn.Linear(cells * backbone.width, len(labels))
        self.mean_head = nn.Linear(backbone.width, len(labels))
        self.summary_head = nn.Linear(backbone.width, len(labels))
        self.query_head = nn.Linear(num_queries * qformer.width, len(labels))
        set_trainable(self, trainable)

    @classmethod
    def from_config(cls, cfg: Any) -> RegionPretraining:
        """Build from the `model` section of a LAVIS config.

        Weights are random but for those in the files of `pretrained`, see `weights.pretrained`.
        """
        values = OmegaConf.to_container(cfg, resolve=True)
        own = {key: value for key, value in values.items() if key not in LAVIS_KEYS}
        config = from_mapping(PretrainingConfig, own, where="model")
        if config.tagging.vocabulary is None:
            raise InputError("model.tagging.vocabulary: name a file with one tag per line")
        qformer = QFormer(config.qformer, region_width=config.vision.width)
        text_encoder = TextEncoder(config.text)
        model = cls(
            backbone=Backbone(config.vision),
            region_encoder=build_region_encoder(config.region, config.vision),
            qformer=qformer,
            text_encoder=text_encoder,
            contrast=ContrastDecoder(
                config.contrast.decoder,
                text_dim=text_encoder.embed_dim,
                region_dim=qformer.width,
            ),
            labels=load_names(resource_path(config.tagging.vocabulary, key="tagging.vocabulary")),
            trainable=config.trainable,
        )
        load_sources(model, values.get("pretrained") or {})
        return model

    def forward(self, samples: Mapping[str, Any]) -> dict[str, Tensor]:
        """Binary cross-entropy, summed over labels, averaged over views or regions.

        Args:
            samples: views (B, V, 3, S, S), boxes (B, V, 4), image_boxes (B, 4), image_ids: B
                numbers, tags: B lists of indices into the labels; masks (B, G, G), if any are
                used: the heads on a view's cells learn without them, the queries with them.

        Returns:
            "loss" and its parts "loss_cells", "loss_mean", "loss_summary", "loss_query" and
            "loss_text".
        """
        views = samples["views"]
        tokens = self.backbone(rearrange(views, "b v c h w -> (b v) c h w"))
        truth = multi_hot(samples["tags"], len(self.tag_names)).to(tokens.device)  # (B, K)

        rois, shown = self._regions_in_views(samples)
        encoder = self.region_encoder
        maps = pool_rois(
            tokens,
            rois,
            image_size=encoder.image_size,
            roi_size=encoder.roi_size,
            sampling_ratio=encoder.sampling_ratio,
        )
        # Views have equal weight, however many regions they show.
        view = rois[:, 0].long()
        ones = torch.ones_like(view)
        regions = torch.zeros(len(tokens), device=ones.device, dtype=ones.dtype)
        weight = 1 / regions.index_add(0, view, ones)[view] / len(tokens)
        cells = (_label_loss(self.cells_head(maps.flatten(1)), truth[shown]) * weight).sum()
        mean = (_label_loss(self.mean_head(maps.mean(dim=(2, 3))), truth[shown]) * weight).sum()

        features = encoder.pool(
            rearrange(tokens, "(b v) n c -> b v n c", b=len(views)),
            samples["boxes"],
            encoder.masks_of(samples),
        )
        summary = _label_loss(self.summary_head(features.summary), truth[:, None]).mean()
        queries = self.qformer(self.region_encoder(features))
        query = _label_loss(self.query_head(queries.flatten(1)), truth).mean()
        # No gradient from the texts into the queries: in a run with it, the queries did not learn
        # the category of the reference object (docs/tiny_model.md).
        similarity = self.contrast(self.text_encoder(self._sample_prompts()), queries.detach())
        logits = similarity.float() * self.contrast.log_scale.exp() + self.contrast.bias
        text = _label_loss(logits, truth).mean()
        parts = {
            "loss_cells": cells,
            "loss_mean": mean,
            "loss_summary": summary,
            "loss_query": query,
            "loss_text": text,
        }
        return {"loss": sum(parts.values()), **parts}

    def _sample_prompts(self) -> list[str]:
        """A random prompt for each label."""
        # Seeded by torch's generator, so that on a CPU one seed determines a training run.
        rng = random.Random(int(torch.randint(2**31, ())))
        return [rng.choice(prompts) for prompts in self.prompts]

    def _regions_in_views(self, samples: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """All K pairs of a view and a region that it shows.

        Returns:
            (K, 5) index of the view and xyxy in its pixels; (K,) index of the region.
        """
        boxes, image_boxes = samples["boxes"], samples["image_boxes"]
        size = self.region_encoder.image_size
        ids = torch.tensor([hash(name) for name in samples["image_ids"]], device=boxes.device)
        same = (ids[:, None] == ids)[:, None].expand(-1, boxes.shape[1], -1)  # (B, V, B)
        moved = transform_boxes(
            image_boxes[None, None], image_boxes[:, None, None], boxes[:, :, None]
        )
        inside = moved.clamp(0, size)  # (B, V, B, 4)
        share = (area(inside.view(-1, 4)) / area(moved.view(-1, 4))).view(same.shape)
        large_enough = (inside[..., 2:] - inside[..., :2] >= 1).all(dim=-1)
        kept = same & (share >= MIN_VISIBLE) & large_enough
        own = torch.arange(len(boxes), device=boxes.device)
        kept[own, :, own] = True
        inside[own, :, own] = boxes  # whole pixels, as for the model
        row, column, shown = kept.nonzero(as_tuple=True)
        view = row * boxes.shape[1] + column
        pairs = torch.cat([view[:, None].float(), inside[row, column, shown]], dim=1)
        return pairs, shown


def transform_boxes(boxes: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Move boxes by the shift and scaling that turns `source` into `target`.

    Args:
        boxes: (..., 4) xyxy in the pixels of `source`.
        source: (..., 4) xyxy boxes with area.
        target: (..., 4) the same boxes elsewhere, such as in a resized crop.

    Returns:
        (..., 4) xyxy in the pixels of `target`.

    >>> transform_boxes(torch.tensor([[30., 20., 50., 30.]]), torch.tensor([10., 10., 30., 20.]),
    ...                 torch.tensor([0., 0., 40., 40.]))
    tensor([[40., 40., 80., 80.]])
    """
    corner, anchor = source[..., :2], target[..., :2]
    scale = (target[..., 2:] - anchor) / (source[..., 2:] - corner)
    corners = [(side - corner) * scale + anchor for side in (boxes[..., :2], boxes[..., 2:])]
    return torch.cat(corners, dim=-1)


def _label_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Binary cross-entropy summed over the labels: (..., K) -> (...)."""
    losses = F.binary_cross_entropy_with_logits(
        logits.float(), truth.expand_as(logits).float(), reduction="none"
    )
    return losses.sum(dim=-1)
