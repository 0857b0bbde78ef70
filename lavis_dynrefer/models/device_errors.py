"""What to do when a device runs out of memory, and how to know that it is lost."""

from __future__ import annotations

import gc
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from lavis_dynrefer.errors import TooLittleMemoryError, shorten

logger = logging.getLogger(__name__)
T = TypeVar("T")

RETRY_AFTER = 64  # calls; a try in vain then costs little

_OUT_OF_MEMORY = (  # in the texts of torch and of the libraries under it, in lower case
    "out of memory",  # CUDA, HIP, MPS
    "can't allocate memory",  # the CPU on Linux and macOS
    "not enough memory",  # the CPU on Windows
    "alloc_failed",  # cuBLAS, cuDNN
    "bad_alloc",
)
_LOST = (
    "cuda error",
    "cuda driver error",
    "hip error",
    "cublas_status_",
    "cublas error",
    "cusolver",
    "cudnn_status_",
    "cudnn error",
    "nccl error",
    "device-side assert",
    "device not ready",
    "illegal memory access",
    "unspecified launch failure",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether too little memory is the cause, on a GPU or on the CPU; a smaller batch may fit."""
    return any(
        isinstance(one, MemoryError)
        or (isinstance(one, RuntimeError) and _mentions(one, _OUT_OF_MEMORY))
        for one in _causes(error)
    )


def is_device_failure(error: BaseException) -> bool:
    """Whether the device is lost: whatever this process asks of it next will fail, too.

    Such are a failed assertion in a kernel, an illegal address, or a driver that is gone. Too
    little memory is not: see `is_out_of_memory`.
    """
    return not is_out_of_memory(error) and any(
        isinstance(one, RuntimeError) and _mentions(one, _LOST) for one in _causes(error)
    )


def device_loss(error: BaseException) -> str | None:
    """Why nothing can be computed any more, if the error means that the device is lost."""
    if not is_device_failure(error):
        return None
    return f"the device is lost ({_reason(str(error))})"


def in_parts(
    work: Callable[[slice], list[T]],
    count: int,
    size: int,
    describe: Callable[[int], str] = "number {}".format,
) -> tuple[list[T], int]:
    """Do work on regions 0 to `count`, in parts that fit into the memory.

    A part that does not fit is halved and tried again. What the failed try had allocated is free
    by then.

    Args:
        work: gets the numbers of a part's regions, and returns a list of results.
        count: number of regions.
        size: most regions in a part.
        describe: text about a region, for the error.

    Returns:
        The results of all parts in order, and the size of a part that fits: `size` or less.

    Raises:
        TooLittleMemoryError: the memory does not even suffice for one region.
    """
    results: list[T] = []
    start = 0
    while start < count:
        rows = slice(start, min(start + size, count))
        done, reason = _try(work, rows)
        if done is not None:
            results += done
            start = rows.stop
            continue
        # Here and not in the `except`: there the exception would keep the failed try's tensors.
        release_memory()
        tried = rows.stop - start
        if tried == 1:
            raise TooLittleMemoryError(
                f"out of memory with a single region ({describe(start)}): free memory on the "
                "device, or use another device, another number format (dtype), or fewer views, "
                f"words or beams ({_reason(reason)})"
            )
        size = (tried + 1) // 2
        logger.warning(
            "out of memory with %d regions at once; going on with %d, as chunk=%d would",
            tried,
            size,
            size,
        )
    return results, size


class FittingSize:
    """Remembers how many rows fit into the memory, for calls of `in_parts`.

    After a failed try it is the smaller number, and after `RETRY_AFTER` calls that fit it is
    doubled again: one large request must not slow a service down for ever.

    Attributes:
        known: the number; without a failed try it is huge.
    """

    def __init__(self) -> None:
        self.known = sys.maxsize
        self._calls = 0  # that fitted since the last change

    def in_parts(
        self,
        work: Callable[[slice], list[T]],
        count: int,
        most: int,
        name: Callable[[int], str],
    ) -> list[T]:
        """As the function; `most` rows at once, or as many as are known to fit."""
        size = min(most, self.known)
        results, fitting = in_parts(work, count, size, name)
        self._calls += 1
        if fitting < size:
            self.known, self._calls = fitting, 0
        elif self._calls >= RETRY_AFTER and self.known < most:
            self.known, self._calls = 2 * self.known, 0
        return results


def _try(work: Callable[[slice], list[T]], rows: slice) -> tuple[list[T] | None, str]:
    """The results, or None and the reason if the memory does not suffice."""
    try:
        return work(rows), ""
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        forget_frames(error)
        return None, str(error)


def forget_frames(error: BaseException) -> None:
    """Let go of the tensors that the frames of an exception and of its causes hold."""
    for one in _causes(error, context=True):
        traceback.clear_frames(one.__traceback__)
        one.__traceback__ = None


def release_memory() -> None:
    """Return to the GPU what no tensor uses any more."""
    gc.collect()  # exceptions and their frames refer to each other
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _causes(error: BaseException, *, context: bool = False) -> Iterator[BaseException]:
    """The error and what it was raised from; with `context` also what was being handled."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__, one.__context__ if context else None]


def _mentions(error: BaseException, words: tuple[str, ...]) -> bool:
    text = str(error).lower()
    return any(word in text for word in words)


def _reason(text: str) -> str:
    return shorten(text, 300, printable=True)
