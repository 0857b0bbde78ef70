"""Training on a GPU: gradients, mixed precision, waits, loaders, resumed runs."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from toy_plugin import ToyPoints

from lavis_dynrefer.models.precision import AMP_DTYPES, autocast
from lavis_dynrefer.training import loaders
from lavis_dynrefer.training.launch import launch
from lavis_dynrefer.training.loop.epoch_loop import train_epoch
from lavis_dynrefer.training.run_settings import RunSettings, TaskSettings, read_settings

# To the GPU: prompts, captions for the language model, captions for the contrast, tags. From it:
# the losses, and in float16 whether the gradients are finite.
STEP = 6
SYNTHETIC = "projects/dynrefer/synthetic.yaml"


def on_gpu(batch, gpu):
    return {
        key: value.to(gpu.device) if isinstance(value, torch.Tensor) else value
        for key, value in batch.items()
    }


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def test_gradients_are_those_of_the_cpu(training_gpu, smallest_model, region_batch):
    smallest_model.cpu().eval()  # filled on the imitated device, where there is one; no dropout
    there = copy.deepcopy(smallest_model).to(training_gpu.device)
    expected = smallest_model(region_batch)
    expected["loss"].backward()

    losses = there(on_gpu(region_batch, training_gpu))
    losses["loss"].backward()

    found = {name: value.item() for name, value in losses.items()}
    assert found == pytest.approx({n: value.item() for n, value in expected.items()}, rel=1e-3)
    for name, gradient in gradients(smallest_model).items():
        there_gradient = gradients(there)[name].cpu()
        difference = (there_gradient - gradient).norm() / gradient.norm().clamp(min=1e-3)
        assert difference.item() < 1e-2, name


@pytest.mark.parametrize("amp", list(AMP_DTYPES))
def test_every_trained_weight_gets_a_finite_gradient(
    training_gpu, smallest_model, region_batch, amp
):
    model = smallest_model.train().to(training_gpu.device)
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**8, enabled=amp == "fp16")
    with autocast(training_gpu.device, amp):
        losses = model(on_gpu(region_batch, training_gpu))

    scaler.scale(losses["loss"]).backward()

    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    for name, gradient in gradients(model).items():
        assert gradient is not None, name
        assert bool(gradient.isfinite().all()), name


class Schedule:
    def step(self, cur_epoch, cur_step):
        pass


def test_waits_of_a_training_step(training_gpu, smallest_model, region_batch, record_property):
    model = smallest_model.train().to(training_gpu.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler("cuda")
    run = {"amp": True, "amp_dtype": "fp16", "max_grad_norm": 1.0}

    def waits_of(steps):
        batches = [on_gpu(region_batch, training_gpu) for _ in range(steps)]
        with training_gpu.counted() as waits:
            train_epoch(
                0,
                model,
                batches,
                optimizer,
                Schedule(),
                settings=read_settings(TaskSettings, run),
                scaler=scaler,
                cuda_enabled=True,
            )
        return waits

    waits_of(1)  # the optimiser and the cache of texts are filled now
    more, fewer = waits_of(3), waits_of(1)

    record_property(f"waits per step, at most {STEP}", (len(more) - len(fewer)) / 2)
    assert len(more) - len(fewer) <= 2 * STEP, more


@pytest.mark.parametrize("split", ["train", "test"])
def test_loaders_bring_the_same_batches(training_gpu, split):
    run = {"batch_size_train": 3, "batch_size_eval": 3, "num_workers": training_gpu.workers}
    settings = read_settings(RunSettings, {**run, "max_epoch": 1, "init_lr": 0.1})
    make = loaders.TrainingLoader if split == "train" else loaders.evaluation_loader

    def points(*, cuda):
        batches = list(make(ToyPoints(7), settings, cuda=cuda))
        assert {batch["point"].device.type for batch in batches} == {"cuda" if cuda else "cpu"}
        return [batch["point"].tolist() for batch in batches]

    assert points(cuda=True) == points(cuda=False)


def test_a_resumed_run_goes_on_with_its_gradient_scaler(training_gpu, tmp_path):
    options = [
        "datasets.synthetic_region.build_info.scenes=3",
        "run.device=cuda",
        "run.amp=true",
        "run.amp_dtype=fp16",
        "run.batch_size_train=7",
        "run.batch_size_eval=1",
        f"run.num_workers={training_gpu.workers}",
        "run.test_splits=[synthetic_categories]",  # graded without Java
        f"run.output_dir={tmp_path}",
        "run.resume_in_place=true",
    ]

    first = launch(SYNTHETIC, [*options, "run.max_epoch=1"])
    saved = torch.load(first.output_dir / "checkpoint_last.pth", weights_only=False)
    second = launch(SYNTHETIC, [*options, "run.max_epoch=2", "run.resume_ckpt_path=auto"])

    again = torch.load(second.output_dir / "checkpoint_last.pth", weights_only=False)
    assert second.output_dir == first.output_dir
    assert again["scaler"]["_growth_tracker"] == 2 * saved["scaler"]["_growth_tracker"] > 0
    lines = (second.output_dir / "log.txt").read_text(encoding="utf-8").splitlines()
    epochs = [json.loads(line) for line in lines if line.startswith('{"') and "train_loss" in line]
    assert len(epochs) == 2
