"""Regions from the proposal network of torchvision's Faster R-CNN, with random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn
from torchvision.transforms.functional import to_tensor

from lavis_dynrefer.detectors.region_proposals import RegionProposer


@pytest.fixture(scope="module")
def detector():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    return made.eval()


@pytest.fixture(scope="module")
def weights(detector, tmp_path_factory):
    """Without the classification heads, which may be those of other classes."""
    state = {k: v for k, v in detector.state_dict().items() if not k.startswith("roi_heads.")}
    path = tmp_path_factory.mktemp("weights") / "detector.pth"
    torch.save(state, path)
    return path


def test_proposals_are_the_detectors_best_in_image_pixels(detector, weights):
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    seen = []
    hook = detector.rpn.register_forward_hook(
        lambda _, inputs, output: seen.append((inputs, output))
    )
    with torch.no_grad():
        detector([to_tensor(image)])
    hook.remove()
    (images, *_), (boxes, _) = seen[0]
    height, width = images.image_sizes[0]
    expected = boxes[0] * torch.tensor([400 / width, 300 / height, 400 / width, 300 / height])
    proposals = RegionProposer(weights, count=7)(image)
    assert torch.allclose(proposals, expected[:7], atol=1e-3)
    assert (proposals >= 0).all()
    assert (proposals <= torch.tensor([400, 300, 400, 300])).all()


def test_other_weights_are_refused(tmp_path):
    torch.save({"head.weight": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth: expected .* names such as 'head\.weight'"):
        RegionProposer(tmp_path / "other.pth", count=1)


def test_missing_weights_are_counted(weights, tmp_path):
    state = torch.load(weights, weights_only=True)
    del state["rpn.head.cls_logits.bias"]
    torch.save(state, tmp_path / "some.pth")
    with pytest.raises(ValueError, match=r"1 weights are missing, such as 'rpn\.head\.cls_logits"):
        RegionProposer(tmp_path / "some.pth", count=1)
