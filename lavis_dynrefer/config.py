"""The numbers of the method as frozen dataclasses, read strictly from any mapping.

Defaults are those of the released DynRefer with Flan-T5-XL; the source stands beside each number.
"official" means callsys/DynRefer at 2200c5b.
"""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional, TypeVar

from lavis_dynrefer.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class VisionConfig:
    """The EVA vision transformer, without a final norm."""

    image_size: int = 224  # pixels, EVA-CLIP-g input
    patch_size: int = 14  # pixels
    width: int = 1408  # EVA-CLIP-g
    depth: int = 39  # BLIP-2 drops the last of 40 blocks
    heads: int = 16  # 88 channels per head
    mlp_ratio: float = 4.3637  # EVA-CLIP-g
    grad_checkpoint: bool = False

    @property
    def grid(self) -> int:
        """Side of the patch grid in patches."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class RegionEncoderConfig:
    """RoI-Align, alignment to the region's own view, and fusion of the views."""

    num_views: int = 3  # official configs, region + 2 nested views
    roi_size: int = 16  # cells, the grid of a 224 px view
    sampling_ratio: int = 2  # official
    offset_groups: int = 4  # official, DCNv4 group


@dataclass(frozen=True)
class QFormerConfig:
    """The querying transformer of BLIP-2, its text branch left out."""

    num_queries: int = 32  # BLIP-2
    width: int = 768  # bert-base
    depth: int = 12  # bert-base
    heads: int = 12  # bert-base
    mlp_width: int = 3072  # bert-base
    cross_attention_freq: int = 2  # BLIP-2
    dropout: float = 0.1  # bert-base
    initializer_range: float = 0.02  # bert-base; narrow layers need more, about 1 / sqrt(width)


@dataclass(frozen=True)
class TextEncoderConfig:
    """The CLIP-style text tower that embeds tags, attributes, categories and captions."""

    width: int = 768  # EVA-CLIP
    depth: int = 12  # EVA-CLIP
    heads: int = 12  # EVA-CLIP
    embed_dim: int = 1024  # EVA-CLIP
    context_length: int = 77  # CLIP
    tokenizer: str = "clip"  # "clip" (the BPE that comes with LAVIS) or a tokenizer.json


@dataclass(frozen=True)
class QueryDecoderConfig:
    """The cross-attention decoder shared in design, not in weights, by tagging and contrast."""

    width: int = 256  # official, embed_dim
    depth: int = 2  # official tag_bert_config.json
    heads: int = 4  # official tag_bert_config.json
    mlp_width: int = 1024  # official, hard-coded
    dropout: float = 0.1  # official


@dataclass(frozen=True)
class TaggingConfig:
    """Tags as text queries."""

    vocabulary: Optional[str] = None  # file with one tag per line
    threshold: float = 0.7  # official; a tag is kept when strictly above
    decoder: QueryDecoderConfig = field(default_factory=QueryDecoderConfig)


@dataclass(frozen=True)
class ContrastConfig:
    """Region-text contrast; answers attributes and categories."""

    attributes: Optional[str] = None  # default attribute vocabulary, OVAD-style json
    categories: Optional[str] = None  # default category names, one per line
    decoder: QueryDecoderConfig = field(default_factory=QueryDecoderConfig)


@dataclass(frozen=True)
class GenerationConfig:
    """Beam search."""

    num_beams: int = 2  # official base yaml; the demo uses 5
    max_new_tokens: int = 20  # official base yaml; the demo uses 30
    min_length: int = 1  # official
    length_penalty: float = 0.0  # official yaml; the score is then a sum, not a mean
    repetition_penalty: float = 1.5  # official


@dataclass(frozen=True)
class CaptioningConfig:
    """The language model and its prompt."""

    llm: str = "flan_t5"  # a module of lavis_dynrefer.models.llms
    llm_options: Mapping[str, Any] = field(default_factory=dict)  # handed to the adapter as is
    max_text_length: int = 32  # tokens, targets and control words; official
    control_drop_all: float = 0.5  # training: chance that a caption gets no control words; official
    control_drop: float = 0.5  # training: chance that a single control word is dropped; official
    control_pos: Optional[str] = "textblob"  # training: finds noun phrases; None: only tags
    steer_by_tags: bool = True  # inference: the tags found are control words, too; official
    generation: GenerationConfig = field(default_factory=GenerationConfig)


@dataclass(frozen=True)
class LossConfig:
    """Weights of the three losses and the constants of the asymmetric one."""

    caption_weight: float = 1.0  # official
    tag_weight: float = 0.01  # official
    contrast_weight: float = 0.5  # official
    gamma_negative: float = 7.0  # official
    gamma_positive: float = 0.0  # official
    clip: float = 0.05  # official


@dataclass(frozen=True)
class DynReferConfig:
    """Everything `build_dynrefer` needs."""

    vision: VisionConfig = field(default_factory=VisionConfig)
    region: RegionEncoderConfig = field(default_factory=RegionEncoderConfig)
    qformer: QFormerConfig = field(default_factory=QFormerConfig)
    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    tagging: TaggingConfig = field(default_factory=TaggingConfig)
    contrast: ContrastConfig = field(default_factory=ContrastConfig)
    captioning: CaptioningConfig = field(default_factory=CaptioningConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    trainable: tuple[str, ...] = (  # modules with gradients; official: all that is not pretrained,
        "region_encoder",  # plus the Q-Former without its query tokens
        "qformer.bert",
        "tagging",
        "contrast",
        "captioning.prefix",
    )


def from_mapping(cls: type[T], values: Mapping[str, Any], *, where: str = "") -> T:
    """Build the dataclass `cls` from a mapping, refusing every key it does not have.

    Args:
        cls: a dataclass of this module, or one shaped like it.
        values: plain nested mapping, e.g. `OmegaConf.to_container(node, resolve=True)`.
        where: name of the place the mapping came from, for the error text.

    Raises:
        ValueError: an unknown key, or a value of the wrong type; names the key and the choices.

    >>> from_mapping(VisionConfig, {"image_size": 64, "patch_size": 8}).grid
    8
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{where or cls.__name__}: expected a mapping, got {values!r}")
    hints = typing.get_type_hints(cls)
    known = [item.name for item in dataclasses.fields(cls)]  # type: ignore[arg-type]
    unknown = sorted(str(key) for key in values if key not in known)
    if unknown:
        raise InputError(f"{where or cls.__name__}: unknown {unknown}; expected some of {known}")
    return cls(
        **{
            key: _convert(hints[key], value, f"{where or cls.__name__}.{key}")
            for key, value in values.items()
        }
    )


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_mapping(hint, value, where=where)  # type: ignore[arg-type]
    origin = typing.get_origin(hint)
    if origin is typing.Union:
        return None if value is None else _convert(typing.get_args(hint)[0], value, where)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            raise InputError(f"{where}: expected a list, got {value!r}")
        inner = typing.get_args(hint)[0]
        return tuple(_convert(inner, item, where) for item in value)
    if origin is not None:  # Mapping[str, Any]
        return _checked(value, Mapping, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return _checked(value, hint, where)


def _checked(value: Any, kind: Any, where: str) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(f"{where}: expected {kind.__name__}, got {value!r}")
    return value
