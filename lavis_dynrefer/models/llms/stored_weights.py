"""Products with frozen weights that are stored in another number format than they compute in.

A language model fills most of a small machine's memory. Stored in bfloat16, and mapped from its
file, it takes none of the process's own; stored in 8 bit it is half as large again and each token
reads half as much.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BLOCK = 2**18  # weights cast at once on a CPU: a MiB in float32, which stays in the cache
# Rows up to which torch's product with 8-bit weights is faster on a CPU than casting them.
_FEW_ROWS = 16
_int8_product = getattr(torch, "_weight_int8pack_mm", None)  # torch >= 2.2


class Int8Linear(nn.Module):
    """A frozen linear layer without bias, in 8 bit: whole numbers times one scale per output.

    Args:
        weight: (outputs, inputs).
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        wide = weight.detach().float()
        largest = wide.abs().amax(dim=1)
        # The scale as bfloat16 has it, so that kernels which want it in that format lose nothing;
        # rounded up, for the largest weight must stay within 127.
        scales = (largest / 127 * (1 + 2**-8)).bfloat16().float().clamp(min=2**-60)
        values = (wide / scales[:, None]).round_().to(torch.int8)
        # Not in state dicts: a loader that fills float weights must not fill these.
        self.register_buffer("values", values, persistent=False)
        self.register_buffer("scales", scales, persistent=False)

    def forward(self, states: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs), in the format of `states`."""
        return frozen_product(states, self.values, self.scales)

    def _apply(self, function: Any, *args: Any, **kwargs: Any) -> Int8Linear:
        """As any module; the scales stay in float32."""
        super()._apply(function, *args, **kwargs)
        self.scales = self.scales.float()
        return self


def to_int8(model: nn.Module) -> None:
    """Store the plain linear layers below `model` in 8 bit, LoRA's frozen ones among them."""
    for module in list(model.modules()):
        for name, layer in list(module.named_children()):
            if type(layer) is nn.Linear and layer.bias is None and not layer.weight.requires_grad:
                setattr(module, name, Int8Linear(layer.weight))


def frozen_product(states: Tensor, weight: Tensor, scales: Tensor | None = None) -> Tensor:
    """States (..., inputs) times the rows of weight (outputs, inputs), in the format of `states`.

    Args:
        states: their gradient is computed where it is wanted; that of the weight never is.
        weight: in any format. It is cast for each product, and again for the backward pass: no
            copy outlives the call.
        scales: (outputs,) factors of the outputs; None: none.
    """
    if torch.is_grad_enabled() and states.requires_grad:
        return _FrozenProduct.apply(states, weight, scales)
    return _multiply(states, weight, scales)


class _FrozenProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, scales: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight, scales)
        return _multiply(states, weight, scales)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        weight, scales = ctx.saved_tensors
        if scales is not None:
            gradient = gradient * scales.to(gradient.dtype)
        return gradient @ weight.to(gradient.dtype), None, None


def _multiply(states: Tensor, weight: Tensor, scales: Tensor | None) -> Tensor:
    on_cpu = states.device.type == "cpu"
    rows = states.flatten(0, -2)
    if on_cpu and scales is not None and _int8_product is not None and len(rows) <= _FEW_ROWS:
        half = rows.to(torch.bfloat16).contiguous()
        outputs = _int8_product(half, weight, scales.to(torch.bfloat16)).to(states.dtype)
    else:
        outputs = _in_blocks(rows, weight) if on_cpu else F.linear(rows, weight.to(rows.dtype))
        if scales is not None:
            outputs = outputs * scales.to(outputs.dtype)
    return outputs.unflatten(0, states.shape[:-1])


def _in_blocks(rows: Tensor, weight: Tensor) -> Tensor:
    """The product, casting a few rows of the weight at a time: the cast ones stay in the cache."""
    outputs, inputs = weight.shape
    size = max(1, _BLOCK // inputs)
    cast = rows.new_empty(min(size, outputs), inputs)
    product = rows.new_empty(outputs, len(rows))
    for start in range(0, outputs, size):
        block = weight[start : start + size]
        torch.mm(cast[: len(block)].copy_(block), rows.T, out=product[start : start + size])
    return product.T.contiguous()
