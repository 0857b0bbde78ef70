"""Training of the learned view policy, from what the frozen model makes of each choice of views."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lavis_dynrefer.models.choosing.scale_choice import SeenViews, prior_inputs
from lavis_dynrefer.models.choosing.scale_prior import ScalePrior
from lavis_dynrefer.models.region_encoder import ViewFeatures
from lavis_dynrefer.views.samples import CHOICE
from lavis_dynrefer.vocab.control_words import control_prompt

if TYPE_CHECKING:
    from lavis_dynrefer.models.answering import Answerer

# Losses are per token: this many make a caption. Fixed, so that long captions do not count more.
TOKENS = 10.0


def examples_of(
    answerer: Answerer, prior: ScalePrior, sample: Mapping[str, Any]
) -> tuple[tuple[ViewFeatures, Tensor, Tensor], Tensor]:
    """What the head sees of regions, and what their captions cost with each choice of views.

    Args:
        answerer: of the frozen model.
        prior: the head.
        sample: regions with a choice, captions, and controls, which steer the captions here if the
            tags found do so at inference.

    Returns:
        Arguments of the head; mean cross-entropies per token (B, W).
    """
    ((_, choices),) = sample[CHOICE].items()
    choices = choices.cpu()
    captions, steered = sample["captions"], answerer.model.caption_config.steer_by_tags
    prompts = sample["controls"] if steered else [control_prompt([])] * len(captions)
    with torch.no_grad():
        seen = SeenViews(answerer, sample)
        costs = [
            answerer.caption_losses(seen.queries(choice), prompts, captions)
            for choice in choices.unbind(1)
        ]
        return prior_inputs(answerer, prior, seen, choices), torch.stack(costs, dim=1).float()


def prior_losses(logits: Tensor, costs: Tensor) -> dict[str, Tensor]:
    """Cross-entropy between what the head and what the captions say about the choices, (B, W).

    Returns:
        "loss"; "loss_chosen", per token of the captions with the views that the head would choose;
        "loss_fixed", with the same views for all regions of the batch, the best ones for them.
    """
    target = (-TOKENS * costs).softmax(dim=1)
    loss = -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()
    chosen = costs.gather(1, logits.argmax(dim=1, keepdim=True)).mean()
    return {"loss": loss, "loss_chosen": chosen, "loss_fixed": costs.mean(dim=0).min()}
