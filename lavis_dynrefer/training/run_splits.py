"""Which splits of which datasets a run reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from lavis_dynrefer.errors import InputError

TRAIN = "train"  # the one split that several datasets may provide together
T = TypeVar("T")


def select_splits(
    datasets: Mapping[str, Mapping[str, T]], *, evaluated: Iterable[str], training: bool
) -> dict[str, list[T]]:
    """Pick the splits of a run from all datasets, the training split first.

    Args:
        datasets: datasets by name, then by split.
        evaluated: names of the splits to evaluate; repetitions count once.
        training: whether the split `train` is trained on.

    Returns:
        Split -> the datasets that provide it: one, or for `train` one or more.

    Raises:
        InputError: no split to read, or one that is unknown or provided twice.
    """
    names = list(dict.fromkeys(evaluated))
    if TRAIN in names:
        raise InputError(
            f"split {TRAIN!r} is trained on and yields single regions; to evaluate it, rename it "
            "in a run of its own: build_info.split_names: {train: train_eval}"
        )
    if not training and not names:
        raise InputError("nothing to evaluate; name a split in run.test_splits or run.valid_splits")
    provided: dict[str, list[T]] = {}
    for splits in datasets.values():
        for name, dataset in splits.items():
            provided.setdefault(name, []).append(dataset)
    for name in [TRAIN, *names] if training else names:
        if name not in provided:
            keys = ", ".join(f"datasets.{dataset}.build_info" for dataset in datasets)
            raise InputError(
                f"no dataset has a split {name!r}; there are {sorted(provided)}: look at splits, "
                f"which chooses some, and split_names, which renames them, of {keys}"
            )
        if len(provided[name]) > 1 and name != TRAIN:
            raise InputError(
                f"{len(provided[name])} datasets have a split {name!r} and their metrics do not "
                "mix; evaluate them in separate runs"
            )
    return {name: provided[name] for name in ([TRAIN, *names] if training else names)}
