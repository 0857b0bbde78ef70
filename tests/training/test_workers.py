"""Loader processes that are started anew, as on macOS and Windows and by newer Pythons."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lavis.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image

from lavis_dynrefer.host.registration import MODULES
from lavis_dynrefer.training.loaders import TrainingLoader
from lavis_dynrefer.training.run_config import load_run_config
from lavis_dynrefer.training.run_settings import RunSettings

ROOT = Path(__file__).parents[2]
RUN = """
model: {arch: dynrefer, model_type: tiny}
datasets:
  custom_region:
    build_info:
      root: .
      images: {storage: .}
      annotations: {train: plain.json, val: plain.json}
run:
  task: dynrefer
  device: cpu
  max_epoch: 1
  init_lr: 1e-3
  batch_size_train: 2
  num_workers: 1
  valid_splits: [val]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run on two images of two regions each; the current folder."""
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        Image.linear_gradient("L").resize((90, 60)).save(f"{number}.png")
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 90, "height": 60} for n in (1, 2)],
        "annotations": [
            {"id": n, "image_id": 1 + n % 2, "bbox": [5, 5, 30, 8 * n], "caption": "a red square"}
            for n in (1, 2, 3, 4)
        ],
    }
    (tmp_path / "plain.json").write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "run.yaml").write_text(RUN, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", MODULES["processor_name_mapping"])
def test_processors_can_be_sent_to_workers(name):
    kind = registry.get_processor_class(name)
    processor = kind.from_config(OmegaConf.create({"name": name, "num_views": 2}))
    sent = pickle.loads(pickle.dumps(processor))
    image = Image.linear_gradient("L")
    torch.manual_seed(0)
    expected = processor(image, [[0, 0, 9, 9]])
    torch.manual_seed(0)
    assert torch.equal(sent(image, [[0, 0, 9, 9]])["views"], expected["views"])


def datasets():
    config = load_run_config("run.yaml")
    builder = registry.get_builder_class("custom_region")
    return builder(config.datasets_cfg.custom_region).build_datasets()


@pytest.fixture
def training(folder):
    """The dataset to train on, and a function that makes its loader."""
    split = datasets()["train"]

    def loader(workers=0):
        run = RunSettings(evaluate=True, batch_size_train=2, num_workers=workers)
        loader = TrainingLoader(split, run, cuda=False)
        loader.start_epoch(0)
        return loader

    return loader


def check_same(found, expected):
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected):
        assert one["region_ids"] == other["region_ids"]
        assert torch.equal(one["views"], other["views"])


def test_what_workers_are_sent_loads_the_same_samples(training):
    loader = training()._loader
    sent = loader.dataset, loader.collate_fn, loader.worker_init_fn
    dataset, collate, _ = pickle.loads(pickle.dumps(sent))

    found = [collate([dataset[drawn] for drawn in batch]) for batch in loader.batch_sampler]

    check_same(found, list(training()))


@pytest.fixture
def _own_start_method():
    before = multiprocessing.get_start_method()
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.slow
@pytest.mark.usefixtures("_own_start_method")
def test_workers_that_are_started_anew_load_the_same_samples(training):
    expected = list(training())
    multiprocessing.set_start_method("spawn", force=True)
    check_same(list(training(workers=1)), expected)


QUICKSTART = ["datasets.synthetic_region.build_info.scenes=20", "run.max_epoch=1"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize(
    "command",
    [
        ["-m", "lavis_dynrefer.train", "--cfg-path", "run.yaml"],
        ["-m", "lavis_dynrefer.evaluate", "--cfg-path", "run.yaml"],
        ["-m", "lavis_dynrefer.cli", "quickstart", "--options", "run.num_workers=1", *QUICKSTART],
    ],
    ids=["train", "evaluate", "quickstart"],
)
def test_commands_run_with_any_way_to_start_workers(folder, command, method):
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        f"import multiprocessing\nmultiprocessing.set_start_method({method!r}, force=True)\n",
        encoding="utf-8",
    )
    path = os.pathsep.join([str(ROOT), str(site)])
    result = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
