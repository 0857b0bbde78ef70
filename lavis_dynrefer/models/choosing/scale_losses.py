"""What captions cost at each scale while a model is trained, and how often to show a scale then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lavis_dynrefer.errors import InputError

EVERY = 4  # batches: of one of them the losses are computed again, each by itself
_KEPT = 0.5  # of the running mean, at each update


class ScaleLosses:
    """Running mean of the caption loss by scale.

    Args:
        scales: of nested views.
    """

    def __init__(self, scales: Sequence[float]) -> None:
        self.scales = torch.tensor(sorted(set(scales)))
        self._means = torch.full((len(self.scales),), float("nan"), dtype=torch.float64)
        self._sums = torch.zeros(2, len(self.scales), dtype=torch.float64)  # losses, their number
        self._batches = 0

    def is_due(self) -> bool:
        """Whether the losses of this batch are to be added; call it once for each batch."""
        self._batches += 1
        return self._batches % EVERY == 1

    def add(self, scales: Tensor, losses: Tensor) -> None:
        """Count the losses (B,) of regions with views at `scales` (B, V), the first their own."""
        nested = scales[:, 1:].cpu()
        places = (nested[..., None] - self.scales).abs().argmin(dim=-1)  # (B, V - 1)
        each = losses.detach().double().cpu()[:, None].expand(places.shape)
        self._sums[0].index_add_(0, places.flatten(), each.flatten())
        self._sums[1].index_add_(0, places.flatten(), torch.ones(places.numel()).double())

    def update(self) -> None:
        """Move the means towards the losses since the last update, of all processes together."""
        sums, counts = self._total()
        first = self._means.isnan() & (counts > 0)
        again = ~self._means.isnan() & (counts > 0)
        found = sums / counts.clamp(min=1)
        self._means[first] = found[first]
        self._means[again] = _KEPT * self._means[again] + (1 - _KEPT) * found[again]
        self._sums.zero_()

    def weights(self, scales: Sequence[float]) -> Tensor:
        """How often to sample each of `scales`: in proportion to its loss; the sum is 1.

        Raises:
            InputError: a scale that is not known.
        """
        places = [int((self.scales - scale).abs().argmin()) for scale in scales]
        known = self.scales[places].tolist()
        if any(abs(one - other) > 1e-4 for one, other in zip(known, scales)):
            raise InputError(f"scales: expected some of {self.scales.tolist()}, got {list(scales)}")
        means = self._means[places]
        usual = means.nanmean() if not means.isnan().all() else torch.tensor(1.0).double()
        filled = torch.where(means.isnan(), usual, means).clamp(min=1e-6)
        return (filled / filled.sum()).float()

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint; to be called in all processes."""
        total = self._total()
        return {
            "scales": self.scales.tolist(),
            "means": self._means.tolist(),
            "sums": total.tolist(),
            "batches": self._batches,
        }

    def load_state_dict(self, state: dict[str, Any], *, first: bool = True) -> None:
        """Continue from `state_dict`; the sums of all processes go to the first one.

        Raises:
            InputError: of other scales.
        """
        if state["scales"] != self.scales.tolist():
            raise InputError(
                f"candidates of weights: loss: the checkpoint has {state['scales']}, this run "
                f"{self.scales.tolist()}"
            )
        self._means = torch.tensor(state["means"], dtype=torch.float64)
        self._sums = torch.tensor(state["sums"], dtype=torch.float64) * first
        self._batches = state["batches"]

    def _total(self) -> Tensor:
        if not (dist.is_available() and dist.is_initialized()):
            return self._sums.clone()
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        total = self._sums.to(device)
        dist.all_reduce(total)
        return total.cpu()
