"""`dynrefer calibrate`: what it refuses, and a checkpoint before and after."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from lavis_dynrefer import RegionPredictor
from lavis_dynrefer.cli import main
from lavis_dynrefer.datasets.region_dataset import RegionDataset
from lavis_dynrefer.paths import resource_path
from lavis_dynrefer.structures import ImageRecord, RegionRecord, RegionSet
from lavis_dynrefer.synthetic import make_scene, render
from lavis_dynrefer.training.calibrating.calibration_run import Source, calibrate
from lavis_dynrefer.training.calibrating.labelled_logits import read_logits
from lavis_dynrefer.views.model_priors import ConfidencePrior
from lavis_dynrefer.views.policies import FixedScales
from lavis_dynrefer.views.view_processor import ViewProcessor

RUN_FILE = "projects/dynrefer/tune_tiny.yaml"
SMALL = [f"datasets.synthetic_region.build_info.{key}" for key in ("scenes=60", "seed=5")]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["model.onnx"], "expected the folder of a run, or a checkpoint"),
        (["."], "a run with one of"),
        (["model.safetensors", "--output", "model.pth"], "expected the name of a .safetensors"),
        (["model.safetensors"], "--data"),
    ],
)
def test_calls_that_cannot_work(words, complaint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    assert main(["calibrate", *words]) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.slow
def test_a_checkpoint_becomes_calibrated(tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    shutil.copy(resource_path("assets/tiny/model.safetensors", key="model"), path)
    scene = make_scene(1, 2_000_001)
    boxes = [list(item.box) for item in scene.objects]
    before = RegionPredictor("tiny", checkpoint=str(path)).predict(render(scene), boxes)

    words = ["--data", RUN_FILE, "--regions", "60", "--options", *SMALL]
    assert main(["calibrate", str(path), *words]) == 0
    after = RegionPredictor("tiny", checkpoint=str(path)).predict(render(scene), boxes)
    report = json.loads((tmp_path / "calibration.json").read_text(encoding="utf-8"))

    # Scores alone are compared.
    assert [one.attributes for one in after] == [one.attributes for one in before]
    assert report["kinds"].keys() == {"attributes", "categories", "tags"}
    assert all(one["after"]["error"] < 0.2 for one in report["kinds"].values())
    assert report["kinds"]["attributes"]["is_test_split"]
    assert not report["kinds"]["tags"]["is_test_split"]
    assert all(one.familiarity is not None for one in after)
    assert "familiar: " in capsys.readouterr().out


def split_of_one_image(folder) -> RegionSet:
    scene = make_scene(0, 2_000_001)
    render(scene).save(folder / "scene.png")
    images = {1: ImageRecord(1, str(folder / "scene.png"), *render(scene).size)}
    names = ("ball", "tree")
    regions = [
        RegionRecord(number, 1, item.box, category=names[number % 2])
        for number, item in enumerate(scene.objects)
    ]
    return RegionSet("toy", "val", images, regions, category_names=names)


def test_labels_of_one_image_calibrate_nothing_and_that_is_said(tmp_path, caplog):
    predictor = RegionPredictor("tiny", device="cpu")
    processor = ViewProcessor(FixedScales([0, 0.6]), image_size=64)
    dataset = RegionDataset(split_of_one_image(tmp_path), processor, train=False)
    sources = {"categories": Source("toy", "val", dataset, is_test=False)}

    values, report = calibrate(predictor.answerer, sources, [], taggers={"toy": str.split})

    assert (values, report["kinds"]) == ({}, {})
    assert "categories are not calibrated: all labelled regions are in one half" in caplog.text


def test_logits_are_of_the_views_that_the_model_would_use(tmp_path):
    predictor, split = RegionPredictor("tiny", device="cpu"), split_of_one_image(tmp_path)

    def logits(policy):
        dataset = RegionDataset(split, ViewProcessor(policy, image_size=64), train=False)
        read = read_logits(predictor.answerer, dataset, ["categories"], tagger=str.split, most=9)
        return read["categories"].logits

    either = torch.stack([logits(FixedScales([0, scale])) for scale in (0.6, 0.7)])
    chosen = logits(ConfidencePrior(2, candidates=[0.6, 0.7]))

    # Of each region from one of the two pairs of views.
    assert torch.isclose(either, chosen, atol=1e-4).all(dim=2).any(dim=0).all()
