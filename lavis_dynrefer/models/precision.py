"""Where a model runs and in which number format: decided here and nowhere else.

Training computes in `run.amp_dtype` (`autocast`), answers in `NumberFormats`. Weights are stored as
their files have them; on a GPU those of a frozen ViT are cast once, see `Backbone.store_for`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from lavis_dynrefer.config import DTYPES
from lavis_dynrefer.errors import InputError, choice_problem

logger = logging.getLogger(__name__)

HALVES = (torch.float16, torch.bfloat16)
AMP_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}  # of training, as LAVIS names them
PARTS = ("vit", "region", "heads", "llm")
_BF16_CAPABILITY = (8, 0)  # Ampere; older GPUs at best emulate bfloat16
_FP16_CAPABILITY = (7, 0)  # Volta; older GPUs are slower in float16 than in float32, or not faster
_ALIASES = {
    "fp32": "float32",
    "float": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
}


_FORMATS: dict[str, dict[str, torch.dtype]] = {  # parts that are not float32
    "float32": {},
    "float16": {"vit": torch.float16},
    "released": {"vit": torch.float16, "heads": torch.bfloat16, "llm": torch.bfloat16},
    "bfloat16": dict.fromkeys(PARTS, torch.bfloat16),
}


@dataclass(frozen=True)
class NumberFormats:
    """Number formats of matrix products when a model answers, part by part.

    `auto` chooses by the device:

    =================================  ========  =======  =======  ========  ========
    device                             name      vit      region   heads     llm
    =================================  ========  =======  =======  ========  ========
    NVIDIA from Ampere (A100, L4) on   released  float16  float32  bfloat16  bfloat16
    Volta and Turing (V100, T4)        float16   float16  float32  float32   float32
    older GPUs, Apple's, Intel's, CPU  float32   float32  float32  float32   float32
    =================================  ========  =======  =======  ========  ========

    The other names: "float32" and "bfloat16" for all parts; "released" as in the first row, also
    where bfloat16 is emulated; "float16" as in the first or second row, by what the GPU has. T5 and
    the text decoders overflow in float16 and never run in it.

    Args:
        name: one of `DTYPES` except "auto".
        vit: of the image encoder.
        region: of alignment, fusion and Q-Former.
        heads: of the decoders for tags and contrast; their last layer is float32 in any case.
        llm: of the language model.
    """

    name: str
    vit: torch.dtype = torch.float32
    region: torch.dtype = torch.float32
    heads: torch.dtype = torch.float32
    llm: torch.dtype = torch.float32

    def of(self, part: str, device: torch.device) -> AbstractContextManager[object]:
        """Compute in the format of a part, one of `PARTS`, whatever autocast the caller chose."""
        dtype = getattr(self, part)
        if dtype == torch.float32:
            return without_autocast(device)
        # Torch keeps one cast per weight, not one per format: inside the caller's autocast, which
        # may have another format, it would hand out the wrong one.
        outermost = active_autocast(device) is None
        return torch.autocast(device.type, dtype=dtype, cache_enabled=outermost)

    def __str__(self) -> str:
        formats = {str(getattr(self, part)).replace("torch.", "") for part in PARTS}
        if len(formats) == 1:
            return formats.pop()
        each = (f"{part} {getattr(self, part)}".replace("torch.", "") for part in PARTS)
        return f"{self.name} ({', '.join(each)})"


def number_formats(
    name: str, kind: str, capability: tuple[int, int] | None = None
) -> NumberFormats:
    """Formats by name for a kind of device; asks no device.

    Args:
        name: one of `DTYPES`.
        kind: type of the device, such as "cuda" or "cpu".
        capability: of a CUDA device.

    Raises:
        InputError: another name, or float16 without a CUDA device.
    """
    if name in _ALIASES:
        raise InputError(f"dtype: unknown {name!r}; did you mean {_ALIASES[name]}?")
    problem = choice_problem("dtype", name, DTYPES)
    if problem is not None:
        raise InputError(problem)
    version = capability or (0, 0)
    if name == "auto":
        fast = kind == "cuda" and version >= _FP16_CAPABILITY
        name = "float16" if fast else "float32"
        if fast and version >= _BF16_CAPABILITY:
            name = "released"
    elif name in ("float16", "released") and kind != "cuda":
        raise InputError(
            f"dtype: {name} needs a CUDA device, got {kind}; use auto, float32 or bfloat16"
        )
    if name == "float16" and version >= _BF16_CAPABILITY:
        return NumberFormats(name, **_FORMATS["released"])
    return NumberFormats(name, **_FORMATS[name])


def formats_on(name: str, device: torch.device) -> NumberFormats:
    """Formats by name, for a device that is there.

    Raises:
        InputError: another name, or a format that the device lacks.
    """
    cuda = device.type == "cuda"
    formats = number_formats(
        name, device.type, torch.cuda.get_device_capability(device) if cuda else None
    )
    for dtype in {getattr(formats, part) for part in PARTS} - {torch.float32}:
        try:
            torch.autocast(device.type, dtype=dtype)
        except RuntimeError as error:
            short = str(dtype).replace("torch.", "")
            raise InputError(
                f"dtype: no {short} on {device.type} in this torch; use auto or float32 ({error})"
            ) from error
        if dtype == torch.bfloat16:
            warn_of_slow_bf16(device.type, "dtype")
    return formats


def choose_device(name: str | int | torch.device) -> torch.device:
    """A device by its name.

    Args:
        name: "cpu", "cuda", "cuda:1", "mps", ...; "auto" is CUDA where there is one, else the CPU.
            Apple's GPUs (mps) are untried, so they must be asked for by name.

    Raises:
        InputError: no such kind of device, or one that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        # A bare number means CUDA, as in other libraries; torch takes it for whatever there is.
        device = torch.device(f"cuda:{name}" if type(name) is int else name)
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device: expected auto, cpu, cuda, cuda:1 or another of torch's, got {name!r} "
            f"({reason:.200})"
        ) from error
    if device.type == "cuda":
        _check_cuda(device)
    elif device.type == "meta":
        raise InputError("device: meta tensors have no values; use cpu, cuda or auto")
    elif device.type != "cpu":
        try:
            torch.empty(1, device=device)
        except Exception as error:  # torch raises many kinds here
            raise InputError(f"device: torch finds no {device} device; use cpu or auto") from error
    return device


