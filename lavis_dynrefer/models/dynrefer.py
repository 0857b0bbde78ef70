"""DynRefer: nested views of a region in; caption, tags, attributes and category out.

The method, in the order data flows: views are encoded by the backbone, the region is cut out of
every view and the views are fused (`region_encoder`), the result is compressed to a few queries
(`qformer`), and three decoders read those: tags, region-text contrast, caption.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from einops import rearrange
from lavis.common.registry import registry
from lavis.models.base_model import BaseModel
from omegaconf import OmegaConf
from torch import Tensor, nn

from lavis_dynrefer.config import (
    CaptioningConfig,
    DynReferConfig,
    GenerationConfig,
    LossConfig,
    from_mapping,
)
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.answering import (
    TASKS,
    Attribute,
    Questions,
    answer,
    questions_to,
    scales_by_task,
)
from lavis_dynrefer.models.assembly import LAVIS_KEYS, build_parts
from lavis_dynrefer.models.decoders.tagging import multi_hot
from lavis_dynrefer.models.llms.lora import lora_parameters
from lavis_dynrefer.models.losses import asymmetric_loss
from lavis_dynrefer.models.region_encoder import ViewFeatures
from lavis_dynrefer.models.texts.text_bank import TextBank
from lavis_dynrefer.models.weights.pretrained import (
    load_sources,
    load_trained,
    unfilled_frozen_parts,
)
from lavis_dynrefer.paths import config_path
from lavis_dynrefer.structures import AttributeInfo, RegionPrediction
from lavis_dynrefer.views.samples import PER_REGION
from lavis_dynrefer.vocab.control_words import (
    control_prompt,
    sample_control_words,
    training_words,
)
from lavis_dynrefer.vocab.pos import build_pos_tagger

logger = logging.getLogger(__name__)


@registry.register_model("dynrefer")
class DynRefer(BaseModel):
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
        caption_config: control-word dropping and beam search.
        trainable: modules that get gradients, by their path from the model.
    """

    PRETRAINED_MODEL_CONFIG_DICT: ClassVar[dict[str, str]] = {
        "default": config_path("models/dynrefer_tiny.yaml"),
        "tiny": config_path("models/dynrefer_tiny.yaml"),
        "flant5xl": config_path("models/dynrefer_flant5xl.yaml"),
        "vicuna7b": config_path("models/dynrefer_vicuna7b.yaml"),
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
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.region_encoder = region_encoder
        self.qformer = qformer
        self.text_encoder = text_encoder
        self.tagging = tagging
        self.contrast = contrast
        self.captioning = captioning
        self.attributes = tuple(attributes)
        self.categories = tuple(categories)
        self.losses = losses
        self.caption_config = caption_config
        self.embed_texts = TextBank(text_encoder)
        self.filled: set[str] = set()  # tensors that came from files of pretrained parts
        self._set_trainable(trainable)

    def _set_trainable(self, names: Sequence[str]) -> None:
        self.requires_grad_(False)
        modules = dict(self.named_modules())
        for name in names:
            if name not in modules:
                raise InputError(
                    f"trainable: no module {name!r}; there are "
                    f"{[child for child, _ in self.named_children()]} and their parts"
                )
            modules[name].requires_grad_(True)
        for parameter in lora_parameters(self):  # low-rank additions are there to be trained
            parameter.requires_grad_(True)

    @classmethod
    def default_config_path(cls, model_type: str | None) -> str:
        """Yaml of a model type; None means the embedded model."""
        known = cls.PRETRAINED_MODEL_CONFIG_DICT
        if (model_type or "default") not in known:
            raise InputError(f"dynrefer has no model type {model_type!r}; there are {list(known)}")
        return known[model_type or "default"]

    @classmethod
    def from_config(cls, cfg: Any) -> DynRefer:
        """Build from the `model` section of a LAVIS config and load its weights.

        `pretrained` names the files of parts that come from elsewhere, see `models.sources`;
        `finetuned` is a checkpoint of ours or an official one.

        Raises:
            ValueError: an unknown key or a value of the wrong kind.
            FileNotFoundError: a file the config names that is not there.
            CheckpointError: weights that do not fit.
        """
        values = OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg
        own = {key: value for key, value in values.items() if key not in LAVIS_KEYS}
        config = from_mapping(DynReferConfig, own, where="model")
        model = cls(
            **build_parts(config),
            losses=config.losses,
            caption_config=config.captioning,
            trainable=config.trainable,
        )
        model.filled = load_sources(model, values.get("pretrained") or {})
        if values.get("load_finetuned", False):
            model.load_checkpoint(values.get("finetuned"))
        random_parts = unfilled_frozen_parts(model, model.filled)
        if random_parts:
            logger.warning(
                "Frozen with random weights: %s. Name their files in model.pretrained.",
                ", ".join(random_parts),
            )
        return model

    def load_checkpoint(self, url_or_filename: str) -> None:
        """Fill the model from a file in our names or the official ones.

        Frozen parts may be missing where `pretrained` files filled them.

        Raises:
            FileNotFoundError: the file is not there.
            CheckpointError: names or shapes differ from the model's.
        """
        if not url_or_filename:
            raise InputError(
                "model.finetuned: name a checkpoint, or set model.load_finetuned: false to start "
                "from random weights"
            )
        report = load_trained(self, url_or_filename, filled=self.filled)
        self.filled.update(report.loaded)

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

    def encode_views(self, views: Tensor, boxes: Tensor) -> ViewFeatures:
        """Encode every view once.

        Args:
            views: (B, V, 3, S, S) uint8, or floats already normalised.
            boxes: (B, V, 4) the region in pixels of each view.
        """
        trained = torch.is_grad_enabled() and any(
            parameter.requires_grad for parameter in self.backbone.parameters()
        )
        with torch.set_grad_enabled(trained):
            tokens = self.backbone(rearrange(views, "b v c h w -> (b v) c h w"))
        tokens = rearrange(tokens, "(b v) n c -> b v n c", b=len(views))
        return self.region_encoder.crop(tokens, boxes)

    def encode_regions(self, features: ViewFeatures, route: Tensor | None = None) -> Tensor:
        """Queries (B, Q, D) from all views, or from those in `route` (B, n)."""
        chosen = features if route is None else features.select(route)
        return self.qformer(self.region_encoder(chosen))

    def forward(self, samples: Mapping[str, Any]) -> dict[str, Tensor]:
        """Training losses.

        Args:
            samples: views (B, V, 3, S, S), boxes (B, V, 4), captions: B texts, tags: B lists of
                tag names; optionally controls: B control prompts (else sampled from the caption's
                tags and noun phrases).

        Returns:
            "loss" and its weighted parts "loss_caption", "loss_tag", "loss_contrast".
        """
        queries = self.encode_regions(self.encode_views(samples["views"], samples["boxes"]))
        return self.losses_of(
            queries, samples["captions"], samples["tags"], controls=samples.get("controls")
        )

    def losses_of(
        self,
        queries: Tensor,
        captions: Sequence[str],
        tags: Sequence[Sequence[str]],
        *,
        controls: Sequence[str] | None = None,
    ) -> dict[str, Tensor]:
        """The losses of `forward` from queries (B, Q, D), for those who have encoded the views."""
        controls = controls or self._sample_controls(captions, tags)
        weights = self.losses
        caption = self.captioning.loss(queries, controls, captions)
        tag = asymmetric_loss(
            self.tagging(self.embed_texts(self.tagging.tags), queries),
            multi_hot(tags, self.tagging.tags).to(queries.device),
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

    def _sample_controls(self, captions: Sequence[str], tags: Sequence[Sequence[str]]) -> list[str]:
        # A seed from torch's generator: one seed then governs a whole training run.
        rng = random.Random(int(torch.randint(2**31, ())))
        config = self.caption_config
        pos = build_pos_tagger(config.control_pos) if config.control_pos else None
        return [
            control_prompt(
                sample_control_words(
                    training_words(caption, names, pos),
                    rng=rng,
                    drop_all=config.control_drop_all,
                    drop=config.control_drop,
                )
            )
            for caption, names in zip(captions, tags)
        ]

    @torch.no_grad()
    def predict(
        self,
        samples: Mapping[str, Any],
        *,
        attributes: Sequence[Attribute] | None = None,
        categories: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
        controls: Sequence[Sequence[str]] | None = None,
        tasks: Sequence[str] = TASKS,
        generation: GenerationConfig | None = None,
        chunk: int = 64,
    ) -> list[RegionPrediction]:
        """Describe regions.

        Args:
            samples: what the processor returns: views (B, V, 3, S, S), boxes (B, V, 4), scales
                (B, V), image_boxes (B, 4) and, where tasks use different views, routes: task ->
                (B, n) indices into V.
            attributes: vocabulary; None means the model's own.
            categories: vocabulary; None means the model's own.
            tags: vocabulary; None means the model's own. Those found steer the captions.
            controls: words the captions should be about, per region.
            tasks: which questions to answer, out of "caption", "tags", "attributes", "categories".
            generation: beam search settings; None means the config's.
            chunk: regions encoded at once.

        Returns:
            One prediction per region, in order.

        Raises:
            ValueError: an unknown task, lists that hold no words, or controls of another length.
        """
        total = len(samples["views"])
        if controls is not None and len(controls) != total:
            raise InputError(f"controls: expected {total} lists, one a region, got {len(controls)}")
        questions = questions_to(
            self,
            tasks=tasks,
            attributes=attributes,
            categories=categories,
            tags=tags,
            generation=generation,
        )
        words = [()] * total if controls is None else controls
        if any(isinstance(item, str) for item in words):
            raise InputError("controls: expected a list of words per region, got a string")
        predictions: list[RegionPrediction] = []
        training = self.training
        if training:
            self.eval()  # dropout would make answers random
        try:
            for start in range(0, total, chunk):
                rows = slice(start, start + chunk)
                part = {key: samples[key][rows] for key in PER_REGION}
                routes = {task: way[rows] for task, way in (samples.get("routes") or {}).items()}
                predictions += self._predict_chunk(part, routes, questions, words[rows])
        finally:
            if training:
                self.train()
        return predictions

    def _predict_chunk(
        self,
        samples: Mapping[str, Any],
        routes: Mapping[str, Tensor],
        questions: Questions,
        controls: Sequence[Sequence[str]],
    ) -> list[RegionPrediction]:
        device = self.device
        features = self.encode_views(samples["views"].to(device), samples["boxes"].to(device))
        return self.answer_regions(features, samples, routes, questions, controls)

    def answer_regions(
        self,
        features: ViewFeatures,
        samples: Mapping[str, Any],
        routes: Mapping[str, Tensor],
        questions: Questions,
        controls: Sequence[Sequence[str]],
    ) -> list[RegionPrediction]:
        """Answers for regions whose views are encoded.

        Args:
            features: what `encode_views` gave.
            samples: scales (B, V) and image_boxes (B, 4) of the same regions.
            routes: task -> (B, n) indices into V; a task without a route uses all views.
            questions: what to answer.
            controls: words the captions should be about, per region.
        """
        queries = self._queries_by_task(features, routes, questions.read_by_decoders())
        answers = answer(self, queries, questions, controls)
        scales = scales_by_task(samples["scales"], routes, questions.tasks)
        boxes = samples["image_boxes"].tolist()
        return [
            RegionPrediction(
                box=tuple(boxes[row]),
                scales=scales[row],
                **{name: values[row] for name, values in answers.items()},
            )
            for row in range(len(boxes))
        ]

    def _queries_by_task(
        self, features: ViewFeatures, routes: Mapping[str, Tensor], tasks: Iterable[str]
    ) -> dict[str, Tensor]:
        """Queries per task; tasks that share a route share the work."""
        done: dict[tuple[Any, ...], Tensor] = {}
        queries = {}
        for task in tasks:
            route = routes.get(task)
            key = () if route is None else tuple(route.flatten().tolist())
            if key not in done:
                done[key] = self.encode_regions(features, route)
            queries[task] = done[key]
        return queries
