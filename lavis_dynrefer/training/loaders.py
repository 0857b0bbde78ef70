"""Data loaders of a run.

What a training step sees depends on the seed, the epoch and its place in the epoch alone: not on
the number of workers, and not on where a run was resumed. Evaluation reads every sample exactly
once over all processes.
"""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Iterator
from typing import Any

import lavis  # noqa: F401  first, for threads
import numpy as np
import torch
from lavis.common.dist_utils import get_rank, get_world_size
from lavis.datasets.datasets.dataloader_utils import PrefetchLoader
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from lavis_dynrefer.ending_signals import ignore_terminal
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.training.loop.scale_weights import ScaleWeights
from lavis_dynrefer.training.loop.stop_signals import Repetitions
from lavis_dynrefer.training.run_settings import RunSettings
from lavis_dynrefer.training.run_splits import TRAIN

_OF_A_SAMPLE, _OF_A_STEP = 0, 1  # keep the two families of seeds apart


class TrainingLoader:
    """This process's share of an epoch, in full batches; call `start_epoch` before each pass.

    Before each batch it seeds the global random generators, so that a model's dropout depends on
    the place of the batch, too.

    Args:
        dataset: map-style, with LAVIS's `collater`.
        run: its batch size, workers and seed, the same in every process.
        cuda: pin the batches and copy them to the current GPU.

    Raises:
        InputError: the share of a process is less than one batch.
    """

    def __init__(self, dataset: Dataset, run: RunSettings, *, cuda: bool) -> None:
        self._seed = run.seed
        # For a single process too: the order then depends on seed and epoch alone.
        self._sampler = _EpochSampler(
            dataset, num_replicas=get_world_size(), rank=get_rank(), shuffle=True, seed=run.seed
        )
        size = run.batch_size_train
        if len(self._sampler) < size:
            share = len(self._sampler)
            raise InputError(
                f"split {TRAIN!r} has {len(dataset)} samples, {share} for each of "
                f"{get_world_size()} process(es), less than a batch of {size}; "
                f"set run.batch_size_train to {share} or less, or add data"
            )
        self.batch_size = size
        self._first = 0  # step of the next pass
        self.scale_weights: ScaleWeights | None = None  # a runner sets it
        self._loader = _loader(
            _SeededSamples(dataset),
            run.num_workers,
            cuda=cuda,
            sampler=self._sampler,
            batch_size=size,
            drop_last=True,
        )

    def start_epoch(self, epoch: int, *, step: int = 0) -> None:
        """Choose what the next pass yields.

        Args:
            epoch: counted from 0.
            step: number of batches that a resumed run has done; they are not loaded.
        """
        self._sampler.set_epoch(epoch)
        self._first = step

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        first = self._first
        while first < len(self):
            last = len(self)
            if self.scale_weights is not None:
                last = min(last, self.scale_weights.before(first))
            # Workers begin here, and end before the next weights.
            self._sampler.start = first * self.batch_size
            self._sampler.stop = last * self.batch_size
            for step, batch in enumerate(self._loader, first):
                seed_step(self._seed, epoch=self._sampler.epoch, step=step, rank=get_rank())
                yield batch
            first = last


def evaluation_loader(dataset: Dataset, run: RunSettings, *, cuda: bool) -> Any:
    """Loader that reads every sample once; the last batch may be short, a share may be empty.

    Arguments as of `TrainingLoader`. If the dataset has `sample_sizes`, the number of regions of
    each sample, a batch has as many samples as `run.chunk` regions allow, and at least
    `run.batch_size_eval`; else exactly so many. The processes share the batches unless
    `run.use_dist_eval_sampler` is false.
    """
    # Every process takes whole batches of the order of one process: what shares a batch, and with
    # it the rounding of an answer, does not depend on the number of processes. DistributedSampler
    # would also repeat samples to make the shares equal.
    first, step = (get_rank(), get_world_size()) if run.use_dist_eval_sampler else (0, 1)
    batches = list(_evaluation_batches(dataset, run))[first::step]
    return _loader(dataset, run.num_workers, cuda=cuda, batch_sampler=batches)


def _evaluation_batches(dataset: Dataset, run: RunSettings) -> Iterator[list[int]]:
    """Numbers of the samples of each batch, whoever reads it."""
    count = len(dataset)  # type: ignore[arg-type]
    sizes = getattr(dataset, "sample_sizes", None) or [run.chunk] * count
    batch: list[int] = []
    regions = 0
    for index, size in enumerate(sizes):
        if len(batch) >= run.batch_size_eval and regions + size > run.chunk:
            yield batch
            batch, regions = [], 0
        batch.append(index)
        regions += size
    if batch:
        yield batch


def identity(dataset: Dataset, run: RunSettings) -> dict[str, Any]:
    """What decides which samples a training step sees, over all processes together.

    Args:
        dataset: trained on; if it or its parts have a `fingerprint`, it tells their data apart.
        run: of this run.
    """
    parts = getattr(dataset, "datasets", [dataset])
    return {
        "run.seed": run.seed,
        "run.batch_size_train times processes": run.batch_size_train * get_world_size(),
        "run.accum_grad_iters": run.accum_grad_iters,
        "number of training samples": len(dataset),  # type: ignore[arg-type]
        "training data": " ".join(getattr(part, "fingerprint", "") for part in parts),
    }


def seed_step(seed: int, *, epoch: int, step: int, rank: int) -> None:
    """Seed the global generators for one batch, on the CPU and on every GPU."""
    own = _mix(seed, _OF_A_STEP, epoch, step, rank)
    random.seed(own)
    np.random.seed(own)
    torch.manual_seed(own)


class _EpochSampler(DistributedSampler):
    """Yields index and seed of each sample, from `start` to `stop` of this process's share."""

    start = 0
    stop = sys.maxsize

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for place, index in enumerate(super().__iter__()):
            if self.start <= place < self.stop:
                # Its place in the order of all processes: their number does not matter.
                place = place * self.num_replicas + self.rank
                yield index, _mix(self.seed, _OF_A_SAMPLE, self.epoch, place)


class _SeededSamples(Dataset):
    """A dataset whose samples depend on their seed, not on what the process did before.

    Args:
        dataset: map-style.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.collater = getattr(dataset, "collater", None)

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, drawn: tuple[int, int]) -> Any:
        index, seed = drawn
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` takes 60 times as long
        return self.dataset[index]


def _mix(*numbers: int) -> int:
    """A seed of 32 bits for numbers from 0 on."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _loader(dataset: Dataset, num_workers: int, *, cuda: bool, **batches: Any) -> Any:
    loader = DataLoader(
        dataset,
        **batches,
        num_workers=num_workers,
        collate_fn=getattr(dataset, "collater", None),
        pin_memory=cuda,
        generator=torch.Generator(),  # else the workers' seeds are taken from the global one
        worker_init_fn=_outlive_signals,
    )
    return PrefetchLoader(loader) if cuda else loader


def _outlive_signals(worker: int) -> None:
    """Let the main process end a run; a terminal or a cluster signals its workers, too."""
    del worker
    repetitions = Repetitions()

    def handle(signum: int, frame: object) -> None:
        del frame
        if repetitions.is_second():
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)

    ignore_terminal()
    signal.signal(signal.SIGTERM, handle)
