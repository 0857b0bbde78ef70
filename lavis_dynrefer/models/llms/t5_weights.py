"""The weights of T5's decoder as its steps need them: in few products, and in their format."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from lavis_dynrefer.models.llms.t5_layers import product

# Bytes of copies, at most; the decoder of a larger model computes with the weights as they are.
MOST_COPIED = 2**28

Product = Callable[..., Tensor]  # states (N, W) -> (N, outputs), written into `out` if it can be


class BlockProducts:
    """The products of one block of the decoder.

    Layers on the same states are one product, their outputs side by side.

    Args:
        block: a `T5Block` of the decoder.
        make: joins linear layers.
    """

    def __init__(self, block: nn.Module, make: Callable[[Sequence[nn.Module]], Product]) -> None:
        own, cross, inner = block.layer
        self.own_norm, self.cross_norm = own.layer_norm, cross.layer_norm
        own, cross = own.SelfAttention, cross.EncDecAttention
        self.own = make([own.q, own.k, own.v])
        self.own_out = make([own.o])
        self.cross = make([cross.q])
        self.cross_out = make([cross.o])
        self.memory = make([cross.k, cross.v])
        self.inner_norm, inner = inner.layer_norm, inner.DenseReluDense
        self.gated = hasattr(inner, "wi_0")
        self.act = inner.act
        self.inner = make([inner.wi_0, inner.wi_1] if self.gated else [inner.wi])
        self.inner_out = make([inner.wo])

    def activate(self, hidden: Tensor) -> Tensor:
        """Outputs of `inner`, ready for `inner_out`."""
        if not self.gated:
            return self.act(hidden)
        gate, linear = hidden.chunk(2, dim=-1)
        return self.act(gate) * linear


class DecoderProducts:
    """The products of T5's decoder and of its head.

    Weights are copied where that saves products or casts, unless they are large. Copies hold as
    long as `fingerprint` does not change.

    Args:
        model: a `T5ForConditionalGeneration`, with or without LoRA.
        dtype: number format of the products.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self.dtype, self._config = dtype, model.config
        decoder, head = model.get_decoder(), model.get_output_embeddings()
        self.embed, self.last_norm = decoder.embed_tokens, decoder.final_layer_norm
        self.device, self.tokens = self.embed.weight.device, len(self.embed.weight)
        size = torch.empty((), dtype=dtype).element_size()
        self._copying = size * sum(map(_numbers, (decoder, head))) <= MOST_COPIED
        self.inner_width = decoder.block[0].layer[0].SelfAttention.inner_dim
        self.blocks = [BlockProducts(block, self._make) for block in decoder.block]
        self.head = self._make([head])
        # Format of the states, to which every layer adds.
        self.stream = torch.promote_types(self.embed.weight.dtype, dtype)

    @property
    def head_scale(self) -> float | None:
        """Factor of the states before the head; None for 1."""
        return self._config.d_model**-0.5 if self._config.tie_word_embeddings else None

    def _make(self, layers: Sequence[nn.Module]) -> Product:
        plain = all(type(layer) is nn.Linear for layer in layers)
        if plain and self._copying:
            weights = [layer.weight.to(self.dtype) for layer in layers]
            joined = weights[0] if len(layers) == 1 else torch.cat(weights)
            return partial(_multiply, joined.t())
        if plain and len(layers) == 1 and layers[0].weight.dtype == self.dtype:
            return partial(_multiply, layers[0].weight.t())
        return partial(_side_by_side, layers)


def fingerprint(model: nn.Module) -> Hashable:
    """Changes with every write to the decoder that torch counts, and when weights move."""
    parts = (model.get_decoder(), model.get_output_embeddings())
    return tuple(
        (weight.data_ptr(), 0 if weight.is_inference() else weight._version, weight.dtype)
        for part in parts
        for weight in part.parameters()
    )


def _numbers(part: nn.Module) -> int:
    return sum(weight.numel() for weight in part.parameters())


def _multiply(weight: Tensor, states: Tensor, out: Tensor | None = None) -> Tensor:
    return torch.mm(states, weight, out=out)


def _side_by_side(layers: Sequence[nn.Module], states: Tensor, out: Tensor | None = None) -> Tensor:
    products = [product(layer, states) for layer in layers]
    return products[0] if len(layers) == 1 else torch.cat(products, dim=-1, out=out)
