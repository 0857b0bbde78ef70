"""Numbers by step: the file of a run, TensorBoard and wandb."""

from __future__ import annotations

import json
import math
import struct
from importlib.util import find_spec

import pytest
import torch
from toy_plugin import make_runner

from lavis_dynrefer.training.checks.run_checks import check_run
from lavis_dynrefer.training.run_config import load_run_config
from lavis_dynrefer.training.run_settings import RunSettings
from lavis_dynrefer.training.scalars.log_services import logger_problem
from lavis_dynrefer.training.scalars.run_scalars import RunScalars
from lavis_dynrefer.training.scalars.scalar_file import SCALARS, read_scalars

SYNTHETIC = "projects/dynrefer/synthetic.yaml"
ABSENT = [name for name in ("tensorboard", "wandb") if find_spec(name) is None]


def write(folder, *lines):
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    (folder / SCALARS).write_text(text, encoding="utf-8")


def row(step, **scalars):
    return {"step": step, "epoch": 0, "scalars": scalars}


def opened(folder, *, epoch_length=4, first_step=0, loggers=(), **parts):
    scalars = RunScalars()
    settings = RunSettings(evaluate=True, log_freq=2, loggers=loggers)
    scalars.open(folder, {"run": {"seed": 1}}, settings, first_step, epoch_length, **parts)
    scalars.start_epoch()
    return scalars


def add(scalars, step, loss, *, epoch=0, updated=True, norm=None):
    values = {"loss": loss, "lr": 0.1 * (step + 1)}
    scalars.add_batch(epoch, step, values, regions=8, updated=updated, norm=norm)


# ---- the file


def test_a_row_has_the_mean_loss_since_the_row_before_and_the_rate_and_norm_of_now(tmp_path):
    with opened(tmp_path) as scalars:
        for step, loss in enumerate([4.0, 1.0, 3.0, 5.0]):
            add(scalars, step, loss, norm=torch.tensor(step + 0.5))

    rows, _ = read_scalars(tmp_path)

    assert [one.step for one in rows] == [1, 3, 4]  # as LAVIS's log: 0, 2, ..., and the last
    assert [one.scalars["loss"] for one in rows] == [4.0, 2.0, 5.0]
    assert [one.scalars["lr"] for one in rows] == pytest.approx([0.1, 0.3, 0.4])
    assert [one.scalars["grad_norm"] for one in rows] == [0.5, 2.5, 3.5]


def test_rows_of_later_epochs_count_on(tmp_path):
    with opened(tmp_path) as scalars:
        add(scalars, 0, 1.0, epoch=2)
        scalars.add_epoch(2, "val", {"epoch": 2, "map": "47.5", "name": "x", "best_epoch": None})

    (batch, epoch), _ = read_scalars(tmp_path)

    assert (batch.step, epoch.step, epoch.epoch) == (9, 12, 2)
    assert epoch.scalars == {"val_map": 47.5}


