"""How like the training regions a region looks: a distance of features, told as a share.

The distance is Mahalanobis's in the space of the class token of the region's own view, with a
covariance of low rank plus the same variance in all other directions (probabilistic PCA, Tipping
and Bishop 1999). It does not depend on the other views, nor on a mask. Its share among held-out
regions is a conformal p-value: among regions like those, one in a hundred is below 0.01.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lavis_dynrefer.models.precision import without_autocast

RANK = 64  # directions with a variance of their own, at most
_SHARES = 1001  # distances that are kept of the held-out regions
_SMALLEST = 1e-6  # variance


class Familiarity(nn.Module):
    """Compares features with those of the training regions; empty until it is filled.

    Its buffers, for features of width C: `mean` (C,); `axes` (k, C) orthonormal rows; `variances`
    (k + 1,), the last one for all other directions; `distances` (n,) of held-out regions, from the
    smallest to the largest at even shares.
    """

    mean: Tensor | None
    axes: Tensor | None
    variances: Tensor | None
    distances: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        for name in ("mean", "axes", "variances", "distances"):
            self.register_buffer(name, None)

    def forward(self, features: Tensor) -> list[float] | None:
        """Familiarity of B regions in [0, 1]; None if nothing was fitted.

        Args:
            features: (B, C) class tokens of the regions' own views.
        """
        if self.distances is None:
            return None
        shares: list[float] = self.share_beyond(self.distance(features)).tolist()
        return shares

    def distance(self, features: Tensor) -> Tensor:
        """Squared distances (B,) of features (B, C) from the training regions, per direction.

        In float32 whatever the caller's autocast: differences of large numbers are divided by small
        ones.
        """
        assert self.mean is not None
        assert self.axes is not None
        assert self.variances is not None
        centred = features.float() - self.mean
        with without_autocast(features.device):
            along = centred @ self.axes.T
        rest = (centred.square().sum(dim=1) - along.square().sum(dim=1)).clamp(min=0)
        told = along.square() / self.variances[:-1]
        return (told.sum(dim=1) + rest / self.variances[-1]) / len(self.mean)

    def share_beyond(self, distance: Tensor) -> Tensor:
        """Share of the held-out regions that are at least as far, for distances (B,)."""
        known = self.distances
        assert known is not None
        place = torch.searchsorted(known, distance.contiguous()).clamp(1, len(known) - 1)
        low, high = known[place - 1], known[place]
        part = ((distance - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
        return 1 - (place - 1 + part) / (len(known) - 1)

    @staticmethod
    def fitted(training: Tensor, held_out: Tensor, *, rank: int = RANK) -> dict[str, Tensor]:
        """The buffers, from features of training regions (N, C) and of others (M, C)."""
        training = training.double()
        mean = training.mean(dim=0)
        _, spread, axes = torch.linalg.svd(training - mean, full_matrices=False)
        variances = (spread.square() / len(training)).clamp(min=_SMALLEST)
        rank = min(rank, len(variances) - 1)
        found = Familiarity()
        found.mean, found.axes = mean.float(), axes[:rank].float()
        width = training.shape[1]
        rest = variances[rank:].sum() / max(width - rank, 1)
        kept = torch.cat([variances[:rank], rest.clamp(min=_SMALLEST)[None]])
        found.variances = kept.float()
        shares = torch.linspace(0, 1, min(_SHARES, len(held_out)))
        found.distances = found.distance(held_out).quantile(shares)
        return {name: value for name, value in found.named_buffers()}
