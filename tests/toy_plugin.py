"""A toy model, task and dataset, registered with LAVIS like any plugin's, to run the runner on."""

from __future__ import annotations

import io
import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from lavis.common.config import Config
from lavis.common.dist_utils import is_main_process
from lavis.common.registry import registry
from lavis.datasets.builders.base_dataset_builder import BaseDatasetBuilder
from lavis.datasets.data_utils import prepare_sample
from lavis.models.base_model import BaseModel
from lavis.tasks import BaseTask, setup_task
from omegaconf import OmegaConf
from torch import nn
from torch.utils.data import Dataset, default_collate

from lavis_dynrefer.training.runner import DynReferRunner


@registry.register_model("toy_regression")
class ToyModel(BaseModel):
    def __init__(self, width, num_unused, frozen):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(2, width).requires_grad_(False)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(width, 1)
        self.unused = nn.Parameter(torch.zeros(num_unused)) if num_unused else None
        if frozen:
            self.requires_grad_(False)

    @classmethod
    def default_config_path(cls, model_type):
        return io.StringIO("model: {width: 4, num_unused: 0, frozen: false}")

    @classmethod
    def from_config(cls, cfg):
        return cls(cfg.width, cfg.num_unused, cfg.frozen)

    def predict(self, samples):
        return self.head(self.dropout(self.encoder(samples["point"])))[:, 0]

    def forward(self, samples):
        return {"loss": (self.predict(samples) - samples["target"]).square().mean()}


class ToyPoints(Dataset):
    def __init__(self, size, noise=0.0):
        self.points = torch.randn(size, 2, generator=torch.Generator().manual_seed(size))
        self.noise = noise

    def __len__(self):
        return len(self.points)

    def __getitem__(self, index):
        point = self.points[index]
        seen = point + self.noise * torch.randn(2)
        return {"index": index, "point": seen, "target": point.sum()}

    def collater(self, samples):
        return {**default_collate(samples), "region_ids": [item["index"] for item in samples]}


@registry.register_builder("toy_points")
class ToyBuilder(BaseDatasetBuilder):
    @classmethod
    def default_config_path(cls, type="default"):
        return io.StringIO("datasets: {toy_points: {data_type: images, sizes: {}}}")

    def _download_data(self):
        pass

    def build(self):
        noise = {"train": 0.1}  # as the random views of regions
        return {
            split: ToyPoints(size, noise.get(split, 0.0))
            for split, size in self.config.sizes.items()
        }


@registry.register_task("toy_regression")
class ToyTask(BaseTask):
    def __init__(self, run):
        super().__init__()
        self.run = run

    @classmethod
    def setup_task(cls, cfg):
        return cls(cfg.run_cfg)

    def train_epoch(
        self, epoch, model, data_loader, optimizer, lr_scheduler, cuda_enabled, **unused
    ):
        seen = []
        for step, samples in enumerate(data_loader):
            if [epoch, step] == self.run.get("crash_at"):
                raise KeyboardInterrupt
            lr_scheduler.step(cur_epoch=epoch, cur_step=step)
            self.train_step(model, prepare_sample(samples, cuda_enabled)).backward()
            optimizer.step()
            optimizer.zero_grad()
            seen += samples["index"].tolist()
        return {"seen": seen}

    def valid_step(self, model, samples):
        errors = (model.predict(samples) - samples["target"]).abs()
        return list(zip(samples["index"].tolist(), errors.tolist()))

    def evaluation(self, model, data_loader, cuda_enabled):  # LAVIS's divides by len(data_loader)
        batches = (prepare_sample(samples, cuda_enabled) for samples in data_loader)
        return [result for samples in batches for result in self.valid_step(model, samples)]

    def after_evaluation(self, val_result, split_name, epoch):
        name = f"{split_name}_{epoch}"
        merged = self.save_result(val_result, registry.get_path("result_dir"), name)
        if not is_main_process():
            return None
        results = json.loads(Path(merged).read_text(encoding="utf-8"))
        scripted = self.run.get("scripted_metrics", {}).get(split_name)
        return {
            "agg_metrics": -float(np.mean([error for _, error in results]))
            if scripted is None or isinstance(epoch, str)
            else float(scripted[epoch]),
            "indices": sorted(index for index, _ in results),
            "weight": model_weight(self.model),
        }

    def before_evaluation(self, model, dataset):
        super().before_evaluation(model, dataset)
        self.model = model


def model_weight(model):
    return model.head.weight.flatten().tolist()


def make_runner(folder, job="job", *, sizes=None, model=None, **run):
    run = {
        "task": "toy_regression",
        "lr_sched": "linear_warmup_cosine_lr",
        "init_lr": 0.1,
        "min_lr": 0.01,
        "weight_decay": 0.05,
        "max_epoch": 2,
        "batch_size_train": 3,
        "batch_size_eval": 2,
        "num_workers": 0,
        "seed": 7,
        "output_dir": str(folder),
        "evaluate": False,
        "device": "cpu",
        "distributed": True,  # as in LAVIS's own configs, whether or not there is a group
        "train_splits": ["train"],
        "valid_splits": ["val"],
        "test_splits": ["test"],
        **run,
    }
    sizes = sizes or {"train": 10, "val": 5, "test": 7}
    content = {
        "run": run,
        "model": {"arch": "toy_regression", "model_type": "default", **(model or {})},
        "datasets": {"toy_points": {"sizes": sizes}},
    }
    yaml = io.StringIO(OmegaConf.to_yaml(OmegaConf.create(content)))
    config = Config(Namespace(cfg_path=yaml, options=None))
    task = setup_task(config)
    return DynReferRunner(config, task, task.build_model(config), task.build_datasets(config), job)


class Killed(BaseException):
    """The process is gone."""


def step_runner(folder, job="job", **run):
    """A run of 5 batches an epoch with our task, whose loop saves and stops within an epoch."""
    return make_runner(
        folder,
        job,
        task="dynrefer",
        valid_splits=[],
        test_splits=[],
        **{
            "sizes": {"train": 15},
            "max_epoch": 3,
            "resume_ckpt_path": "auto",
            "resume_in_place": True,
            **run,
        },
    )


def at_batch(runner, number, act):
    """Call `act` in the forward pass of the `number`-th batch, counted from 0 over all epochs."""
    batches = iter(range(number + 1))

    def hook(module, inputs):
        if next(batches, None) == number:
            act()

    runner.model.register_forward_pre_hook(hook)


def kill():
    raise Killed


def logged(folder, key):
    lines = (Path(folder) / "log.txt").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)[key] for line in lines if line.startswith(f'{{"{key.split("_")[0]}_')]