def test_steps_that_a_scaler_skips_are_counted(tmp_path):
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    with opened(tmp_path, epoch_length=3, scaler=scaler, optimizer=optimizer) as scalars:
        for step, factor in enumerate([1.0, math.inf, 1.0]):
            scaler.scale((weight * factor).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            add(scalars, step, 1.0)

    rows, _ = read_scalars(tmp_path)

    assert [one.scalars["skipped_steps"] for one in rows] == [0, 1]
    assert [one.scalars["scale"] for one in rows] == [8.0, 4.0]  # halved by the skipped step


def test_steps_that_are_made_again_count_once(tmp_path):
    write(tmp_path, row(10, loss=3), row(20, loss=2), {"resumed": 15}, row(20, loss=1))

    rows, damaged = read_scalars(tmp_path)

    assert [(one.step, one.scalars["loss"]) for one in rows] == [(10, 3.0), (20, 1.0)]
    assert damaged == 0


def test_damaged_lines_are_counted_and_a_last_one_that_is_cut_off_is_not(tmp_path):
    write(tmp_path, row(1, loss=None), "{", "[]", '"resumed"', {"step": 1}, row(2, loss=2))
    with (tmp_path / SCALARS).open("a", encoding="utf-8") as file:
        file.write('{"step": 3, "ep')

    rows, damaged = read_scalars(tmp_path)

    assert [one.step for one in rows] == [1, 2]
    assert math.isnan(rows[0].scalars["loss"])
    assert damaged == 4


def test_a_run_without_the_file_has_no_rows(tmp_path):
    assert read_scalars(tmp_path) == ([], 0)


def test_a_run_that_continues_in_its_folder_marks_where(tmp_path):
    for first_step in (0, 4):
        with opened(tmp_path, first_step=first_step):
            pass

    assert (tmp_path / SCALARS).read_text(encoding="utf-8") == '{"resumed": 4}\n'


# ---- runs


def test_a_run_writes_its_epochs_and_evaluations(tmp_path):
    make_runner(tmp_path, max_epoch=2).train()

    rows, _ = read_scalars(tmp_path / "job")

    names = [name for one in rows for name in one.scalars if name.endswith("agg_metrics")]
    assert names == ["val_agg_metrics", "val_agg_metrics", "test_agg_metrics"]
    assert rows[-1].step == 2 * rows[-2].step // 2


def test_an_evaluation_writes_no_file(tmp_path):
    make_runner(tmp_path, evaluate=True).train()

    assert not (tmp_path / "job" / SCALARS).exists()


# ---- loggers


def problems(*options):
    config = load_run_config(SYNTHETIC, ["run.device=cpu", *options])
    return [finding.text for finding in check_run(config) if "loggers" in finding.text]


@pytest.mark.skipif(not ABSENT, reason="tensorboard and wandb are both installed")
def test_a_logger_that_is_not_installed_is_found_before_the_run():
    (problem,) = problems(f"run.loggers={ABSENT[0]}")

    assert problem == logger_problem(ABSENT[0])
    assert f"pip install 'lavis_dynrefer[{ABSENT[0]}]'" in problem


def test_an_unknown_logger_is_refused():
    (problem,) = problems("run.loggers=[mlflow]")

    assert problem.startswith("run.loggers[0]: expected 'tensorboard' or 'wandb', got 'mlflow'")


def test_a_runner_of_lavis_knows_no_loggers():
    found = problems("run.loggers=[tensorboard]", "run.runner=runner_base")

    assert [text for text in found if "runner_base does not know it" in text]


def test_tensorboard_reads_back_what_was_logged(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with opened(tmp_path, loggers=["tensorboard"]) as scalars:
        for step, loss in enumerate([4.0, 1.0, 3.0, 5.0]):
            add(scalars, step, loss)
        add(scalars, 0, 9.0, epoch=1)
    with opened(tmp_path, first_step=4, loggers=["tensorboard"]) as scalars:  # resumed
        add(scalars, 0, 7.0, epoch=1)
        scalars.add_epoch(1, "train", {"loss": "6.5"})

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()

    read = [(event.step, event.value) for event in events.Scalars("loss")]
    assert read == [(1, 4.0), (3, 2.0), (4, 5.0), (5, 7.0)]
    assert [event.value for event in events.Scalars("train_loss")] == [6.5]
    assert "seed: 1" in str(events.Tensors("config/text_summary")[0].tensor_proto.string_val[0])


def wandb_records(data):
    """Records of a .wandb file: LevelDB's log format after a header; wandb's reader is in Go."""
    place, record = 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768  # of the block
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def test_wandb_keeps_offline_what_was_logged(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with opened(tmp_path, loggers=["wandb"]) as scalars:
        for step, loss in enumerate([4.0, 1.0, 3.0]):
            add(scalars, step, loss)

    (path,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    rows, names = [], set()
    for data in wandb_records(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        names |= {item.key for item in record.run.config.update}
        found = {
            item.key or item.nested_key[0]: json.loads(item.value_json)
            for item in record.history.item
        }
        rows += [(found["step"], found["loss"])] if found else []
    assert rows == [(1, 4.0), (3, 2.0)]
    assert {"run", "first_step"} <= names
