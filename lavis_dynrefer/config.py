"""The numbers of the method, each with its bounds and its source.

Defaults are those of the released DynRefer with Flan-T5-XL. "official" means callsys/DynRefer at
2200c5b.
"""

from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any, Literal, NamedTuple, Optional, get_args

from pydantic import Field, model_validator

from lavis_dynrefer.settings import Depth, Factor, Files, Share, Size, settings

# Number formats of answers: what each means is in `models.precision.NumberFormats`.
Dtype = Literal["auto", "released", "float32", "bfloat16", "float16"]
DTYPES: tuple[str, ...] = get_args(Dtype)


class _Widths:
    """Checks that the heads share the width evenly."""

    @model_validator(mode="after")
    def _check_heads(self) -> "_Widths":
        _check_multiple(self, "width", "heads")
        return self


def _check_multiple(numbers: Any, name: str, of: str) -> None:
    value, divisor = getattr(numbers, name), getattr(numbers, of)
    if value % divisor:
        raise ValueError(f"{name}: expected a multiple of {of} {divisor}, got {value}")


@settings
class VisionConfig(_Widths):
    """The EVA vision transformer, without a final norm."""

    image_size: Size = 224  # pixels, EVA-CLIP-g input
    patch_size: Size = 14  # pixels
    width: Size = 1408  # EVA-CLIP-g
    depth: Depth = 39  # BLIP-2 drops the last of 40 blocks
    heads: Size = 16  # 88 channels per head
    mlp_ratio: float = Field(default=4.3637, gt=0, le=100)  # EVA-CLIP-g
    grad_checkpoint: bool = False

    @model_validator(mode="after")
    def _check_patches(self) -> "VisionConfig":
        _check_multiple(self, "image_size", "patch_size")
        return self

    @property
    def grid(self) -> int:
        """Side of the patch grid in patches."""
        return self.image_size // self.patch_size


@settings
class RegionEncoderConfig:
    """RoI-Align, alignment to the region's own view, and fusion of the views."""

    num_views: int = Field(default=3, ge=1, le=100)  # official configs, region + 2 nested views
    roi_size: int = Field(default=16, ge=1, le=1_000)  # cells, the grid of a 224 px view
    sampling_ratio: int = Field(
        default=2, ge=-1, le=100
    )  # official; 0 or less adapts to the region's size
    offset_groups: Size = 4  # official, DCNv4 group
    # "cells": the region's cells count by how much of them is mask; official: masks give boxes only
    masks: Literal["ignore", "cells"] = "ignore"


@settings
class QFormerConfig(_Widths):
    """The querying transformer of BLIP-2 without its text branch."""

    num_queries: Size = 32  # BLIP-2
    width: Size = 768  # bert-base
    depth: Depth = 12  # bert-base
    heads: Size = 12  # bert-base
    mlp_width: Size = 3072  # bert-base
    cross_attention_freq: Depth = 2  # BLIP-2
    dropout: Share = 0.1  # bert-base
    initializer_range: Factor = 0.02  # bert-base; narrow layers need more, about 1 / sqrt(width)


@settings
class TextEncoderConfig(_Widths):
    """The CLIP-style text tower that embeds tags, attributes, categories and captions."""

    width: Size = 768  # EVA-CLIP
    depth: Depth = 12  # EVA-CLIP
    heads: Size = 12  # EVA-CLIP
    embed_dim: Size = 1024  # EVA-CLIP
    context_length: int = Field(default=77, ge=3, le=100_000)  # tokens, CLIP
    tokenizer: str = "clip"  # "clip" (the BPE that comes with LAVIS) or a tokenizer.json


@settings
class QueryDecoderConfig(_Widths):
    """The cross-attention decoder shared in design, not in weights, by tagging and contrast."""

    width: Size = 256  # official, embed_dim
    depth: Depth = 2  # official tag_bert_config.json
    heads: Size = 4  # official tag_bert_config.json
    mlp_width: Size = 1024  # official, hard-coded
    dropout: Share = 0.1  # official


@settings
class TaggingConfig:
    """Tags as text queries."""

    vocabulary: Optional[str] = None  # file with one tag per line
    threshold: Share = 0.7  # official; a tag is kept when strictly above
    decoder: QueryDecoderConfig = field(default_factory=QueryDecoderConfig)


