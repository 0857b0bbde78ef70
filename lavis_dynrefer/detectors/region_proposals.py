"""Regions worth describing, from the region proposal network of a detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.precision import choose_device
from lavis_dynrefer.models.weights.tensor_reading import read_state_dict

_PARTS = ("backbone.", "rpn.")  # the classification heads are not needed
# A name that only this architecture has -> its builder in torchvision.models.detection.
_BUILDERS = {
    "backbone.body.layer1.0.conv1.weight": "fasterrcnn_resnet50_fpn",
    "backbone.body.0.0.weight": "fasterrcnn_mobilenet_v3_large_320_fpn",
}


class RegionProposer:
    """The best proposals of torchvision's Faster R-CNN, trained on any classes.

    Args:
        weights: state dict file of `fasterrcnn_resnet50_fpn` or
            `fasterrcnn_mobilenet_v3_large_320_fpn`.
        count: maximum number of regions per image.
        device: where the network runs.

    Raises:
        MissingFileError: there is no such file.
        InputError: weights of another network, or a device that is not there.
    """

    def __init__(self, weights: Path, *, count: int, device: str | torch.device = "cpu") -> None:
        self._device = choose_device(device)
        self._detector = _load(weights).to(self._device)
        self._count = count

    @torch.no_grad()
    def __call__(self, image: Image.Image) -> Tensor:
        """Boxes (R, 4) on the CPU, xyxy in pixels, best first; R is 0 to `count`."""
        from torchvision.ops import clip_boxes_to_image
        from torchvision.transforms.functional import to_tensor

        detector = self._detector
        pixels, _ = detector.transform([to_tensor(image).to(self._device)])
        proposals, _ = detector.rpn(pixels, detector.backbone(pixels.tensors))
        height, width = pixels.image_sizes[0]
        scale = torch.tensor([image.width / width, image.height / height]).repeat(2)
        boxes: Tensor = clip_boxes_to_image(proposals[0].cpu() * scale, (image.height, image.width))
        return boxes[: self._count]


def _load(weights: Path) -> Any:
    from torchvision.models import detection

    state = read_state_dict(weights)
    builder = next((build for name, build in _BUILDERS.items() if name in state), None)
    if builder is None:
        raise InputError(
            f"{weights}: expected weights of torchvision's {' or '.join(_BUILDERS.values())}, "
            f"got names such as {next(iter(state), None)!r}"
        )
    detector = getattr(detection, builder)(weights=None, weights_backbone=None)
    kept = {name: value for name, value in state.items() if name.startswith(_PARTS)}
    try:
        missing = detector.load_state_dict(kept, strict=False).missing_keys
    except RuntimeError as error:
        raise InputError(f"{weights}: {error}") from error
    missing = [name for name in missing if name.startswith(_PARTS)]
    if missing:
        raise InputError(f"{weights}: {len(missing)} weights are missing, such as {missing[0]!r}")
    return detector.eval()
