"""What turns logits into probabilities: a scale and a bias for each kind of answer.

They are buffers of the model and part of its checkpoints. A model that was never calibrated has
none; attributes and categories then take the scale and bias of the contrast loss, tags their logits
as they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lavis_dynrefer.models.probabilities.familiarity import Familiarity
from lavis_dynrefer.models.weights.tensor_reading import CheckpointError

KINDS = ("attributes", "categories", "tags")


class Calibration(nn.Module):
    """Scale and bias of each kind that was calibrated, and what is familiar."""

    def __init__(self) -> None:
        super().__init__()
        for kind in KINDS:
            self.register_buffer(kind, None)  # or (2,): scale and bias
        self.familiarity = Familiarity()

    def numbers(self, kind: str, contrast: nn.Module | None = None) -> Tensor | None:
        """Scale and bias (2,) where the model is; None: logits stay as they are.

        Args:
            kind: of `KINDS`.
            contrast: decoder whose trained `log_scale` and `bias` count in an uncalibrated model.
        """
        fitted: Tensor | None = getattr(self, kind)
        if fitted is not None or contrast is None:
            return fitted
        return torch.stack([contrast.log_scale.exp(), contrast.bias]).detach().float()

    def scaled(self, kind: str, logits: Tensor, contrast: nn.Module | None = None) -> Tensor:
        """Calibrated logits; the sigmoid of one is its probability. Arguments as for `numbers`."""
        numbers = self.numbers(kind, contrast)
        if numbers is None:
            return logits
        scale, bias = numbers.to(logits.device)
        return scale * logits + bias

    def fill(self, values: Mapping[str, Tensor], device: torch.device | None = None) -> None:
        """Take fitted values in place of all that there were.

        Args:
            values: by the names of the state dict.
            device: where they belong; None: where they are.

        Raises:
            CheckpointError: an unknown name.
        """
        self.forget()
        for name, value in values.items():
            owner, _, last = name.rpartition(".")
            module = self.familiarity if owner == "familiarity" else self
            if owner not in ("", "familiarity") or last not in module._buffers:
                raise CheckpointError(f"calibration.{name}: not a value of a calibration")
            setattr(module, last, value.detach().to(device, torch.float32, copy=True))

    def forget(self) -> None:
        """Become uncalibrated, as when the weights change."""
        for module in (self, self.familiarity):
            for name in module._buffers:
                setattr(module, name, None)


def on_host(logits: Tensor, *numbers: Tensor | None) -> tuple[Tensor, list[tuple[float, float]]]:
    """Logits on the CPU, with scales and biases, in one copy: each would stop a GPU for a moment.

    Args:
        logits: of any shape.
        numbers: of `Calibration.numbers`.

    Returns:
        float32 logits, and a scale and a bias for each of the numbers.
    """
    given = [torch.tensor([1.0, 0.0]) if one is None else one for one in numbers]
    away = [one.float() for one, known in zip(given, numbers) if known is not None]
    packed = torch.cat([logits.float().flatten(), *away]).cpu()
    moved = iter(packed[logits.numel() :].reshape(-1, 2))
    pairs = [
        tuple((one if known is None else next(moved)).tolist())
        for one, known in zip(given, numbers)
    ]
    return packed[: logits.numel()].view(logits.shape), [(scale, bias) for scale, bias in pairs]