@settings
class ContrastConfig:
    """Region-text contrast; answers attributes and categories."""

    attributes: Optional[str] = None  # default attribute vocabulary, OVAD-style json
    categories: Optional[str] = None  # default category names, one per line
    decoder: QueryDecoderConfig = field(default_factory=QueryDecoderConfig)


@settings
class GenerationConfig:
    """Beam search."""

    num_beams: int = Field(default=2, ge=1, le=1_000)  # official base yaml; the demo uses 5
    max_new_tokens: int = Field(
        default=20, ge=1, le=100_000
    )  # official base yaml; the demo uses 30
    min_length: int = Field(default=1, ge=0, le=100_000)  # tokens, official
    length_penalty: float = Field(default=0.0, ge=-100, le=100)  # official; 0: the score is a sum
    repetition_penalty: float = Field(default=1.5, gt=0)  # official
    # Whose `generate` is followed where `length_penalty` is not 0. From 4.50 on the start token of
    # a sentence that was cut does not count, and a search ends sooner. Official: 4.26.
    length_rule: Literal["transformers-4.26", "transformers-4.50"] = "transformers-4.26"

    @property
    def samples(self) -> bool:
        """Whether tokens are sampled, instead of the best ones sought."""
        return False

    @property
    def kept_beams(self) -> int:
        """How many sentences of a row are answers."""
        return 1


@settings
class CaptionSearch(GenerationConfig):
    """Several sentences of a region: the best of a beam search, or sampled at random."""

    num_captions: Size = 1  # of each region, best first and at most `num_beams`, or as drawn
    # Sample from the likeliest tokens that have this probability together; None: beam search
    top_p: Optional[float] = Field(default=None, ge=0, le=1)
    temperature: float = Field(default=1.0, gt=0)  # divides logits before they are sampled from

    @property
    def samples(self) -> bool:
        """See `GenerationConfig`."""
        return self.top_p is not None

    @property
    def kept_beams(self) -> int:
        """One if tokens are sampled: each sentence then has a row of its own."""
        return 1 if self.samples else self.num_captions

    @model_validator(mode="after")
    def _check_beams(self) -> "CaptionSearch":
        if self.samples and self.num_beams > 1:
            raise ValueError("num_beams: sampling has one beam")
        if self.kept_beams > self.num_beams:
            raise ValueError(
                f"num_captions: expected at most num_beams, {self.num_beams}, "
                f"got {self.num_captions}"
            )
        return self


@settings
class ControlSettings:
    """How training samples control words; of the model, or of one of its datasets."""

    control_drop_all: Share = 0.5  # chance that a caption gets no control words; official
    control_drop: Share = 0.5  # chance that a single control word is dropped; official
    control_pos: Optional[Literal["textblob"]] = "textblob"  # finds noun phrases; None: only tags


@settings
class CaptioningConfig(ControlSettings):
    """The language model and its prompt."""

    llm: str = "flan_t5"  # a module of lavis_dynrefer.models.llms
    llm_options: Mapping[str, Any] = field(default_factory=dict)  # checked by the adapter
    max_text_length: Size = 32  # tokens, targets and control words; official
    steer_by_tags: bool = True  # inference: tags found are control words too; official
    generation: GenerationConfig = field(default_factory=GenerationConfig)


@settings
class ScalePriorConfig:
    """The head of the learned view policy."""

    candidates: tuple[float, ...] = tuple(step / 10 for step in range(1, 11))  # scales, ascending
    width: Size = 128  # of its hidden layers; ours, as all about it
    dropout: Share = 0.2

    @model_validator(mode="after")
    def _check_candidates(self) -> "ScalePriorConfig":
        scales = list(self.candidates)
        if scales != sorted(set(scales)) or not all(0 < scale <= 1 for scale in scales):
            raise ValueError(f"candidates: expected scales in (0, 1] in order, got {scales}")
        return self


@settings
class LossConfig:
    """Weights of the three losses and the constants of the asymmetric one."""

    caption_weight: Factor = 1.0  # official
    tag_weight: Factor = 0.01  # official
    contrast_weight: Factor = 0.5  # official
    gamma_negative: Factor = 7.0  # official
    gamma_positive: Factor = 0.0  # official
    clip: Share = 0.05  # official


