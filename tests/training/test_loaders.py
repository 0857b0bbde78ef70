"""Which samples a process reads, in which order."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import Dataset

from lavis_dynrefer.training import loaders


class Numbers(Dataset):
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return {"index": index}

    def collater(self, samples):
        return [sample["index"] for sample in samples]


class NoisyNumbers(Numbers):
    def __getitem__(self, index):
        return {"index": torch.rand(1).item()}


def as_rank(monkeypatch, rank, world_size):
    monkeypatch.setattr(loaders, "get_rank", lambda: rank)
    monkeypatch.setattr(loaders, "get_world_size", lambda: world_size)


def training(size=10, batch_size=4, num_workers=0, dataset=Numbers):
    return loaders.training_loader(
        dataset(size), batch_size=batch_size, num_workers=num_workers, seed=5, cuda=False
    )


def evaluation(size=7, shared=True):
    return loaders.evaluation_loader(
        Numbers(size), batch_size=2, num_workers=0, shared=shared, cuda=False
    )


def epoch_of(loader, epoch):
    loaders.start_epoch(loader, epoch=epoch, seed=5)
    return [index for batch in loader for index in batch]


def test_training_takes_full_batches_only():
    assert [len(batch) for batch in training()] == [4, 4]


def test_training_may_be_one_batch():
    assert sorted(epoch_of(training(size=4), 0)) == [0, 1, 2, 3]


def test_an_epoch_does_not_depend_on_the_epochs_before():
    used, fresh = training(), training()
    epoch_of(used, 0)
    assert epoch_of(used, 1) == epoch_of(fresh, 1)


def test_epochs_differ_in_order():
    loader = training()
    assert epoch_of(loader, 0) != epoch_of(loader, 1)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_randomness_of_the_samples_belongs_to_the_epoch(num_workers):
    used = training(num_workers=num_workers, dataset=NoisyNumbers)
    fresh = training(num_workers=num_workers, dataset=NoisyNumbers)
    epoch_of(used, 0)
    assert epoch_of(used, 1) == epoch_of(fresh, 1)


def test_processes_draw_different_randomness(monkeypatch):
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


@pytest.mark.parametrize(("rank", "share"), [(0, [0, 3, 6]), (1, [1, 4]), (2, [2, 5])])
def test_evaluation_shares_are_not_padded(monkeypatch, rank, share):
    as_rank(monkeypatch, rank, 3)
    assert [index for batch in evaluation() for index in batch] == share


def test_evaluation_may_be_repeated_in_every_process(monkeypatch):
    as_rank(monkeypatch, 1, 3)
    assert [index for batch in evaluation(shared=False) for index in batch] == list(range(7))


def test_process_without_a_share_reads_nothing(monkeypatch):
    as_rank(monkeypatch, 2, 3)
    assert list(evaluation(size=2)) == []


def test_training_splits_of_several_datasets_are_joined():
    datasets = {"a": {"train": Numbers(2)}, "b": {"train": Numbers(3)}}
    chosen = loaders.select_splits(datasets, evaluated=[], training=True)
    assert len(chosen["train"]) == 5


def test_splits_that_are_not_asked_for_are_not_read():
    datasets = {"a": {"train": Numbers(0), "val": Numbers(2), "test": Numbers(0)}}
    chosen = loaders.select_splits(datasets, evaluated=["val", "val"], training=False)
    assert list(chosen) == ["val"]


def test_two_datasets_cannot_share_an_evaluated_split():
    datasets = {"a": {"val": Numbers(2)}, "b": {"val": Numbers(2)}}
    with pytest.raises(ValueError, match="2 datasets have a split 'val'"):
        loaders.select_splits(datasets, evaluated=["val"], training=False)


def test_training_without_a_training_split_says_what_there_is():
    with pytest.raises(ValueError, match=r"no dataset has a split 'train'; there are \['val'\]"):
        loaders.select_splits({"a": {"val": Numbers(2)}}, evaluated=["val"], training=True)


def test_empty_training_split_is_named():
    with pytest.raises(ValueError, match="'train' is empty"):
        loaders.select_splits({"a": {"train": Numbers(0)}}, evaluated=[], training=True)
