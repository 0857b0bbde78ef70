"""Muon: momentum whose matrices are made orthogonal, beside AdamW for everything else."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# The quintic iteration of https://kellerjordan.github.io/posts/muon: after five steps singular
# values that were not tiny are about 0.7 to 1.2, which serves as well as exactly 1.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5
RMS = 0.2  # of an update, as of AdamW's: the same learning rates serve (arXiv:2502.16982)
MATRICES = "matrices"  # key of a parameter group


class Muon(torch.optim.AdamW):
    """One optimiser for all parameters of a model: Muon for groups of matrices, else AdamW.

    `torch.optim.Muon` takes matrices only, and iterates in bfloat16, which takes several times as
    long on a CPU without it.

    Args:
        groups: parameter groups; `matrices: true` marks those of Muon.
        lr: learning rate of both.
        momentum: of Muon, with Nesterov's correction.
        options: those of AdamW.
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, lr: float, momentum: float = 0.95, **options: Any
    ) -> None:
        own = {MATRICES: False, "momentum": momentum}
        super().__init__([{**own, **group} for group in groups], lr=lr, **options)
        self.defaults["momentum"] = momentum  # tells its checkpoints from those of AdamW

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step on the gradients there are; those of the matrices are gone after it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"] if group[MATRICES] else ():
                if weight.grad is not None:
                    self._step_matrix(weight, group)
                    weight.grad = None  # AdamW leaves it as it is
        super().step()
        return loss

    def _step_matrix(self, weight: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)  # counted as by AdamW
            state["momentum_buffer"] = torch.zeros_like(weight)
        state["step"] += 1
        buffer = state["momentum_buffer"].lerp_(weight.grad, 1 - group["momentum"])
        update = orthogonalize(weight.grad.lerp(buffer, group["momentum"]))
        scale = RMS * math.sqrt(max(weight.shape))
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(update, alpha=-group["lr"] * scale)


def orthogonalize(matrix: Tensor) -> Tensor:
    """The matrix (m, n) with all its singular values near 1, in the number format it came in."""
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    exact = torch.promote_types(matrix.dtype, torch.float32)
    fast = torch.bfloat16 if matrix.device.type == "cuda" else exact
    result = (wide / wide.norm().clamp(min=torch.finfo(exact).tiny)).to(fast)
    first, third, fifth = COEFFICIENTS
    for _ in range(STEPS):
        gram = result @ result.T
        result = first * result + (third * gram + fifth * gram @ gram) @ result
    return (result.T if wide is not matrix else result).to(matrix.dtype)
