"""`captioning.llm_options` of the adapters, apart from them: a check reads these without torch."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal, Optional

from pydantic import Field, model_validator

from lavis_dynrefer.settings import Depth, Share, Size, settings


@settings
class LoraOptions:
    """How large the added matrices are and where they go."""

    rank: Size = 64  # inner width of the added product; official
    alpha: Size = 128  # the product is scaled by alpha / rank; official
    dropout: Share = 0.0  # on the input of the added product, training only; official
    # Layers, by the ends of their names; None: the adapter's own.
    targets: Optional[tuple[str, ...]] = None


@settings
class LLMOptions:
    """Where the weights come from and how they are stored."""

    pretrained: Optional[str] = None  # Hugging Face name or folder; None: random, of `config`
    tokenizer: Optional[str] = None  # folder or tokenizer.json; None: that of `pretrained`
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the weights; float16 overflows
    lora: Optional[LoraOptions] = None  # trained on the frozen model; None: no LoRA

    @model_validator(mode="after")
    def _check_source(self) -> "LLMOptions":
        if not (self.pretrained or self.tokenizer):
            raise ValueError("give `pretrained`, or `config` and `tokenizer`")
        return self


@settings
class T5Sizes:
    """Arguments of Hugging Face's T5Config for a T5 with random weights; None: its default."""

    vocab_size: Optional[Size] = None
    d_model: Optional[Size] = None
    d_kv: Optional[Size] = None
    d_ff: Optional[Size] = None
    num_layers: Optional[Depth] = None
    num_decoder_layers: Optional[Depth] = None
    num_heads: Optional[Size] = None
    relative_attention_num_buckets: Optional[Size] = None
    relative_attention_max_distance: Optional[Size] = None
    dropout_rate: Optional[Share] = None
    layer_norm_epsilon: Optional[Share] = None
    initializer_factor: Optional[float] = Field(default=None, ge=0, le=1_000)
    feed_forward_proj: Optional[str] = None
    tie_word_embeddings: bool = False
    pad_token_id: int = Field(default=0, ge=0)
    eos_token_id: int = Field(default=1, ge=0)
    decoder_start_token_id: int = Field(default=0, ge=0)


@settings
class FlanT5Options(LLMOptions):
    """Flan-T5 of any size."""

    # of the weights; int8 takes half of bfloat16's memory, for frozen layers of `pretrained`
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    config: T5Sizes = field(default_factory=T5Sizes)
    # Training: keep the input of each block and compute the rest of it again on the way back
    recompute: bool = False
    # Captions on an NVIDIA GPU: record the step of a token once as a CUDA graph and play it again
    cuda_graphs: bool = True

    @model_validator(mode="after")
    def _check_int8(self) -> "FlanT5Options":
        if self.dtype == "int8" and not self.pretrained:
            raise ValueError(
                "dtype: int8 needs `pretrained`: weights that are trained further, or "
                "come from a checkpoint, cannot be stored in 8 bit"
            )
        return self


@settings
class CausalLMOptions(LLMOptions):
    """A decoder-only model."""

    # `model_type` ("opt", "llama", ...) and arguments of its Hugging Face config
    config: Mapping[str, Any] = field(default_factory=dict)

    @model_validator(mode="after")
    def _check_model_type(self) -> "CausalLMOptions":
        if not (self.pretrained or self.config.get("model_type")):
            raise ValueError("give `pretrained`, or `config` with a `model_type`")
        return self
