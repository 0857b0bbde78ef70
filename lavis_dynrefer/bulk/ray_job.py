"""Runs the parts of a job on Ray, on this machine or on a cluster."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from lavis_dynrefer.bulk.part_answerer import PartAnswerer
from lavis_dynrefer.bulk.work_parts import Part
from lavis_dynrefer.errors import DynReferError, InputError, MissingPackageError
from lavis_dynrefer.models.device_errors import is_device_failure

_STORE = 100 << 20  # bytes of a local object store, which holds descriptions of parts only

# Set before Ray is imported, unless the user has set them.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no calls home
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # else one error that is none for each job
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}


class _RayAnswerer(PartAnswerer):
    """Returns what users must know: Ray loses the type of exceptions and buries their text."""

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return {**super().__call__(row), "problem": None, "is_lost": False}
        except (DynReferError, RuntimeError) as error:
            is_lost = is_device_failure(error)
            if not is_lost and not isinstance(error, DynReferError):
                raise
            failed = {"number": row["number"], "rows": 0, "seconds": 0.0}
            return {**failed, "problem": str(error), "is_lost": is_lost}


@dataclass(frozen=True)
class Workers:
    """Who works on a job.

    Args:
        count: processes, each with a model; None: one per GPU, or one.
        cpus: cores for each; also the threads of torch on a CPU.
        gpus: of each, maybe a fraction; None: 1 where the cluster has GPUs, else 0.
        address: of a cluster, as RAY_ADDRESS; None: this machine.
    """

    count: int | None = None
    cpus: float = 1
    gpus: float | None = None
    address: str | None = None


def require_ray() -> None:
    """Check that Ray is installed.

    Raises:
        MissingPackageError: says how to install it.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingPackageError(
            "dynrefer predict-many needs Ray, which is not installed; "
            "pip install 'lavis_dynrefer[ray]'"
        )


def run_parts(
    parts: Sequence[Part], answerer: PartAnswerer, workers: Workers
) -> Iterator[dict[str, Any]]:
    """Answer parts in any order; yields what `PartAnswerer` returns for each.

    A part whose node is lost is done again elsewhere.

    Raises:
        InputError: the cluster cannot be reached or is too small, or a worker cannot begin.
        RuntimeError: a GPU is lost, or a worker failed.
    """
    with connected(workers):
        import ray.data

        workers = _sized(workers)
        answered = ray.data.from_items(
            [asdict(part) for part in parts], override_num_blocks=len(parts)
        ).map(
            _RayAnswerer,
            fn_constructor_kwargs=dict(vars(answerer)),
            compute=ray.data.ActorPoolStrategy(size=workers.count),
            num_cpus=workers.cpus,
            num_gpus=workers.gpus,
        )
        try:
            for result in answered.iter_rows():
                problem, is_lost = result.pop("problem"), result.pop("is_lost")
                if problem is not None:
                    raise RuntimeError(problem) if is_lost else InputError(problem)
                yield result
        except ray.exceptions.RayError as error:
            raise RuntimeError(f"a worker failed: {error}") from error


@contextmanager
def connected(
    workers: Workers, *, store: int = _STORE, cpus: float | None = None
) -> Iterator[None]:
    """While entered, this process is connected to Ray, which says only what is wrong.

    Args:
        workers: who is to work; without an address Ray starts on this machine.
        store: bytes of the object store that is then started.
        cpus: cores that are then offered; None: those of the workers.

    Raises:
        InputError: Ray cannot be reached or started.
        MissingPackageError: Ray is not installed.
    """
    require_ray()
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray.data

    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):  # its log file stays
            handler.setLevel(logging.ERROR)
    logging.getLogger("ray").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if workers.address is None:
        needed = (workers.count or _local_gpus() or 1) * workers.cpus
        options.update(
            num_cpus=math.ceil(cpus or needed),
            object_store_memory=store,
            include_dashboard=False,
        )
    try:
        ray.init(address=workers.address or "local", **options)
    except Exception as error:  # Ray's own are of all kinds
        where = f"reach Ray at {workers.address}" if workers.address else "start Ray"
        raise InputError(f"cannot {where}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _sized(workers: Workers) -> Workers:
    """The workers with their numbers, which must fit into the cluster."""
    import ray

    there = ray.cluster_resources()
    cpus, gpus = there.get("CPU", 0.0), there.get("GPU", 0.0)
    of_each = workers.gpus if workers.gpus is not None else float(gpus > 0)
    count = workers.count or (max(int(gpus / of_each), 1) if of_each else 1)
    if count * workers.cpus > cpus or count * of_each > gpus:
        raise InputError(
            f"{count} workers of {workers.cpus:g} cores and {of_each:g} GPUs need more than Ray "
            f"has: {cpus:g} cores and {gpus:g} GPUs"
        )
    return Workers(count, workers.cpus, of_each, workers.address)


def _local_gpus() -> int:
    import torch

    return torch.cuda.device_count()
