"""What turns logits into probabilities: a scale and a bias for each kind of answer.

They are buffers of the model and part of its checkpoints. A model that was never calibrated has
none; attributes and categories then take the scale and bias of the contrast loss, tags their logits
as they are.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

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
        self._known: dict[str, tuple[Hashable, tuple[float, float]]] = {}

    def scaled(self, kind: str, logits: Tensor, contrast: nn.Module | None = None) -> Tensor:
        """Calibrated logits; the sigmoid of one is its probability.

        Args:
            kind: of `KINDS`.
            logits: of any shape, on the CPU.
            contrast: decoder whose trained `log_scale` and `bias` count in an uncalibrated model.
        """
        fitted = getattr(self, kind)
        if fitted is not None:
            scale, bias = self._numbers(kind, fitted)
        elif contrast is not None:
            trained = contrast.log_scale, contrast.bias
            scale, bias = self._numbers("trained", *trained)
        else:
            return logits
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
        self._known.clear()

    def _numbers(self, key: str, *tensors: Tensor) -> tuple[float, float]:
        """Scale and bias on the host; copied again when they change."""
        version = tuple((tensor.data_ptr(), tensor._version) for tensor in tensors)
        known = self._known.get(key)
        if known is None or known[0] != version:
            values = torch.cat([tensor.detach().float().reshape(-1) for tensor in tensors]).tolist()
            scale = values[0] if len(tensors) == 1 else float(torch.tensor(values[0]).exp())
            known = version, (scale, values[1])
            self._known[key] = known
        return known[1]
