"""Products with frozen weights that are stored in another number format than they compute in.

A language model fills most of a small machine's memory. Stored in bfloat16 and mapped from its
file, it takes none of the process's own. Stored in 8 bit it is half as large, and a token reads
half as much; it no longer has a file to be mapped from.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BLOCK = 2**18  # weights cast at once on a CPU: a MiB in float32, which stays in the cache
# Rows up to which torch's product with 8-bit weights is faster on a CPU than casting them.
_FEW_ROWS = 16
_KERNEL_MULTIPLE = 64  # of inputs and outputs: torch's product reads beyond the ends of others


class Int8Linear(nn.Module):
    """A frozen linear layer without bias, in 8 bit: whole numbers times one scale per output.

    Args:
        weight: (outputs, inputs).
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        values = torch.empty_like(weight, dtype=torch.int8)
        scales = torch.empty(len(weight), device=weight.device)
        size = _block_rows(weight)
        for start in range(0, len(weight), size):
            rows = slice(start, start + size)
            wide = weight.detach()[rows].to(torch.float32, copy=True)
            values[rows], scales[rows] = _quantised(wide)
        # Not in state dicts: a loader that fills float weights must not fill these.
        self.register_buffer("values", values, persistent=False)
        self.register_buffer("scales", scales, persistent=False)

    @property
    def weight(self) -> Tensor:
        """The whole numbers, as other libraries call them; Hugging Face asks for their format."""
        return self.values

    def forward(self, states: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs), in the format of `states`."""
        return frozen_product(states, self.values, self.scales)

    def _apply(self, function: Any, *args: Any, **kwargs: Any) -> Int8Linear:
        """As any module; the scales stay in float32."""
        super()._apply(function, *args, **kwargs)
        self.scales = self.scales.float()
        return self


def _quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers and scales of rows in float32, which are overwritten."""
    largest = weight.abs().amax(dim=1)
    # The scale as bfloat16 has it, so that kernels which want it in that format lose nothing;
    # rounded up, for the largest weight must stay within 127.
    scales = (largest / 127 * (1 + 2**-8)).bfloat16().float()
    scales.clamp_(min=2**-60)  # rows of zeros
    return weight.mul_((1 / scales)[:, None]).round_(), scales


def to_int8(model: nn.Module) -> None:
    """Store the linear layers of a model's encoder and decoder in 8 bit.

    Its head and its embeddings stay as they are: they are small, and the scores hang on them. So
    does what LoRA adds; the layers that it adds to are stored in 8 bit.

    Args:
        model: a `T5ForConditionalGeneration`, with or without LoRA.
    """
    for stack in (model.get_encoder(), model.get_decoder()):
        for path, module in list(stack.named_modules()):
            if ".lora_" in path:
                continue
            for name, layer in list(module.named_children()):
                if type(layer) is nn.Linear and layer.bias is None:
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
    if on_cpu and scales is not None and len(rows) <= _FEW_ROWS and _has_kernel(weight):
        outputs = _kernel(rows, weight, scales)
    else:
        outputs = _in_blocks(rows, weight) if on_cpu else F.linear(rows, weight.to(rows.dtype))
        if scales is not None:
            outputs = outputs * scales.to(outputs.dtype)
    return outputs.unflatten(0, states.shape[:-1])


def _kernel(rows: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    """Torch's product with 8-bit weights on a CPU, which is fast in bfloat16 only."""
    half = rows.to(torch.bfloat16).contiguous()
    return torch._weight_int8pack_mm(half, weight, scales.to(torch.bfloat16)).to(rows.dtype)


def _has_kernel(weight: Tensor) -> bool:
    return not any(size % _KERNEL_MULTIPLE for size in weight.shape) and _kernel_is_right()


@cache
def _kernel_is_right() -> bool:
    """Whether this torch has the product, which is not documented, and means what we mean."""
    weight = torch.arange(128 * 64).remainder(255).sub(127).view(128, 64).to(torch.int8)
    scales = torch.linspace(0.5, 2, 128).bfloat16().float()
    rows = torch.arange(2 * 64).remainder(7).sub(3).view(2, 64).float()
    expected = rows @ (weight * scales[:, None]).T
    try:
        found = _kernel(rows, weight, scales)
    except (AttributeError, RuntimeError):  # torch < 2.2, or a kind of CPU without it
        return False
    return torch.allclose(found, expected, rtol=2**-7, atol=1)


def _block_rows(weight: Tensor) -> int:
    return max(1, _BLOCK // weight.shape[1])


def _in_blocks(rows: Tensor, weight: Tensor) -> Tensor:
    """The product, casting a few rows of the weight at a time: the cast ones stay in the cache."""
    outputs, inputs = weight.shape
    size = _block_rows(weight)
    cast = rows.new_empty(min(size, outputs), inputs)
    product = rows.new_empty(outputs, len(rows))
    for start in range(0, outputs, size):
        block = weight[start : start + size]
        torch.mm(cast[: len(block)].copy_(block), rows.T, out=product[start : start + size])
    return product.T.contiguous()
