"""Samples: what a view processor returns, joined and taken apart along the region axis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

Sample = dict[str, Any]  # views, boxes, scales, image_boxes and routes, see `ViewProcessor`
PER_REGION = ("views", "boxes", "scales", "image_boxes")


def concat_samples(samples: Sequence[Mapping[str, Any]]) -> Sample:
    """Join what a processor returns for several images along the region axis.

    Args:
        samples: at least one, each with views, boxes, scales, image_boxes and routes.
    """
    batch: Sample = {key: torch.cat([sample[key] for sample in samples]) for key in PER_REGION}
    batch["routes"] = {
        task: torch.cat([sample["routes"][task] for sample in samples])
        for task in samples[0]["routes"]
    }
    return batch


def split_sample(sample: Mapping[str, Any], size: int) -> Iterator[Sample]:
    """Parts of a sample with at most `size` regions each, in order."""
    for start in range(0, len(sample["views"]), size):
        rows = slice(start, start + size)
        part: Sample = {key: sample[key][rows] for key in PER_REGION}
        routes = sample.get("routes") or {}
        part["routes"] = {task: route[rows] for task, route in routes.items()}
        yield part
