"""Samples: what a view processor returns, joined and taken apart along the region axis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Sample = dict[str, Any]  # views, boxes, scales, image_boxes and routes, see `ViewProcessor`
PER_REGION = ("views", "boxes", "scales", "image_boxes")


def concat_samples(samples: Sequence[Mapping[str, Any]]) -> Sample:
    """Join what a processor returns for several images along the region axis.

    Args:
        samples: at least one, each with views, boxes, scales, image_boxes and routes.
    """
    if len(samples) == 1:
        return dict(samples[0])
    batch: Sample = {key: torch.cat([sample[key] for sample in samples]) for key in PER_REGION}
    batch["routes"] = {
        task: torch.cat([sample["routes"][task] for sample in samples])
        for task in samples[0]["routes"]
    }
    return batch


def count_regions(samples: Iterable[Mapping[str, Any]]) -> int:
    """Number of regions in all samples."""
    return sum(len(sample["views"]) for sample in samples)


def batches(samples: Iterable[Sample], size: int) -> Iterator[Sample]:
    """Join neighbouring samples, up to `size` regions in each batch; none is split."""
    waiting: list[Sample] = []
    for sample in samples:
        if waiting and count_regions([*waiting, sample]) > size:
            yield concat_samples(waiting)
            waiting = []
        waiting.append(sample)
        if count_regions(waiting) == size:  # without waiting for the next one
            yield concat_samples(waiting)
            waiting = []
    if waiting:
        yield concat_samples(waiting)


def split_boxes(boxes: Tensor, size: int) -> list[Tensor]:
    """Parts of boxes (R, 4) with at most `size` rows; none where there are no boxes."""
    return [boxes[start : start + size] for start in range(0, len(boxes), size)]


def rows_of(sample: Mapping[str, Any], rows: slice) -> Sample:
    """Some regions of a sample."""
    part: Sample = {key: sample[key][rows] for key in PER_REGION}
    routes = sample.get("routes") or {}
    part["routes"] = {task: route[rows] for task, route in routes.items()}
    return part