def _check_cuda(device: torch.device) -> None:
    if not torch.cuda.is_available():
        cure = "" if torch.version.cuda or torch.version.hip else "; this torch is built without it"
        raise InputError(f"device: torch finds no cuda device{cure}; use cpu or auto")
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        raise InputError(f"device: no {device}; the last GPU is cuda:{count - 1}")


def autocast(device: torch.device, name: str) -> AbstractContextManager[object]:
    """Multiply matrices in another number format, to train.

    Args:
        device: where the model runs.
        name: one of `AMP_DTYPES`, or "float32".

    Raises:
        InputError: a format that the device lacks.
    """
    if name == "float32":
        return nullcontext()
    dtype = AMP_DTYPES[name]
    if dtype == torch.float16 and device.type == "cpu":
        raise InputError("run.amp on a CPU needs run.amp_dtype: bf16; or set run.amp: false")
    return torch.autocast(device.type, dtype=dtype)


def fastest_amp_dtype(device: torch.device) -> str | None:
    """Number format for training: "bf16" where `device` multiplies matrices faster in it.

    Returns:
        A key of `AMP_DTYPES`, or None for float32.
    """
    return "bf16" if multiplies_bf16_faster(device) else None


def multiplies_bf16_faster(device: torch.device) -> bool:
    """Whether products in bfloat16 are clearly faster than in float32; measured on a CPU."""
    if device.type == "cpu":
        return bf16_time_on_cpu() < 0.7
    return device.type == "cuda" and _has_fast_bf16(device)


