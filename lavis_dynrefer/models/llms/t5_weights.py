"""The weights of T5's decoder as its steps need them: in few products, and in their format."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor, nn

from lavis_dynrefer.models.llms.t5_building import head_scale
from lavis_dynrefer.models.llms.t5_layers import product

# Bytes of copies, at most; a larger decoder computes with the weights as they are stored.
MOST_COPIED = 2**28
# Types of devices on which weights may be moved in memory; on a CPU they may be a mapped file.
MOVABLE = ("cuda",)


class Product:
    """Linear layers on the same states, their outputs side by side.

    Args:
        layers: without bias.
        weight: (outputs, W) of all layers in the format of the states; None: each layer computes
            for itself.
    """

    def __init__(self, layers: Sequence[nn.Module], weight: Tensor | None) -> None:
        self._layers = layers
        self._weight = None if weight is None else weight.t()

    def __call__(self, states: Tensor, out: Tensor | None = None) -> Tensor:
        """States (N, W) to (N, outputs), in `out` if that is given and can be."""
        if self._weight is not None:
            return torch.mm(states, self._weight, out=out)
        products = [product(layer, states) for layer in self._layers]
        return products[0] if len(products) == 1 else torch.cat(products, dim=-1, out=out)

    def add_to(self, sums: Tensor, states: Tensor) -> None:
        """Add the product of states (N, W) to sums (N, outputs)."""
        if self._weight is not None and sums.dtype == states.dtype:
            sums.addmm_(states, self._weight)
        else:
            sums.add_(self(states))


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

    Small weights are copied where that saves products or casts; on a GPU those of layers that
    become one product are put side by side. Both hold as long as `fingerprint` does not change.

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
        return head_scale(self._config)

    def _make(self, layers: Sequence[nn.Module]) -> Product:
        if any(type(layer) is not nn.Linear for layer in layers):
            return Product(layers, None)
        weights = [layer.weight for layer in layers]
        stored = all(weight.dtype == self.dtype for weight in weights)
        if stored and len(weights) == 1:
            return Product(layers, weights[0])
        if self._copying:
            return Product(layers, torch.cat([weight.to(self.dtype) for weight in weights]))
        frozen = not any(weight.requires_grad for weight in weights)
        if stored and frozen and self.device.type in MOVABLE:
            return Product(layers, side_by_side(weights))
        return Product(layers, None)


def side_by_side(weights: Sequence[nn.Parameter]) -> Tensor:
    """One weight (outputs, W) that holds those of several layers, which become views of it."""
    first, place = weights[0], weights[0].storage_offset()
    together = True
    for weight in weights:
        # Of storages without values, too: they have no address.
        same = weight.untyped_storage()._cdata == first.untyped_storage()._cdata
        together &= same and weight.is_contiguous() and weight.storage_offset() == place
        place += weight.numel()
    rows = [len(weight) for weight in weights]
    if together:
        return first.detach().as_strided((sum(rows), first.shape[1]), first.stride())
    joined = torch.cat([weight.detach() for weight in weights])
    for weight, part in zip(weights, joined.split(rows)):
        weight.data = part
    return joined


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
