"""`to`, `float`, `half` and `bfloat16`, where LAVIS and others call them on a whole model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lavis_dynrefer.models.precision import HALVES, choose_device, refuse_half_weights

if TYPE_CHECKING:
    from typing_extensions import Self


class FormatCalls(nn.Module):
    """Weights keep the number formats that they are stored in; `predict` chooses others."""

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """As any module, but not to half precision.

        Raises:
            InputError: a device that is not there, or float16 or bfloat16.
        """
        refuse_half_weights(*args, *kwargs.values())
        device = kwargs.get("device", args[0] if args else None)
        if isinstance(device, (str, int, torch.device)) and str(device) != "meta":
            choose_device(device)
        return super().to(*args, **kwargs)

    def float(self) -> Self:
        """To float32, but for frozen weights that are stored in half precision.

        Their products are computed in float32 all the same. LAVIS calls this on a CPU, where it
        would double the memory.
        """
        kept = {id(weight) for weight in self.parameters() if not weight.requires_grad}
        return self._apply(
            lambda value: (
                value
                if not value.is_floating_point() or (id(value) in kept and value.dtype in HALVES)
                else value.to(torch.float32)
            )
        )

    def half(self) -> Self:
        """Refused: T5 overflows in float16."""
        return self.to(torch.float16)

    def bfloat16(self) -> Self:
        """Refused: choose the number format by dtype."""
        return self.to(torch.bfloat16)
