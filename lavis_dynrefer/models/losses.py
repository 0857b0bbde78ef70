"""The two losses that are not plain cross-entropy; pure functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def asymmetric_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma_negative: float = 7.0,
    gamma_positive: float = 0.0,
    clip: float = 0.05,
) -> Tensor:
    """Multi-label loss that down-weights easy negatives (Ridnik et al., ICCV 2021), summed.

    Args:
        logits: (B, K).
        targets: (B, K) of 0 and 1.
        gamma_negative: focusing exponent of negatives; 7 in the released DynRefer.
        gamma_positive: focusing exponent of positives; 0 in the released DynRefer.
        clip: probability margin below which a negative costs nothing.

    Returns:
        Scalar, the sum over regions and tags. The focusing weight carries no gradient.
    """
    logits = logits.float()  # in float16 the smallest probability allowed below would be 0
    present = torch.sigmoid(logits)
    absent = (1 - present + clip).clamp(max=1)
    log_likelihood = targets * present.clamp(min=1e-8).log()
    log_likelihood = log_likelihood + (1 - targets) * absent.clamp(min=1e-8).log()
    certainty = (present * targets + absent * (1 - targets)).detach()
    gamma = gamma_positive * targets + gamma_negative * (1 - targets)
    return -(log_likelihood * (1 - certainty) ** gamma).sum()


def sigmoid_contrastive_loss(
    similarity: Tensor, *, log_scale: Tensor, bias: Tensor, first_column: int = 0
) -> Tensor:
    """Pairwise sigmoid loss (SigLIP, Zhai et al., ICCV 2023).

    Args:
        similarity: (B, K); row i belongs with column `first_column` + i and no other.
        log_scale: scalar, logarithm of the temperature's inverse.
        bias: scalar added to every scaled similarity.
        first_column: where this process's own columns start after gathering.

    Returns:
        Scalar, summed over pairs and divided by B.
    """
    similarity = similarity.float()
    rows, columns = (torch.arange(side, device=similarity.device) for side in similarity.shape)
    own = columns == first_column + rows[:, None]
    signs = torch.where(own, 1.0, -1.0)  # an assignment to the places would make a GPU wait
    return -F.logsigmoid(signs * (similarity * log_scale.exp() + bias)).sum() / len(rows)