@cache
def bf16_time_on_cpu() -> float:
    """Time of a matrix product in bfloat16 on this CPU, as a multiple of that in float32."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(384, 384, dtype=dtype)
        matrix @ matrix  # the first product also sets up the kernels
        times = []
        for _ in range(5):
            start = time.perf_counter()
            matrix @ matrix
            times.append(time.perf_counter() - start)
        seconds[dtype] = min(times)  # the others shared the CPU
    return seconds[torch.bfloat16] / seconds[torch.float32]


@cache
def warn_of_slow_bf16(kind: str, key: str) -> None:
    """Log once that bfloat16 was asked for on a CPU that takes longer in it.

    Args:
        kind: type of the device.
        key: what asks for bfloat16, for the message.
    """
    times = bf16_time_on_cpu() if kind == "cpu" else 0.0
    if times > 1.5:
        logger.warning(
            "%s: a matrix product in bfloat16 takes %.1f times as long as in float32 on this CPU, "
            "which has no instructions for it; use float32",
            key,
            times,
        )


def product_format(stored: torch.dtype, device: torch.device) -> torch.dtype:
    """Number format of products with weights stored in `stored`.

    That of the autocast that the caller has entered, else that of the weights; but float32 where
    the device would take longer in bfloat16.
    """
    active = active_autocast(device)
    if active is not None:
        return active
    slow = stored == torch.bfloat16 and device.type in ("cpu", "cuda")
    return torch.float32 if slow and not multiplies_bf16_faster(device) else stored


def _has_fast_bf16(device: torch.device) -> bool:
    """Not `torch.cuda.is_bf16_supported`, which is also true where bfloat16 is emulated."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _BF16_CAPABILITY
    return device.type == "cpu"


def active_autocast(device: torch.device) -> torch.dtype | None:
    """Number format of the autocast that the caller has entered; None without any."""
    kind = device.type
    if hasattr(torch, "get_autocast_dtype"):  # torch >= 2.4
        try:
            return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        except RuntimeError:  # no autocast for this kind of device
            return None
    if kind == "cuda":
        return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None
    if kind == "cpu":
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
    return None


def bf16_instead_of_fp16(device: torch.device) -> AbstractContextManager[object]:
    """Run a block in bfloat16 where the caller's autocast chose float16.

    T5 overflows in float16; the released code runs it and the text decoders in bfloat16. On a GPU
    without bfloat16 the block runs in float32. Without an autocast in float16 nothing changes.
    """
    if active_autocast(device) != torch.float16:
        return nullcontext()
    if not _has_fast_bf16(device):
        return without_autocast(device)
    # Without cache: torch keeps one cast per weight, which may be that of the float16 outside.
    return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Run a block in the number format of its tensors, whatever autocast the caller chose."""
    try:
        return torch.autocast(device.type, enabled=False)
    except RuntimeError:  # no autocast for this kind of device, such as Apple's before torch 2.5
        return nullcontext()


def without_gradients(device: torch.device) -> AbstractContextManager[object]:
    """Compute answers, without gradients.

    On a CPU in torch's inference mode, which makes small models a tenth faster. Training cannot use
    tensors that were made in it: what is kept for later is made outside of it.
    """
    return torch.inference_mode() if device.type == "cpu" else torch.no_grad()


@contextmanager
def without_denormals(device: torch.device) -> Iterator[None]:
    """Take numbers below 1e-38 for 0 on a CPU, which multiplies matrices of them 20 times slower.

    The softmax of a language model has many. Only the calling thread and those that it starts obey,
    numpy in them too.
    """
    smallest = torch.tensor(2.0**-149)
    if device.type != "cpu" or not smallest * 1:  # the caller has chosen so already
        yield
        return
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def refuse_half_weights(*wanted: Any) -> None:
    """Check the arguments of `Module.to`: no part is stored in half precision by it.

    Args:
        wanted: arguments; a dtype, or a tensor with one, may be among them.

    Raises:
        InputError: one of them asks for float16 or bfloat16.
    """
    for value in wanted:
        dtype = value if isinstance(value, torch.dtype) else getattr(value, "dtype", None)
        if dtype in HALVES:
            raise InputError(
                f"the weights stay as their files have them, got {dtype}: choose the number format "
                "of answers by dtype in predict or RegionPredictor, of training by run.amp_dtype, "
                "of the stored language model by model.captioning.llm_options.dtype"
            )
