"""The head of the learned view policy: how likely a right caption is with each choice of views."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lavis_dynrefer.config import ScalePriorConfig
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.region_encoder import ViewFeatures
from lavis_dynrefer.views.model_priors import neighbours

_GEOMETRY = 11  # numbers about a box


class ScalePrior(nn.Module):
    """Scores choices of views by the region's own view and by the widest choice.

    Args:
        config: the candidates, and the width of the hidden layers.
        num_views: V, of a task.
        width: C, of the image encoder.
        query_numbers: Q * D, of a region.
    """

    choices: Tensor
    steps: Tensor

    def __init__(
        self, config: ScalePriorConfig, *, num_views: int, width: int, query_numbers: int
    ) -> None:
        super().__init__()
        self.candidates = config.candidates
        scales = neighbours(config.candidates, num_views - 1)
        # Which scales the outputs are about: a checkpoint with others does not fit.
        self.register_buffer("choices", torch.tensor(scales), persistent=False)  # (W, n)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))  # of training
        self.look = nn.Linear(query_numbers, config.width)
        inputs = _GEOMETRY + 2 * width + config.width
        self.scores = nn.Sequential(
            nn.LayerNorm(inputs),
            nn.Linear(inputs, config.width),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.width, len(scales)),
        )

    def forward(self, own: ViewFeatures, queries: Tensor, boxes: Tensor) -> Tensor:
        """Logits (B, W), higher where a right caption is likelier.

        Args:
            own: of the region's own view, (B, 1, ...).
            queries: (B, Q, D), of the own view and the widest choice.
            boxes: (B, 4) the region in the widest view, in shares of its side.
        """
        cells = own.maps[:, 0].flatten(2).mean(dim=2)
        seen = self.look(queries.flatten(1).float())
        inputs = [box_numbers(boxes), own.summary[:, 0].float(), cells.float(), seen]
        logits: Tensor = self.scores(torch.cat(inputs, dim=1))
        return logits

    def check(self, scales: Tensor) -> None:
        """Refuse other choices than those it was built for.

        Args:
            scales: (W, n).

        Raises:
            InputError: names both.
        """
        own = self.choices.cpu()
        if scales.shape != own.shape or not torch.allclose(scales, own):
            raise InputError(
                f"views: the model's scale_prior chooses among {_told(own)}, the view processor "
                f"offers {_told(scales)}; set its candidates as in model.scale_prior"
            )


def box_numbers(boxes: Tensor) -> Tensor:
    """(B, 11) corners, centre and size of boxes (B, 4) in shares of a side."""
    low, high = boxes[:, :2].float(), boxes[:, 2:].float()
    sides = (high - low).clamp(min=1e-3)
    area = sides.prod(dim=1, keepdim=True).sqrt()
    return torch.cat([low, high, (low + high) / 2, sides, area, sides.log()], dim=1)


def _told(scales: Tensor) -> list[Sequence[float]]:
    return [tuple(round(value, 4) for value in row) for row in scales.tolist()]
