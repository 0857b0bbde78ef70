"""What differs on a GPU, for counting with fake tensors on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lavis_dynrefer.models.backbone import VisionTransformer
from lavis_dynrefer.models.decoders import query_decoder
from lavis_dynrefer.models.llms import stored_weights, t5_weights

# What autocast computes in float32 on a GPU, and not on a CPU.
_IN_FLOAT32 = {
    *(torch.layer_norm, torch.nn.functional.layer_norm, torch.nn.functional.softmax),
    *(torch.softmax, torch.Tensor.softmax, torch.nn.functional.log_softmax, torch.log_softmax),
    *(torch.Tensor.log_softmax, torch.pow, torch.Tensor.pow, torch.Tensor.__pow__, torch.rsqrt),
    *(torch.Tensor.rsqrt, torch.sum, torch.Tensor.sum, torch.exp, torch.Tensor.exp, torch.log),
    *(torch.Tensor.log, torch.norm, torch.Tensor.norm, torch.nn.functional.cross_entropy),
    *(torch.nn.functional.nll_loss, torch.nn.functional.normalize, torch.cumsum),
}
_RMS_NORMS = {getattr(owner, "rms_norm", None) for owner in (torch, torch.nn.functional)} - {None}


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """What computes in small portions on a CPU takes all at once; T5's weights may be joined."""
    vit = sys.modules[VisionTransformer.__module__]
    changes = [
        (vit, "_LAYER_BYTES", 1 << 62),
        (query_decoder, "ROWS_ON_CPU", query_decoder.ROWS_ELSEWHERE),
        (t5_weights, "MOVABLE", (*t5_weights.MOVABLE, "cpu")),
        (stored_weights, "_BLOCK", 1 << 62),
        (stored_weights, "_FEW_ROWS", 0),
    ]
    known = [getattr(module, name) for module, name, _ in changes]
    for module, name, value in changes:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(changes, known):
            setattr(module, name, value)


def run_backward(loss: Tensor) -> None:
    """As `loss.backward()`, which leaves the modes of torch functions: what is computed again on
    the way back would then not be like on a GPU.
    """
    engine = torch.autograd.Variable._execution_engine
    start = (torch.ones_like(loss),)
    engine.run_backward(
        (loss,), start, False, False, (), allow_unreachable=True, accumulate_grad=True
    )


class LikeCuda(TorchFunctionMode):
    """What differs on a GPU: autocast computes more in float32; dropout is one kernel, and so is
    the norm of T5 where it has no backward (torch >= 2.8).
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.dropout:
            return _dropout(*args, **kwargs)
        if func in _RMS_NORMS and not torch.is_grad_enabled():
            return _rms_norm(*args, **kwargs)
        if func in _IN_FLOAT32 and _autocast_of_cpu():
            args, kwargs = _to_float32(args), _to_float32(kwargs)
        return func(*args, **kwargs)


def _dropout(
    states: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    return torch.native_dropout(states, p, True)[0] if training and p else states


def _rms_norm(
    states: Tensor, shape: Any, weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """One kernel that moves the same bytes."""
    return states * (1 if weight is None else weight)


def _autocast_of_cpu() -> bool:
    try:
        return bool(torch.is_autocast_enabled("cpu"))
    except TypeError:  # torch before 2.4
        return bool(torch.is_autocast_cpu_enabled())


def _to_float32(values: Any) -> Any:
    if isinstance(values, Tensor):
        half = values.dtype in (torch.float16, torch.bfloat16)
        return values.float() if half else values
    if type(values) in (list, tuple):
        return type(values)(map(_to_float32, values))
    if type(values) is dict:
        return {key: _to_float32(value) for key, value in values.items()}
    return values
