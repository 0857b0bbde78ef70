"""Where a model runs and in which number format: decided here and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from lavis_dynrefer.errors import InputError

DTYPES = ("auto", "float32", "bfloat16")  # of answers
AMP_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}  # of training, as LAVIS names them
_BF16_CAPABILITY = (8, 0)  # Ampere


def choose_device(
    name: str | torch.device, *, auto: Sequence[str] = ("cuda", "mps")
) -> torch.device:
    """A device by its name.

    Args:
        name: "cpu", "cuda", "cuda:1", ..., or "auto".
        auto: the kinds of GPU that "auto" may choose, best first; without any it is the CPU.

    Raises:
        InputError: no such kind of device, or a GPU that is not there.
    """
    found = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if name == "auto":
        return torch.device(next((kind for kind in auto if found[kind]()), "cpu"))
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device: {error}") from error
    if device.type in found and not found[device.type]():
        raise InputError(f"device: torch finds no {device.type} device; use cpu or auto")
    if device.type == "cuda" and device.index and device.index >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise InputError(f"device: no {device}; the last GPU is cuda:{last}")
    return device


def autocast_dtype(name: str, device: torch.device) -> torch.dtype | None:
    """Number format of matrix products for answers.

    Args:
        name: one of `DTYPES`; "auto" is bfloat16 on a GPU that computes in it, else float32.
        device: where the model runs.

    Returns:
        The type for autocast, None for plain float32.

    Raises:
        InputError: another name, or a device without bfloat16.
    """
    if name not in DTYPES:
        cure = "; T5 overflows in float16" if name == "float16" else ""
        raise InputError(f"dtype: expected one of {list(DTYPES)}, got {name!r}{cure}")
    if name == "float32" or (name == "auto" and not _has_fast_bf16(device)):
        return None
    try:
        torch.autocast(device.type, dtype=torch.bfloat16)
    except RuntimeError as error:
        raise InputError(f"dtype: no bfloat16 on {device.type} in this torch: {error}") from error
    return torch.bfloat16


def autocast(device: torch.device, name: str) -> AbstractContextManager[object]:
    """Multiply matrices in another number format.

    Args:
        device: where the model runs.
        name: one of `DTYPES`, or of `AMP_DTYPES` to train.

    Raises:
        InputError: another name, or a format that the device lacks.
    """
    dtype = AMP_DTYPES[name] if name in AMP_DTYPES else autocast_dtype(name, device)
    if dtype is None:
        return nullcontext()
    if dtype == torch.float16 and device.type == "cpu":
        raise InputError("run.amp on a CPU needs run.amp_dtype: bf16; or set run.amp: false")
    return torch.autocast(device.type, dtype=dtype)


def fastest_amp_dtype(device: torch.device) -> str | None:
    """Number format for training: "bf16" where `device` multiplies matrices faster in it.

    Returns:
        A key of `AMP_DTYPES`, or None for float32.
    """
    if device.type == "cuda":
        return "bf16" if _has_fast_bf16(device) else None
    if device.type != "cpu":
        return None
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(512, 512, dtype=dtype)
        matrix @ matrix  # the first product also sets up the kernels
        start = time.perf_counter()
        for _ in range(8):
            matrix @ matrix
        seconds[dtype] = time.perf_counter() - start
    return "bf16" if seconds[torch.bfloat16] < 0.7 * seconds[torch.float32] else None


def _has_fast_bf16(device: torch.device) -> bool:
    """Not `torch.cuda.is_bf16_supported`, which is also true where bfloat16 is emulated."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _BF16_CAPABILITY


def bf16_instead_of_fp16(device: torch.device) -> AbstractContextManager[object]:
    """Run a block in bfloat16 where the caller's autocast chose float16.

    T5 overflows in float16; the released code runs it and the text decoders in bfloat16. Without an
    active autocast nothing changes.
    """
    if device.type == "cuda" and torch.is_autocast_enabled():
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Run a block in the number format of its tensors, whatever autocast the caller chose."""
    try:
        return torch.autocast(device.type, enabled=False)
    except RuntimeError:  # no autocast for this kind of device, such as Apple's before torch 2.5
        return nullcontext()
