"""Rows of a tensor from every process of a distributed run."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def gather_rows(rows: Tensor) -> tuple[Tensor, int]:
    """Concatenate `rows` of all processes; only this process's own rows keep their gradient.

    Processes may hold different numbers of rows: a skipped image shortens a batch.

    Args:
        rows: (B, ...), equal on all processes but for B.

    Returns:
        All rows in rank order, and the index at which this process's own start.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return rows, 0
    rank, world = dist.get_rank(), dist.get_world_size()
    counts = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(world)]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    sizes = [int(count) for count in counts]
    padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
    padded[: len(rows)] = rows.detach()
    everyone = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(everyone, padded)
    parts = [part[:size] for part, size in zip(everyone, sizes)]
    parts[rank] = rows
    return torch.cat(parts), sum(sizes[:rank])
