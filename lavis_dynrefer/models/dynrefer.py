"""DynRefer: nested views of a region in; caption, tags, attributes and category out.

The method, in the order data flows: views are encoded by the backbone, the region is pooled from
every view and the views are fused (`region_encoder`), the result is compressed to a few queries
(`qformer`), and three decoders read those: tags, region-text contrast, caption. `forward` computes
the losses; `answering` turns queries into answers.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import lavis  # noqa: F401  first, for threads
import torch
from einops import rearrange
from lavis.common.registry import registry
from lavis.models.base_model import BaseModel
from omegaconf import OmegaConf
from torch import Tensor, nn

from lavis_dynrefer.config import (
    LAVIS_KEYS,
    MODELS,
    CaptioningConfig,
    DynReferConfig,
    LossConfig,
)
from lavis_dynrefer.errors import InputError, choice_problem
from lavis_dynrefer.models.answering import Answerer
from lavis_dynrefer.models.choosing.prior_training import examples_of, prior_losses
from lavis_dynrefer.models.choosing.scale_losses import ScaleLosses
from lavis_dynrefer.models.choosing.scale_prior import ScalePrior
from lavis_dynrefer.models.decoders.tagging import multi_hot
from lavis_dynrefer.models.device_errors import FittingSize
from lavis_dynrefer.models.lavis_calls.caption_call import CaptionCall
from lavis_dynrefer.models.lavis_calls.feature_call import FeatureCall
from lavis_dynrefer.models.lavis_calls.format_calls import FormatCalls
from lavis_dynrefer.models.losses import asymmetric_loss
from lavis_dynrefer.models.model_parts import (
    build_parts,
    check_has_values,
    fill_at_random,
    set_trainable,
)
from lavis_dynrefer.models.precision import active_autocast, formats_on, without_gradients
from lavis_dynrefer.models.probabilities.calibration import Calibration
from lavis_dynrefer.models.region_encoder import ViewFeatures
from lavis_dynrefer.models.texts.text_bank import TextBank
from lavis_dynrefer.models.vision.view_cache import ViewCache
from lavis_dynrefer.models.weights.places import resolve_files
from lavis_dynrefer.models.weights.pretrained import (
    check_filled,
    fill_trained,
    load_sources,
    read_trained,
)
from lavis_dynrefer.models.weights.weight_checks import checked_files
from lavis_dynrefer.paths import config_path
from lavis_dynrefer.questions import Questions
from lavis_dynrefer.settings import from_mapping
from lavis_dynrefer.structures import AttributeInfo, RegionPrediction
from lavis_dynrefer.views.samples import CHOICE, regions_of

TRAINING_KEYS = ("views", "boxes", "captions", "tags", "controls")

logger = logging.getLogger(__name__)


@registry.register_model("dynrefer")
class DynRefer(CaptionCall, FeatureCall, FormatCalls, BaseModel):
    """The whole model; every part can be built, replaced and tested on its own.

    Args:
        backbone: views (M, 3, S, S) -> tokens (M, N, C).
        region_encoder: tokens and boxes of V views -> region tokens.
        qformer: region tokens -> queries (B, Q, D).
        text_encoder: texts -> embeddings (K, E).
        tagging: queries -> tag logits.
        contrast: queries and texts -> logits.
        captioning: queries and control words -> sentence.
        attributes: vocabulary answered when the caller names none.
        categories: vocabulary answered when the caller names none.
        losses: weights of the three losses.
        caption_config: beam search, and whether tags steer captions.
        trainable: modules that get gradients, by their path from the model.
        scale_prior: chooses views for the view policy "learned".
    """

    PRETRAINED_MODEL_CONFIG_DICT: ClassVar[dict[str, str]] = {
        name: config_path(yaml) for name, yaml in MODELS["dynrefer"].yamls.items()
    }

    def __init__(
        self,
        *,
        backbone: nn.Module,
        region_encoder: nn.Module,
        qformer: nn.Module,
        text_encoder: nn.Module,
        tagging: nn.Module,
        contrast: nn.Module,
        captioning: nn.Module,
        attributes: Sequence[AttributeInfo] = (),
        categories: Sequence[str] = (),
        losses: LossConfig = LossConfig(),  # noqa: B008  frozen
        caption_config: CaptioningConfig = CaptioningConfig(),  # noqa: B008  frozen
        trainable: Sequence[str] = DynReferConfig().trainable,
        scale_prior: ScalePrior | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.region_encoder = region_encoder
        self.qformer = qformer
        self.text_encoder = text_encoder
        self.tagging = tagging
        self.contrast = contrast
        self.captioning = captioning
        self.scale_prior = scale_prior
        self.attributes = tuple(attributes)
        self.categories = tuple(categories)
        self.losses = losses
        self.caption_config = caption_config
        self.calibration = Calibration()
        self.embed_texts = TextBank(text_encoder)
        self.view_cache: ViewCache | None = None  # of training; a run sets it
        self.scale_losses: ScaleLosses | None = None  # of training, too
        self.filled: set[str] = set()  # tensors that came from files of pretrained parts
        self._fitting = FittingSize()
        set_trainable(self, trainable)

    def forward(self, samples: Mapping[str, Any]) -> dict[str, Tensor]:
        """Training losses.

        Args:
            samples: views (B, V, 3, S, S); boxes (B, V, 4), the region in pixels of each view;
                masks (B, G, G), if any are used; captions: B texts; tags: B lists of indices into
                the model's tag list; controls: B control prompts.

        Returns:
            "loss" and its weighted parts "loss_caption", "loss_tag", "loss_contrast"; of samples
            with a choice those of `prior_losses`, which train `scale_prior` alone.

        Raises:
            InputError: no training batch, or views that the model does not take.
        """
        missing = [key for key in TRAINING_KEYS if key not in samples]
        if missing:
            raise InputError(
                f"the losses need {list(TRAINING_KEYS)}, as the split train of a dataset gives "
                f"them; {missing} are missing"
            )
        self.region_encoder.check_views(samples)
        if CHOICE in samples:
            return self._prior_losses(samples)
        masks = self.region_encoder.masks_of(samples)
        queries = self.region_queries(self.encode_views(samples["views"], samples["boxes"], masks))
        told = self.scale_losses
        if told is not None and self.training and told.is_due():
            with torch.no_grad():
                captions, controls = samples["captions"], samples["controls"]
                told.add(samples["scales"], self.captioning.losses(queries, controls, captions))
        return self.losses_of(queries, samples["captions"], samples["tags"], samples["controls"])

    def _prior_losses(self, samples: Mapping[str, Any]) -> dict[str, Tensor]:
        prior = self.scale_prior
        trained = {name.split(".")[0] for name, one in self.named_parameters() if one.requires_grad}
        if prior is None or trained != {"scale_prior"}:
            raise InputError(
                "vis_processor.train.policy: views that the model chooses are for training its "
                "scale_prior: set model.scale_prior and model.trainable: [scale_prior], or "
                "another policy"
            )
        with self.answering(samples) as (answerer, sample):  # without dropout
            inputs, costs = examples_of(answerer, prior, sample)
        prior.steps += 1
        return prior_losses(prior(*inputs), costs)

    def losses_of(
        self,
        queries: Tensor,
        captions: Sequence[str],
        tags: Sequence[Sequence[int]],
        controls: Sequence[str],
    ) -> dict[str, Tensor]:
        """The losses of `forward` from queries (B, Q, D); training ends a calibration."""
        if torch.is_grad_enabled():
            self.calibration.forget()
        weights = self.losses
        caption = self.captioning.loss(queries, controls, captions)
        tag = asymmetric_loss(
            self.tagging(self.embed_texts(self.tagging.tags), queries),
            multi_hot(tags, len(self.tagging.tags)).to(queries.device),
            gamma_negative=weights.gamma_negative,
            gamma_positive=weights.gamma_positive,
            clip=weights.clip,
        )
        contrast = self.contrast.loss(self.embed_texts(captions, keep=False), queries)
        parts = {
            "loss_caption": weights.caption_weight * caption,
            "loss_tag": weights.tag_weight * tag,
            "loss_contrast": weights.contrast_weight * contrast,
        }
        return {"loss": sum(parts.values()), **parts}

    def encode_views(
        self, views: Tensor, boxes: Tensor, masks: Tensor | None = None
    ) -> ViewFeatures:
        """Encode every view once.

        Args:
            views: (B, V, 3, S, S) uint8, or floats already normalised.
            boxes: (B, V, 4) the region in pixels of each view.
            masks: (B, G, G) uint8 if they are to be used, see `RegionEncoder.pool`.
        """
        trained = torch.is_grad_enabled() and any(
            parameter.requires_grad for parameter in self.backbone.parameters()
        )
        flat = rearrange(views, "b v c h w -> (b v) c h w")
        with torch.set_grad_enabled(trained):
            if self.view_cache is not None and self.training and not trained:
                tokens = self.view_cache.encode(self.backbone, flat)
            else:
                tokens = self.backbone(flat)
        tokens = rearrange(tokens, "(b v) n c -> b v n c", b=len(views))
        return self.region_encoder.pool(tokens, boxes, masks)

    def region_queries(self, features: ViewFeatures, route: Tensor | None = None) -> Tensor:
        """Queries (B, Q, D) from all views, or from those in `route` (B, n)."""
        chosen = features if route is None else features.select(route)
        return self.qformer(self.region_encoder(chosen))

    def predict(
        self,
        samples: Mapping[str, Any],
        *,
        questions: Questions | None = None,
        chunk: int = 64,
        dtype: str = "auto",
        **asked: Any,
    ) -> list[RegionPrediction]:
        """Describe regions.

        Args:
            samples: what the view processor returns: views (B, V, 3, S, S), boxes (B, V, 4), scales
                (B, V), image_boxes (B, 4) and, where tasks use different views, routes: task ->
                (B, n) indices into V; by itself, or as in LAVIS under "image".
            questions: what to answer; or name the fields of `Questions` as keyword arguments.
            chunk: regions encoded at once; half as many where the memory does not suffice.
            dtype: number formats, see `models.precision.NumberFormats`; "auto" leaves them to an
                autocast that the caller has entered, or else chooses by the device.

        Returns:
            One prediction per region, in order.

        Raises:
            InputError: see `Questions`; views that the model does not take; or the device lacks a
                number format.
            TooLittleMemoryError: the memory does not suffice for one region.
        """
        questions = Questions.from_arguments(questions, **asked)
        answering = self.answering(samples, dtype, questions.masks_as)
        with answering as (answerer, sample), without_gradients(self.device):
            return answerer.answer_in_parts(sample, questions, chunk)

    @contextmanager
    def answering(
        self, samples: Mapping[str, Any], dtype: str = "auto", masks_as: str | None = None
    ) -> Iterator[tuple[Answerer, Mapping[str, Any]]]:
        """Answer in eval mode: dropout would make answers random.

        Args:
            samples: see `predict`.
            dtype: see `predict`.
            masks_as: see `Questions`.

        Returns:
            What answers, and the checked regions among the samples.
        """
        sample = regions_of(samples)
        self.region_encoder.check_views(sample)
        sample = self.region_encoder.with_masks_as(masks_as, sample)
        own = dtype != "auto" or active_autocast(self.device) is None
        answerer = Answerer(self, formats_on(dtype, self.device) if own else None, self._fitting)
        training = self.training
        if training:
            self.eval()
        try:
            yield answerer, sample
        finally:
            if training:
                self.train()

    def train(self, mode: bool = True) -> DynRefer:
        """Switch modes; a frozen backbone always stays in eval mode."""
        super().train(mode)
        self.embed_texts.clear()
        if not any(parameter.requires_grad for parameter in self.backbone.parameters()):
            self.backbone.eval()
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are; LAVIS lists all of them each time it is asked."""
        return next(self.parameters()).device

    @property
    def tag_names(self) -> tuple[str, ...]:
        """The tag list; `tags` of a training batch are indices into it."""
        return self.tagging.tags

    @classmethod
    def default_config_path(cls, model_type: str | None = None) -> str:
        """Yaml of a model type; None means the embedded model."""
        known = cls.PRETRAINED_MODEL_CONFIG_DICT
        problem = choice_problem("model type", model_type or "default", known)
        if problem is not None:
            raise InputError(problem)
        return known[model_type or "default"]

    @classmethod
    def from_config(cls, cfg: Any) -> DynRefer:
        """Build from the `model` section of a LAVIS config and load its weights.

        `pretrained` names the files of parts that come from elsewhere, see `weights.pretrained`;
        `finetuned` is a checkpoint of ours or an official one.

        Raises:
            InputError: an unknown key or an invalid value.
            MissingFileError: a file that the config names does not exist, or one that it leaves to
                us ("auto") is not here; see `weights.places.resolve_files`.
            CheckpointError: weights that do not fit.
        """
        values = checked_files(_plain(cfg))
        own = {key: value for key, value in values.items() if key not in LAVIS_KEYS}
        config = from_mapping(DynReferConfig, own, where="model")
        model = cls(
            **build_parts(config, empty=True),
            losses=config.losses,
            caption_config=config.captioning,
            trainable=config.trainable,
        )
        model._load_files(values)
        check_filled(
            model,
            model.filled,
            random_parts=bool(values.get("random_parts", False)),
            from_scratch=not values.get("load_finetuned", False),
        )
        fill_at_random(model, config)
        check_has_values(model)
        return model

    def load_checkpoint_from_config(self, cfg: Any, **further: Any) -> None:
        """Fill parts of the model again from the files that a `model` section, or a part, names.

        As in LAVIS a checkpoint is loaded unless `load_finetuned` is false.

        Raises:
            MissingFileError, CheckpointError: see `from_config`.
        """
        del further
        self._load_files(resolve_files({"load_finetuned": True, **_plain(cfg)}))

    def _load_files(self, values: Mapping[str, Any]) -> None:
        self.filled.update(load_sources(self, values.get("pretrained") or {}))
        if values.get("load_finetuned", False):
            self.load_checkpoint(values.get("finetuned"))

    def load_checkpoint(self, url_or_filename: str | os.PathLike[str]) -> None:
        """Fill the model from a file in our names or the official ones.

        Frozen parts may be missing where `pretrained` files filled them.

        Raises:
            MissingFileError: the file does not exist.
            CheckpointError: names or shapes differ from the model's.
        """
        if not url_or_filename:
            raise InputError(
                "model.finetuned: name a checkpoint, or set model.load_finetuned: false to start "
                "from random weights"
            )
        name = os.fspath(url_or_filename)
        weights = read_trained([name], key="model.finetuned")
        report = fill_trained(self, weights, source=name)
        self.filled.update(report.loaded)


def _plain(cfg: Any) -> dict[str, Any]:
    """A section of a LAVIS config as a plain mapping."""
    values: Any = OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg
    return dict(values)