@settings
class RegionModelConfig:
    """The parts of every region model; captioning and the losses are added below."""

    vision: VisionConfig = field(default_factory=VisionConfig)
    region: RegionEncoderConfig = field(default_factory=RegionEncoderConfig)
    qformer: QFormerConfig = field(default_factory=QFormerConfig)
    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    tagging: TaggingConfig = field(default_factory=TaggingConfig)
    contrast: ContrastConfig = field(default_factory=ContrastConfig)

    @model_validator(mode="after")
    def _check_offset_groups(self) -> "RegionModelConfig":
        width, groups = self.vision.width, self.region.offset_groups
        if self.region.num_views > 1 and width % groups:  # a single view is not aligned
            raise ValueError(
                f"vision.width: expected a multiple of region.offset_groups {groups}, got {width}"
            )
        return self


@settings
class DynReferConfig(RegionModelConfig):
    """Everything that `models.model_parts.build_parts` needs."""

    captioning: CaptioningConfig = field(default_factory=CaptioningConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    scale_prior: Optional[ScalePriorConfig] = None  # for the view policy "learned"
    trainable: tuple[str, ...] = (  # modules with gradients; official: all that is not pretrained,
        "region_encoder",  # plus the Q-Former without its query tokens
        "qformer.bert",
        "tagging",
        "contrast",
        "captioning.prefix",
    )

    @model_validator(mode="after")
    def _check_scale_prior(self) -> "DynReferConfig":
        views = self.region.num_views
        if self.scale_prior and not 1 < views <= len(self.scale_prior.candidates) + 1:
            raise ValueError(
                f"scale_prior.candidates: region.num_views is {views}, so that the model chooses "
                f"{views - 1} at a time; expected 1 or more, and as many candidates"
            )
        return self


@settings
class PretrainingConfig(RegionModelConfig):
    """Everything that `lab.pretraining` needs."""

    trainable: tuple[str, ...] = ("",)  # modules with gradients; "": all of the model
    recoloured: float = Field(default=0.0, ge=0, le=1)  # share of the regions in other colours


@settings
class PretrainedFiles:
    """Files of frozen weights: paths or URLs; of several files a later one wins."""

    eva_vit: Optional[Files] = None  # eva_vit_g.pth
    blip2: Optional[Files] = None  # query tokens, Q-Former, vision norm
    eva_clip_text: Optional[Files] = None  # eva_clip_psz14.pt
    parts: Optional[Files] = None  # any parts under our own names


@settings
class PublishedFile:
    """A file that can be downloaded."""

    name: str
    size: Optional[int] = None  # bytes; a file of another size is refused
    about: Optional[int] = None  # bytes, where the exact size is not known
    sha256: Optional[str] = None  # hex

    @property
    def bytes(self) -> int:
        """What to expect."""
        return self.size or self.about or 0


@settings
class PublishedPart:
    """Where a part of the model is published, for `dynrefer download`."""

    variable: str  # environment variable that names a file instead
    kept: str = ""  # name of what is kept of the files: a file, or a folder
    about: int = 0  # bytes of that
    at: str = ""  # address of the files, without their names; none: it cannot be downloaded
    files: tuple[PublishedFile, ...] = ()
    page: Optional[str] = None  # where a person finds it


@settings
class ModelFiles:
    """Keys of a `model` section about files; the others are numbers of the model."""

    arch: str = "dynrefer"
    model_type: Optional[str] = None
    load_finetuned: bool = False
    finetuned: Optional[str] = None  # a DynRefer checkpoint, with load_finetuned: true
    load_pretrained: bool = True
    pretrained: Optional[PretrainedFiles] = None
    random_parts: bool = False  # parts without a file get random weights instead of an error
    published: Mapping[str, PublishedPart] = field(default_factory=dict)  # part -> its place


LAVIS_KEYS = tuple(item.name for item in fields(ModelFiles))


class ModelFamily(NamedTuple):
    """A model that LAVIS knows by name.

    Args:
        config: its numbers.
        yamls: type -> default yaml below configs/.
        answers: whether it describes regions, so that it can be evaluated.
    """

    config: type[RegionModelConfig]
    yamls: Mapping[str, str]
    answers: bool = True


MODELS = {
    "dynrefer": ModelFamily(
        DynReferConfig,
        {
            "default": "models/dynrefer_tiny.yaml",
            "tiny": "models/dynrefer_tiny.yaml",
            "flant5xl": "models/dynrefer_flant5xl.yaml",
            "vicuna7b": "models/dynrefer_vicuna7b.yaml",
        },
    ),
    "dynrefer_pretraining": ModelFamily(
        PretrainingConfig,
        dict.fromkeys(("default", "tiny"), "models/dynrefer_pretraining.yaml"),
        answers=False,
    ),
}
