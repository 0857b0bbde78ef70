"""Rows of tensors from every process of a distributed run."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def gather_rows(*tensors: Tensor) -> tuple[list[Tensor], int]:
    """Concatenate the rows of all processes; only this process's own rows keep their gradient.

    Processes may hold different numbers of rows, or none: a skipped image shortens a batch.

    Args:
        tensors: each (B, ...) with the same B, and equal on all processes but for B.

    Returns:
        All rows of each tensor in rank order, and the index at which this process's own start.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return list(tensors), 0
    rank, world = dist.get_rank(), dist.get_world_size()
    count = len(tensors[0])
    counts = torch.empty(world, dtype=torch.long, device=tensors[0].device)
    dist.all_gather(list(counts.split(1)), torch.full_like(counts[:1], count))
    sizes = counts.tolist()  # the only copy to the host
    gathered = []
    for rows in tensors:
        padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
        padded[:count] = rows.detach()
        everyone = [torch.empty_like(padded) for _ in range(world)]
        dist.all_gather(everyone, padded)
        parts = [part[:size] for part, size in zip(everyone, sizes)]
        parts[rank] = rows
        gathered.append(torch.cat(parts))
    return gathered, sum(sizes[:rank])
