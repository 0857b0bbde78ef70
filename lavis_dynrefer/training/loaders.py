"""Data loaders of a run.

The order of training samples depends on seed and epoch alone, so a resumed run sees what an
uninterrupted one would have seen. Evaluation reads every sample exactly once over all processes.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from lavis.common.dist_utils import get_rank, get_world_size
from lavis.datasets.datasets.dataloader_utils import PrefetchLoader
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.training.run_settings import RunSettings
from lavis_dynrefer.training.run_splits import TRAIN


def training_loader(dataset: Dataset, run: RunSettings, *, cuda: bool) -> Any:
    """Loader of this process's share, in full batches; call `start_epoch` before each pass.

    Args:
        dataset: map-style, with LAVIS's `collater`.
        run: its batch size, workers and seed, the same in every process.
        cuda: pin the batches and copy them to the current GPU.

    Raises:
        InputError: the share of a process is less than one batch.
    """
    # For a single process too: the order then depends on seed and epoch alone.
    sampler = DistributedSampler(
        dataset, num_replicas=get_world_size(), rank=get_rank(), shuffle=True, seed=run.seed
    )
    size = run.batch_size_train
    if len(sampler) < size:
        raise InputError(
            f"split {TRAIN!r} has {len(dataset)} samples, {len(sampler)} for each of "
            f"{get_world_size()} process(es), less than a batch of {size}; "
            f"set run.batch_size_train to {len(sampler)} or less, or add data"
        )
    return _loader(dataset, sampler, size, run.num_workers, cuda=cuda, drop_last=True)


def evaluation_loader(dataset: Dataset, run: RunSettings, *, cuda: bool) -> Any:
    """Loader that reads every sample once; the last batch may be short, a share may be empty.

    Arguments as in `training_loader`; the processes share the samples unless
    `run.use_dist_eval_sampler` is false.
    """
    # DistributedSampler would pad the shares to equal length with repeated samples.
    first, step = (get_rank(), get_world_size()) if run.use_dist_eval_sampler else (0, 1)
    indices = range(first, len(dataset), step)
    return _loader(
        dataset, indices, run.batch_size_eval, run.num_workers, cuda=cuda, drop_last=False
    )


def start_epoch(loader: Any, *, epoch: int, seed: int) -> None:
    """Tie all randomness of a training epoch to seed, epoch and rank.

    Args:
        loader: made by `training_loader`.
        epoch: counted from 0.
        seed: the same in every process.
    """
    loader.sampler.set_epoch(epoch)
    own_seed = seed + epoch * get_world_size() + get_rank()
    loader.generator.manual_seed(own_seed)  # seeds the workers
    # Dropout, and processors of a loader without workers, use the global generators.
    random.seed(own_seed)
    np.random.seed(own_seed)
    torch.manual_seed(own_seed)


def _loader(
    dataset: Dataset,
    sampler: Iterable[int],
    batch_size: int,
    num_workers: int,
    *,
    cuda: bool,
    drop_last: bool,
) -> Any:
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=getattr(dataset, "collater", None),
        pin_memory=cuda,
        drop_last=drop_last,
        generator=torch.Generator(),
    )
    return PrefetchLoader(loader) if cuda else loader
