"""The LAVIS task by itself."""

from __future__ import annotations

import json
import re
import time
from argparse import Namespace
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from lavis.common.registry import registry
from lavis.tasks.base_task import BaseTask

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.structures import RegionPrediction, RegionRecord, RegionSet
from lavis_dynrefer.training.region_task import DynReferTask
from lavis_dynrefer.training.run_settings import TaskSettings


class Losses(torch.nn.Module):
    """A model of one weight whose loss is that weight times the batch's factor."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, samples):
        return {"loss": self.weight * samples["factor"]}


class Steady:
    """A schedule that leaves the learning rate alone."""

    def step(self, cur_epoch, cur_step):
        del cur_epoch, cur_step


def train(batches, settings=None, accum_grad_iters=1, slow=0.0):
    model = Losses()

    class Loader(list):
        def __iter__(self):
            for factor in super().__iter__():
                time.sleep(slow)
                yield {"factor": torch.tensor(float(factor))}

    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    stats = DynReferTask(settings or TaskSettings()).train_epoch(
        epoch=0,
        model=model,
        data_loader=Loader(batches),
        optimizer=optimizer,
        lr_scheduler=Steady(),
        accum_grad_iters=accum_grad_iters,
    )
    return model.weight.item(), stats


def test_the_log_shows_the_time_spent_waiting_for_batches(caplog, capsys):
    train([1, 1], slow=0.05)
    waited = re.findall(r"data: (\d+\.\d+)", capsys.readouterr().out + caplog.text)
    assert waited
    assert float(waited[0]) >= 0.04  # a clock may be coarse


def test_accumulated_losses_are_averaged():
    assert train([2, 4], accum_grad_iters=2)[0] == pytest.approx(1 - 0.5 * 3)


def test_leftover_batches_make_a_step_too():
    # two batches make one step of the mean, the third a step of its half
    assert train([2, 2, 2], accum_grad_iters=2)[0] == pytest.approx(1 - 0.5 * 2 - 0.5 * 1)


def test_gradients_are_clipped_to_their_norm():
    assert train([10], TaskSettings(max_grad_norm=1.0))[0] == pytest.approx(0.5)


def test_losses_are_averaged_over_the_epoch():
    assert float(train([1, 3])[1]["loss"]) == pytest.approx((1 * 1 + 0.5 * 3) / 2)


def test_a_loss_of_nan_stops_training():
    with pytest.raises(ValueError, match="the loss is nan at epoch 0, step 1"):
        train([1, float("nan")])


def test_fp16_on_a_cpu_is_refused():
    with pytest.raises(ValueError, match=r"needs run\.amp_dtype: bf16"):
        train([1], TaskSettings(amp=True, amp_dtype="fp16"))


class Dataset:
    """A split of three regions of one image."""

    name, evaluator = "toy", "categories"

    def __init__(self, tag_names=None):
        regions = [RegionRecord(n, 1, (0.0, 0.0, 9.0, 9.0), category="dog") for n in (1, 2, 3)]
        self.region_set = RegionSet("toy-3", "val", {}, regions, category_names=("dog", "cat"))
        self.tag_names = tag_names


@pytest.fixture
def graded(tmp_path):
    """A task that grades `Dataset`, writing below `tmp_path`."""
    registry.mapping["paths"]["output_dir"] = str(tmp_path)
    (tmp_path / "result").mkdir()
    task = DynReferTask()
    task.before_evaluation(model=None, dataset=Dataset())
    return task


def row(region_id, *categories):
    answer = RegionPrediction((0.0, 0.0, 9.0, 9.0), categories=categories)
    return {"region_id": region_id, "prediction": answer}


def test_answers_are_written_and_graded(graded, tmp_path):
    rows = [row(2, ("cat", 1.0), ("dog", 0.0)), row(1, ("dog", 1.0), ("cat", 0.0))]

    metrics = graded.after_evaluation([*rows, {"region_id": 3, "reason": "image"}], "val", 0)

    assert metrics["agg_metrics"] == metrics["acc"] == pytest.approx(100 / 3)
    lines = (tmp_path / "result" / "val_epoch0.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["region_id"] for line in lines] == [1, 2, 3]
    assert json.loads(lines[0])["prediction"]["categories"] == [["dog", 1.0], ["cat", 0.0]]
    report = json.loads((tmp_path / "report_val_epoch0.json").read_text(encoding="utf-8"))
    assert report["failed"] == [{"region_id": 3, "reason": "image"}]
    assert "acc" in (tmp_path / "report_val_epoch0.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("asked", [False, True])
def test_a_result_as_lavis_writes_it_is_there_on_request(graded, tmp_path, asked):
    graded.settings = TaskSettings(result_json=asked)

    graded.after_evaluation([row(1, ("dog", 1.0), ("cat", 0.0))], "val", 0)

    assert (tmp_path / "result" / "val_epoch0.json").exists() == asked


def test_answers_survive_a_grader_that_fails(graded, tmp_path, caplog):
    with pytest.raises(ValueError, match="9"):
        graded.after_evaluation([row(9, ("dog", 1.0))], "val", 0)  # no such region
    assert (tmp_path / "result" / "val_epoch0.jsonl").read_text(encoding="utf-8").count("\n") == 1
    assert f"`dynrefer grade {tmp_path}` grades them" in caplog.text


def test_answers_survive_a_model_that_fails(graded, tmp_path, smallest_model, caplog):
    batch = {"views": [], "failed": [{"region_id": 3, "reason": "image"}]}
    with pytest.raises(KeyError, match="views"):
        graded.evaluation(smallest_model, [batch, {}], cuda_enabled=False)
    (path,) = (tmp_path / "result").iterdir()
    assert path.name == "val_unfinished.rank0.jsonl"
    assert json.loads(path.read_text(encoding="utf-8"))["reason"] == "image"
    assert f"`dynrefer grade {tmp_path}` grades them" in caplog.text


@pytest.mark.parametrize(
    ("known", "evaluate", "refused"),
    [(["a", "b"], False, False), (["b", "a"], False, True), (["b", "a"], True, False)],
)
def test_tags_to_train_on_are_those_of_the_model(monkeypatch, known, evaluate, refused):
    splits = {"toy": {"train": Dataset(["a", "b"])}}
    monkeypatch.setattr(BaseTask, "build_datasets", lambda self, cfg: splits)
    monkeypatch.setattr(BaseTask, "build_model", lambda self, cfg: Namespace(tag_names=known))
    config = Namespace(run_cfg={"evaluate": evaluate})
    task = DynReferTask()
    task.build_datasets(config)

    with (
        pytest.raises(InputError, match="both must name the same file")
        if refused
        else nullcontext()
    ):
        task.build_model(config)


def test_a_process_without_samples_answers_nothing(graded, smallest_model):
    assert graded.evaluation(smallest_model, data_loader=[], cuda_enabled=False) == []


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_answers_follow_the_dtype_of_the_run_and_not_its_amp(
    graded, smallest_model, region_batch, caplog, dtype
):
    graded.settings = TaskSettings(dtype=dtype, amp=True, amp_dtype="bf16")
    batch = {**region_batch, "region_ids": [1, 2, 3, 1, 2]}
    asked = {"tasks": ["categories"], "categories": ["dog", "cat"]}

    with caplog.at_level("INFO", logger="lavis_dynrefer.training.region_task"):
        rows = graded.evaluation(smallest_model, data_loader=[batch], cuda_enabled=False)

    found, plain = [row["prediction"] for row in rows], smallest_model.predict(batch, **asked)
    assert found == smallest_model.predict(batch, dtype=dtype, **asked)
    assert (found == plain) == (dtype == "auto")
    assert f"Answers in {'float32' if dtype == 'auto' else dtype}" in caplog.messages


def test_a_run_changes_only_the_beam_search_settings_it_names(graded, smallest_model):
    graded.settings = TaskSettings(generation={"num_beams": 5})
    own = smallest_model.caption_config.generation
    assert graded._questions(smallest_model).generation == replace(own, num_beams=5)
