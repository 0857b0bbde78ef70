"""Pretrains the vision parts of a small model, for which no published weights exist."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from itertools import permutations
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
from lavis_dynrefer.images.mask_cover import FULL
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
from lavis_dynrefer.synthetic.scene_world import COLOURS, SURFACES
from lavis_dynrefer.views.samples import MASKS
from lavis_dynrefer.vocab import load_names
from lavis_dynrefer.vocab.prompts import attribute_prompts

COLOURED = {*COLOURS, *SURFACES}  # what a view with other colours does not show
MIN_VISIBLE = 0.5  # share of a region in a view from which the view is trained on it


@registry.register_model("dynrefer_pretraining")
class RegionPretraining(BaseModel):
    """Backbone, region encoder, Q-Former, text encoder and contrast decoder, trained on labels.

    A substitute for the EVA-CLIP and BLIP-2 weights of the full model. Four linear layers predict
    the labels of a region: from all its cells in one view, concatenated, which learns shapes
    fastest; from their mean and from the view's class token, so that each token holds what a
    Q-Former can use; and from the queries. They are discarded afterwards. A view is trained on
    every region of the batch that it shows, not only on the one it was cropped for; a region's own
    view on that region alone if its mask is used. The contrast decoder learns the texts of the
    labels as well, because captions alone mention attributes such as "shiny" too rarely.

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
        recoloured: share of the regions, drawn at random, whose views have their colour channels
            in another order when the model is trained. Categories are then learned apart from
            the colours that occur with them.
        colour_labels: those of `labels` that are not learned from such views.
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
        recoloured: float = 0.0,
        colour_labels: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.region_encoder = region_encoder
        self.qformer = qformer
        self.text_encoder = text_encoder
        self.contrast = contrast
        self.tag_names = tuple(labels)
        self.prompts = tuple(tuple(attribute_prompts(label)) for label in labels)
        self.recoloured = recoloured
        of_colour = torch.tensor([label in colour_labels for label in labels])
        self.register_buffer("of_colour", of_colour, persistent=False)  # (K,)
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
        labels = load_names(resource_path(config.tagging.vocabulary, key="tagging.vocabulary"))
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
            labels=labels,
            trainable=config.trainable,
            recoloured=config.recoloured,
            colour_labels=[label for label in labels if label.removeprefix("by ") in COLOURED],
        )
        load_sources(model, values.get("pretrained") or {})
        return model

    def forward(self, samples: Mapping[str, Any]) -> dict[str, Tensor]:
        """Binary cross-entropy, summed over labels, averaged over views or regions.

        Args:
            samples: views (B, V, 3, S, S), their scales (B, V), boxes (B, V, 4), image_boxes
                (B, 4), image_ids: B numbers, tags: B lists of indices into the labels; masks
                (B, G, G), if any are used: the heads on a view's cells learn without them, the
                queries with them.

        Returns:
            "loss" and its parts "loss_cells", "loss_mean", "loss_summary", "loss_query" and
            "loss_text".
        """
        views = samples["views"]
        known = torch.ones(len(views), len(self.tag_names), device=views.device)  # (B, K)
        if self.training and self.recoloured:
            drawn = torch.rand(len(views), device=views.device) < self.recoloured
            views = shuffle_channels(views, drawn)
            known[drawn[:, None] & self.of_colour] = 0
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
        cells, mean = (
            (_label_loss(logits, truth[shown], known[view // views.shape[1]]) * weight).sum()
            for logits in (self.cells_head(maps.flatten(1)), self.mean_head(maps.mean(dim=(2, 3))))
        )

        features = encoder.pool(
            rearrange(tokens, "(b v) n c -> b v n c", b=len(views)),
            samples["boxes"],
            encoder.masks_of(samples),
        )
        logits = self.summary_head(features.summary)  # (B, V, K)
        summary = _label_loss(logits, truth[:, None], known[:, None]).mean()
        queries = self.qformer(self.region_encoder(features))
        query = _label_loss(self.query_head(queries.flatten(1)), truth, known).mean()
        # No gradient from the texts into the queries: in a run with it, the queries did not learn
        # the category of the reference object (docs/tiny_model.md).
        similarity = self.contrast(self.text_encoder(self._sample_prompts()), queries.detach())
        logits = similarity.float() * self.contrast.log_scale.exp() + self.contrast.bias
        text = _label_loss(logits, truth, known).mean()
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
        masks = samples.get(MASKS)
        if masks is not None:  # what lies outside of a mask may be dimmed in the own view
            masked = masks.flatten(1).lt(FULL).any(dim=1)
            kept &= ~(masked[:, None] & (samples["scales"] == 0))[..., None]
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


def shuffle_channels(views: Tensor, chosen: Tensor) -> Tensor:
    """Put the colour channels of some regions in another order, drawn for each of them.

    Args:
        views: (B, V, 3, S, S).
        chosen: (B,) bool, the regions to change.

    Returns:
        (B, V, 3, S, S); all views of a region in the same order.
    """
    orders = torch.tensor([*permutations(range(3))], device=views.device)  # the first changes none
    drawn = torch.randint(1, len(orders), (len(views),), device=views.device)
    order = orders[drawn * chosen]  # (B, 3)
    return views.gather(2, order[:, None, :, None, None].expand_as(views))


def _label_loss(logits: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """Binary cross-entropy summed over the labels that are known: (..., K) -> (...)."""
    losses = F.binary_cross_entropy_with_logits(
        logits.float(), truth.expand_as(logits).float(), reduction="none"
    )
    return (losses * known).sum(dim=-1)
