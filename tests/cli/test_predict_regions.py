"""Regions that a detector proposes."""

from __future__ import annotations

import json

import pytest
import torch
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn


def test_proposed_regions_are_answered_once(image, predict, tmp_path):
    detector = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    torch.save(detector.state_dict(), tmp_path / "detector.pth")
    arguments = ["--proposals", "rpn", "--proposal-weights", tmp_path / "detector.pth"]
    few = ["--proposal-count", "3", "--tasks", "tags", "--output", tmp_path / "out"]

    assert predict(image, *arguments, *few) == 0
    before = (tmp_path / "out" / "results.jsonl").read_text()
    assert len(json.loads(before)["regions"]) == 3

    assert predict(image, *arguments, *few) == 0
    assert (tmp_path / "out" / "results.jsonl").read_text() == before


def test_detector_and_model_share_the_device(image, predict, tmp_path, monkeypatch):
    devices = []

    def proposer(weights, *, count, device):
        devices.append(device)
        return lambda image: torch.zeros(0, 4)

    monkeypatch.setattr("lavis_dynrefer.detectors.region_proposals.RegionProposer", proposer)
    arguments = ["--proposals", "rpn", "--proposal-weights", tmp_path / "detector.pth"]

    assert predict(image, *arguments, "--device", "cpu", "--tasks", "tags") == 0
    assert devices == [torch.device("cpu")]


@pytest.mark.parametrize("options", [[], ["--explain"]])
def test_errors_of_torch_in_a_detector_end_the_run(image, predict, tmp_path, monkeypatch, options):
    def fail(self, image):
        raise RuntimeError("CUDA error: device-side assert triggered")

    proposer = "lavis_dynrefer.detectors.region_proposals.RegionProposer"
    monkeypatch.setattr(f"{proposer}.__init__", lambda self, *arguments, **options: None)
    monkeypatch.setattr(f"{proposer}.__call__", fail)
    arguments = ["--proposals", "rpn", "--proposal-weights", tmp_path / "detector.pth"]

    with pytest.raises(RuntimeError, match="device-side assert"):
        predict(image, *arguments, "--tasks", "tags", "--output", tmp_path / "out", *options)
