"""Random scales of training views that are sampled where the captions cost most."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.choosing.scale_losses import ScaleLosses
from lavis_dynrefer.views.policies import RandomScales

BATCHES = 100  # between two updates; the workers of a loader then begin anew with the weights


class ScaleWeights:
    """Tells the policies of training sets what the model has lost at each scale.

    A policy is copied to the workers of a loader when they begin. The loader therefore ends its
    workers before an update, so that a batch never depends on how far ahead they were.

    Args:
        policies: with `weights: loss`.
        losses: that the model adds to.
    """

    def __init__(self, policies: Iterable[RandomScales], losses: ScaleLosses) -> None:
        self._policies = tuple(policies)
        self._losses = losses

    def before(self, step: int) -> int:
        """Update the weights if a step is due for it; returns the step to stop at for the next."""
        if step % BATCHES == 0:
            self._losses.update()
        for policy in self._policies:
            policy.shares = self._losses.weights(policy.candidates.tolist())
        return step - step % BATCHES + BATCHES


def weigh_scales_by_loss(model: nn.Module, datasets: Iterable[Any]) -> ScaleWeights | None:
    """Prepare model and datasets; None if no policy has `weights: loss`.

    Raises:
        InputError: another kind of model.
    """
    policies = [getattr(getattr(part, "vis_processor", None), "policy", None) for part in datasets]
    chosen = [one for one in policies if isinstance(one, RandomScales) and one.by_loss]
    if not chosen:
        return None
    if not hasattr(model, "scale_losses"):
        raise InputError(
            f"vis_processor.train.weights: {type(model).__name__} does not tell its losses by "
            "scale; leave the option out"
        )
    losses = ScaleLosses([scale for policy in chosen for scale in policy.candidates.tolist()])
    model.scale_losses = losses
    return ScaleWeights(chosen, losses)
