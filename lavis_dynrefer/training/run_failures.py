"""Failures of a run: what a user can do about them, and that each is said once."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import lavis  # noqa: F401  first, for threads
import torch.distributed as dist
from lavis.common.dist_utils import get_rank, is_dist_avail_and_initialized

from lavis_dynrefer.errors import InputError, TooLittleMemoryError, shorten
from lavis_dynrefer.models.device_errors import is_out_of_memory
from lavis_dynrefer.training.process_group import OtherRankError

_WORKER_ENDED = re.compile(r"DataLoader worker \(pid\S* [\d, ]+\).*")


@contextmanager
def explained_failures() -> Iterator[None]:
    """While entered, failures of the machine become errors that say what to do.

    Raises:
        OtherRankError: another process has ended. Gloo notices; NCCL leaves it to torchrun.
        TooLittleMemoryError: a step of this process did not fit.
        InputError: the system has ended a loader process.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        found = _explanation(error)
        if found is None:
            raise
        raise found from error


def is_first_to_say(text: str) -> bool:
    """Whether no process of the run has said this before, of what several find."""
    if not is_dist_avail_and_initialized():
        return True
    try:
        store = dist.distributed_c10d._get_default_store()
        return bool(store.add(f"said {zlib.crc32(text.encode('utf-8', 'replace'))}", 1) == 1)
    except RuntimeError:  # the process that keeps the store has ended
        return True


def _explanation(error: Exception) -> Exception | None:
    if isinstance(error, (InputError, TooLittleMemoryError)):
        return None
    text = str(error)
    if is_out_of_memory(error):
        return TooLittleMemoryError(
            f"out of memory on rank {get_rank()}: lower run.batch_size_train (with "
            "run.accum_grad_iters raised as much, a step sees as many regions), run.chunk or "
            f"run.num_workers ({shorten(text, 200, printable=True)})"
        )
    worker = _WORKER_ENDED.search(text)
    if worker is not None:
        return InputError(
            "the system has killed a loader worker, usually because memory ran out: lower "
            "run.num_workers or the batch size; in a container give more shared memory "
            f"(docker run --shm-size=8g) ({shorten(worker[0], 200, printable=True)})"
        )
    if is_dist_avail_and_initialized() and "gloo" in text.lower():
        return OtherRankError("another process of the run has ended; its message says why")
    return None
