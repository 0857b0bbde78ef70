"""Scale and bias that make the sigmoids of logits probable: Platt's scaling, by LBFGS."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lavis_dynrefer.errors import InputError

_STEPS = 200


def fit_scale_and_bias(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """For answers that are right or wrong on their own: attributes, tags.

    Targets are Platt's, a little inside of 0 and 1, so that separable answers have a finite scale.

    Args:
        logits: (N,).
        labels: (N,) of 1 and 0.

    Raises:
        InputError: none is right, or all are.
    """
    right = labels.double()
    count = right.sum()
    if not 0 < count < len(right):
        raise InputError(f"{int(count)} of {len(right)} labels are 1; both kinds are needed")
    wrong = len(right) - count
    targets = torch.where(right > 0, (count + 1) / (count + 2), 1 / (wrong + 2))

    def loss(scaled: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(scaled, targets)

    return _fit(logits.double(), loss)


def fit_categories(logits: Tensor, own: Tensor, *, seed: int = 0) -> tuple[float, float]:
    """For names of which one is right, or none; see `text_answers.category_probabilities`.

    Each region counts twice: with all names, and with a random half of them, in which its own may
    be missing, so that "none of these" has examples.

    Args:
        logits: (N, K).
        own: (N,) which of the names is right.
        seed: of the halves.

    Raises:
        InputError: a single name.
    """
    rows, names = logits.shape
    if names < 2:
        raise InputError("categories: expected at least two names")
    asked, none = random_halves(logits, own, seed=seed)
    kept = torch.cat([torch.ones_like(asked), asked])
    targets = torch.cat([own, none])
    twice = logits.double().repeat(2, 1)
    smoothing = 1 / (2 * rows + 2)

    def loss(scaled: Tensor) -> Tensor:
        scaled = scaled.masked_fill(~kept, -1e4)
        free = torch.zeros(len(scaled), 1, dtype=scaled.dtype)
        odds = torch.cat([scaled, free], dim=1).log_softmax(dim=1)
        hit = F.nll_loss(odds, targets)
        even = -(odds[:, :-1] * kept).sum() / kept.sum()
        return (1 - smoothing) * hit + smoothing * even

    return _fit(twice, loss)


def random_halves(logits: Tensor, own: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
    """About half of the names for each region, at least one, and which of them is right.

    Returns:
        (N, K) bool; (N,) index of the right name, K where it is not asked.
    """
    rows, names = logits.shape
    rng = torch.Generator().manual_seed(seed)
    asked = torch.rand(rows, names, generator=rng) < 0.5
    asked[torch.arange(rows), torch.randint(names, (rows,), generator=rng)] = True
    there = asked[torch.arange(rows), own]
    return asked, torch.where(there, own, torch.full_like(own, names))


def _fit(logits: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """Minimise over scale and bias; logits are standardised first, so that any scale is reached."""
    mean, spread = logits.mean(), logits.std().clamp(min=1e-9)
    standard = (logits - mean) / spread
    log_scale = torch.zeros((), dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_scale, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def step() -> Tensor:
        optimizer.zero_grad()
        value = loss(standard * log_scale.exp() + bias)
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(step)
    scale = float(log_scale.detach().exp() / spread)
    return scale, float(bias.detach()) - scale * float(mean)
