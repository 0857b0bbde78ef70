"""Samples: what a view processor returns, joined and taken apart along the region axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

PER_REGION = ("views", "boxes", "scales", "image_boxes")


def concat_samples(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Join what a processor returns for several images along the region axis.

    Args:
        samples: at least one, each with views, boxes, scales, image_boxes and routes.
    """
    batch: dict[str, Any] = {
        key: torch.cat([sample[key] for sample in samples]) for key in PER_REGION
    }
    batch["routes"] = {
        task: torch.cat([sample["routes"][task] for sample in samples])
        for task in samples[0]["routes"]
    }
    return batch
