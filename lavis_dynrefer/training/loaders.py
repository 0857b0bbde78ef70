"""Which splits a run reads, and the loaders that read them.

Training reshuffles by seed and epoch alone, so a resumed run sees what an uninterrupted one would
have seen. Evaluation reads every sample exactly once over all processes.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from lavis.common.dist_utils import get_rank, get_world_size
from lavis.datasets.data_utils import reorg_datasets_by_split
from lavis.datasets.datasets.base_dataset import ConcatDataset
from lavis.datasets.datasets.dataloader_utils import PrefetchLoader
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from lavis_dynrefer.errors import InputError

TRAIN = "train"  # the one split that several datasets may provide together


def select_splits(
    datasets: Mapping[str, Mapping[str, Dataset]], *, evaluated: Iterable[str], training: bool
) -> dict[str, Dataset]:
    """Pick the splits of a run from all datasets, the training split first.

    Args:
        datasets: map-style datasets by dataset name, then split name.
        evaluated: names of the splits to evaluate; repetitions count once.
        training: whether the split `train` is trained on.

    Raises:
        ValueError: nothing to read, or a split is unknown, provided twice, or empty.
    """
    names = list(dict.fromkeys(evaluated))
    if TRAIN in names:
        raise InputError(
            f"split '{TRAIN}' is trained on and serves single regions; to evaluate it, name it "
            "otherwise in a run of its own: build_info.split_names: {train: train_eval}"
        )
    if not training and not names:
        raise InputError("nothing to evaluate; name a split in run.test_splits or run.valid_splits")
    provided = reorg_datasets_by_split(datasets)
    chosen = {}
    for name in [TRAIN, *names] if training else names:
        parts = provided.get(name, [])
        if not parts:
            raise InputError(f"no dataset has a split {name!r}; there are {sorted(provided)}")
        if len(parts) > 1 and name != TRAIN:
            raise InputError(
                f"{len(parts)} datasets have a split {name!r} and their metrics do not mix; "
                "evaluate them in runs of their own"
            )
        chosen[name] = ConcatDataset(parts) if name == TRAIN else parts[0]
        if len(chosen[name]) == 0:
            raise InputError(f"split {name!r} is empty; check its annotations and filters")
    return chosen


def training_loader(
    dataset: Dataset, *, batch_size: int, num_workers: int, seed: int, cuda: bool
) -> Any:
    """Loader of this process's share, in full batches; call `start_epoch` before each pass.

    Args:
        dataset: map-style, with LAVIS's `collater`.
        batch_size: samples per batch and process.
        num_workers: worker processes; 0 loads in this one.
        seed: the same in every process.
        cuda: pin the batches and copy them to the current GPU ahead of time.

    Raises:
        ValueError: a process would not get one full batch.
    """
    # for a single process too: its order depends on seed and epoch alone
    sampler = DistributedSampler(
        dataset, num_replicas=get_world_size(), rank=get_rank(), shuffle=True, seed=seed
    )
    if len(sampler) < batch_size:
        raise InputError(
            f"split '{TRAIN}' has {len(dataset)} samples, {len(sampler)} for each of "
            f"{get_world_size()} process(es), which is less than one batch of {batch_size}; "
            f"set run.batch_size_train to {len(sampler)} or less, or add data"
        )
    return _loader(dataset, sampler, batch_size, num_workers, cuda=cuda, drop_last=True)


def evaluation_loader(
    dataset: Dataset, *, batch_size: int, num_workers: int, shared: bool, cuda: bool
) -> Any:
    """Loader without padding: every sample once; the last batch may be short, or there is none.

    Args:
        dataset: as in `training_loader`, also the arguments of the same name.
        batch_size: samples per batch.
        num_workers: worker processes.
        shared: every process reads its share; otherwise every process reads everything.
        cuda: copy batches ahead of time.
    """
    # DistributedSampler would pad the shares to equal length: some samples twice
    first, step = (get_rank(), get_world_size()) if shared else (0, 1)
    indices = range(first, len(dataset), step)
    return _loader(dataset, indices, batch_size, num_workers, cuda=cuda, drop_last=False)


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
    # dropout, and processors of a loader without workers, draw from the global generators
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
