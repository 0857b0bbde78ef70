"""`dynrefer predict --point`, with a tiny SAM of random weights."""

from __future__ import annotations

import json

from tiny_sam import needs_sam, save_tiny_sam

from lavis_dynrefer.cli import main
from lavis_dynrefer.detectors.sam import PointSegmenter
from lavis_dynrefer.images import boxes_of_masks
from lavis_dynrefer.synthetic import make_scene, render


@needs_sam
def test_points_are_answered_once(tmp_path, capsys):
    folder = save_tiny_sam(tmp_path / "sam")
    image = render(make_scene(0, 2_000_001))
    image.save(tmp_path / "image.png")
    command = ["predict", str(tmp_path / "image.png"), "--point", "10,10", "--point", "40,20.5"]
    command += ["--sam", str(folder), "--tasks", "caption", "--output", str(tmp_path / "out")]

    assert main([*command, "--device", "cpu"]) == 0

    (row,) = (tmp_path / "out" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    found = [region["box"] for region in json.loads(row)["regions"]]
    masks = PointSegmenter(folder)(image, [[10, 10], [40, 20.5]])
    assert found == boxes_of_masks(masks, image.size).tolist()
    capsys.readouterr()
    assert main([*command, "--device", "cpu"]) == 0
    assert (tmp_path / "out" / "results.jsonl").read_text(encoding="utf-8").splitlines() == [row]
