"""Which samples a process reads, in which order."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from lavis_dynrefer.training import loaders
from lavis_dynrefer.training.run_settings import RunSettings
from lavis_dynrefer.training.run_splits import select_splits


class Numbers(Dataset):
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return {"index": index}

    def collater(self, samples):
        return [sample["index"] for sample in samples]


class Images(Numbers):
    """Images with some regions each."""

    def __init__(self, sample_sizes):
        super().__init__(len(sample_sizes))
        self.sample_sizes = sample_sizes


class NoisyNumbers(Numbers):
    def __getitem__(self, index):
        return {"index": torch.rand(1).item() + random.random() + np.random.rand()}


def as_rank(monkeypatch, rank, world_size):
    monkeypatch.setattr(loaders, "get_rank", lambda: rank)
    monkeypatch.setattr(loaders, "get_world_size", lambda: world_size)


def settings(**run):
    return RunSettings(max_epoch=1, init_lr=0.1, seed=5, **run)


def training(size=10, batch_size=4, num_workers=0, dataset=Numbers):
    run = settings(batch_size_train=batch_size, num_workers=num_workers)
    return loaders.TrainingLoader(dataset(size), run, cuda=False)


def evaluation(size=7, shared=True):
    run = settings(
        batch_size_train=1, batch_size_eval=2, num_workers=0, use_dist_eval_sampler=shared
    )
    return loaders.evaluation_loader(Numbers(size), run, cuda=False)


def epoch_of(loader, epoch, step=0):
    loader.start_epoch(epoch, step=step)
    return [index for batch in loader for index in batch]


def test_training_takes_full_batches_only():
    assert [len(batch) for batch in training()] == [4, 4]


def test_an_epoch_does_not_depend_on_the_epochs_before():
    used, fresh = training(), training()
    epoch_of(used, 0)
    assert epoch_of(used, 1) == epoch_of(fresh, 1)


def test_epochs_differ_in_order():
    loader = training()
    assert epoch_of(loader, 0) != epoch_of(loader, 1)


def test_samples_do_not_depend_on_workers_resuming_or_processes(monkeypatch):
    whole = epoch_of(training(size=16, batch_size=4, dataset=NoisyNumbers), 1)
    used = training(size=16, batch_size=4, num_workers=2, dataset=NoisyNumbers)
    epoch_of(used, 0)
    assert epoch_of(used, 1) == whole
    assert epoch_of(used, 1, step=3) == whole[12:]
    shares = []
    for rank in range(2):
        as_rank(monkeypatch, rank, 2)
        shares.append(epoch_of(training(size=16, batch_size=2, dataset=NoisyNumbers), 1, step=2))
    assert [number for pair in zip(*shares) for number in pair] == whole[8:]


def test_a_step_is_random_by_its_place_whatever_loads_its_batch(monkeypatch):
    loader = training(dataset=NoisyNumbers)
    workers = training(dataset=NoisyNumbers, num_workers=1)
    loader.start_epoch(2)
    seen = [(torch.rand(()).item(), random.random(), np.random.rand()) for _ in loader]
    workers.start_epoch(2, step=1)
    resumed = [(torch.rand(()).item(), random.random(), np.random.rand()) for _ in workers]
    assert resumed == seen[1:]
    assert len({*seen[0], *seen[1]}) == 6
    as_rank(monkeypatch, 1, 2)  # dropout must differ between processes
    other = training(size=16, batch_size=4)
    other.start_epoch(2)
    assert next(torch.rand(()).item() for _ in other) not in seen[0]


def test_processes_sample_different_random_numbers(monkeypatch):
    as_rank(monkeypatch, 0, 2)
    first = epoch_of(training(dataset=NoisyNumbers), 0)
    as_rank(monkeypatch, 1, 2)
    assert first != epoch_of(training(dataset=NoisyNumbers), 0)


def test_processes_train_on_different_samples(monkeypatch):
    as_rank(monkeypatch, 0, 2)
    first = epoch_of(training(size=8), 0)
    as_rank(monkeypatch, 1, 2)
    assert sorted(first + epoch_of(training(size=8), 0)) == list(range(8))


def test_too_few_samples_for_all_processes_names_the_cure(monkeypatch):
    as_rank(monkeypatch, 0, 4)
    with pytest.raises(
        ValueError, match=r"10 samples, 3 for each of 4 process.*batch of 4.*batch_size_train to 3"
    ):
        training()


@pytest.mark.parametrize(
    ("size", "rank", "share"), [(7, 0, [0, 1, 6]), (7, 1, [2, 3]), (7, 2, [4, 5]), (2, 2, [])]
)
def test_evaluation_shares_are_not_padded(monkeypatch, size, rank, share):
    as_rank(monkeypatch, rank, 3)
    assert [index for batch in evaluation(size) for index in batch] == share


@pytest.mark.parametrize(
    ("sizes", "images", "batches"),
    [
        ([5, 5, 5, 9, 1, 1, 20, 2], 1, [[0, 1], [2], [3, 4], [5], [6], [7]]),  # 10 regions at most
        ([5, 5, 5, 9, 1, 1, 20, 2], 2, [[0, 1], [2, 3], [4, 5], [6, 7]]),  # but 2 images at least
        ([0, 0, 3], 1, [[0, 1, 2]]),
        ([11], 1, [[0]]),
        ([], 1, []),
    ],
)
@pytest.mark.parametrize("world", [1, 2, 3])
def test_images_fill_a_batch_with_regions_whatever_the_number_of_processes(
    monkeypatch, sizes, images, batches, world
):
    run = settings(batch_size_train=1, batch_size_eval=images, chunk=10, num_workers=0)
    shares = []
    for rank in range(world):
        as_rank(monkeypatch, rank, world)
        shares.append(list(loaders.evaluation_loader(Images(sizes), run, cuda=False)))
    assert shares == [batches[rank::world] for rank in range(world)]


def test_evaluation_may_be_repeated_in_every_process(monkeypatch):
    as_rank(monkeypatch, 1, 3)
    assert [index for batch in evaluation(shared=False) for index in batch] == list(range(7))


def test_training_splits_of_several_datasets_are_read_together():
    datasets = {"a": {"train": 2}, "b": {"train": 3}}
    assert select_splits(datasets, evaluated=[], training=True) == {"train": [2, 3]}


def test_only_the_splits_of_the_run_are_read():
    datasets = {"a": {"train": 0, "val": 2, "test": 0}}
    assert select_splits(datasets, evaluated=["val", "val"], training=False) == {"val": [2]}


@pytest.mark.parametrize(
    ("datasets", "evaluated", "training", "complaint"),
    [
        ({"a": {"val": 2}, "b": {"val": 2}}, ["val"], False, "2 datasets have a split 'val'"),
        (
            {"a": {"val": 2}},
            ["val"],
            True,
            r"no dataset has a split 'train'; there are \['val'\]: look at splits, .*a\.build_info",
        ),
        ({"a": {"train": 2}}, ["train"], False, "rename it in a run of its own"),
        ({"a": {"val": 2}}, [], False, "nothing to evaluate"),
    ],
)
def test_splits_that_cannot_be_read_are_named(datasets, evaluated, training, complaint):
    with pytest.raises(ValueError, match=complaint):
        select_splits(datasets, evaluated=evaluated, training=training)
