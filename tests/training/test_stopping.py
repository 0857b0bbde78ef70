"""Runs that are stopped or killed anywhere end with the weights of those that were not."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import signal
import sys

import pytest
import torch
from toy_plugin import Killed, at_batch, kill, logged, make_runner, model_weight, step_runner

from lavis_dynrefer.training import checkpoints
from lavis_dynrefer.training.loop.failed_step import main, replay_step
from lavis_dynrefer.training.loop.stop_signals import StopSignals, TrainingStopped


def end_of(runner):
    """What a run ends with: weights, optimiser, and the mean losses of each epoch."""
    last = torch.load(runner.output_dir / checkpoints.LAST)
    moments = [state["exp_avg_sq"].tolist() for state in last["optimizer"]["state"].values()]
    return model_weight(runner.model), moments, logged(runner.output_dir, "train_loss")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """(batches per optimiser step) -> what such a run ends with."""
    ends = {}
    for accumulated in (1, 2):
        folder = tmp_path_factory.mktemp("whole")
        runner = step_runner(folder, accum_grad_iters=accumulated)
        runner.train()
        ends[accumulated] = end_of(runner)
    assert ends[1] != ends[2]
    return ends


@pytest.mark.parametrize(
    ("stop_at", "accumulated", "workers", "saved"),
    [
        (2, 1, 0, (0, 3)),
        (2, 1, 2, (0, 3)),
        (6, 2, 0, (1, 2)),  # in the middle of an optimiser step, whose other batch comes first
        (7, 2, 0, (1, 4)),
        (4, 1, 0, (1, 0)),  # the last batch of an epoch
        (14, 1, 0, (3, 0)),  # and of the run
    ],
)
def test_a_signal_saves_the_step_under_way(
    tmp_path, capfd, uninterrupted, stop_at, accumulated, workers, saved
):
    settings = {"accum_grad_iters": accumulated, "num_workers": workers}
    runner = step_runner(tmp_path, **settings)
    at_batch(runner, stop_at, lambda: signal.raise_signal(signal.SIGTERM))

    with pytest.raises(TrainingStopped, match=r"SIGTERM.*run\.resume_ckpt_path=auto") as stopped:
        runner.train()

    assert stopped.value.code == 143
    assert "a second signal after 3 s ends it at once" in capfd.readouterr().err
    checkpoint = torch.load(tmp_path / "job" / checkpoints.LAST)
    step = (checkpoint.get("progress") or {"step": 0})["step"]
    assert (checkpoint["epoch"] + 1, step) == saved
    resumed = step_runner(tmp_path, "resumed", **{**settings, "num_workers": 0})
    resumed.train()
    assert end_of(resumed) == uninterrupted[accumulated]


def test_a_gradient_scaler_continues(tmp_path):
    if not hasattr(torch.amp, "GradScaler"):
        pytest.skip("this torch has no scaler for the CPU")

    def scaled(job, stop_at=None):
        runner = step_runner(tmp_path / job, max_epoch=2)
        runner._scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
        if stop_at is not None:
            at_batch(runner, stop_at, lambda: signal.raise_signal(signal.SIGTERM))
        return runner

    whole = scaled("whole")
    whole.train()
    with pytest.raises(TrainingStopped):
        scaled("stopped", 6).train()
    resumed = scaled("stopped")
    resumed.train()
    assert resumed.scaler.state_dict() == whole.scaler.state_dict()
    assert whole.scaler.get_scale() == 8.0 * 2**5
    assert end_of(resumed) == end_of(whole)


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no signals to other processes")
def test_workers_outlive_the_first_signal(tmp_path, uninterrupted):
    runner = step_runner(tmp_path, num_workers=2)

    def signal_workers():
        workers = multiprocessing.active_children()
        assert len(workers) == 2
        for worker in workers:
            os.kill(worker.pid, signal.SIGTERM)

    at_batch(runner, 2, signal_workers)  # both have sent a batch
    runner.train()
    assert end_of(runner) == uninterrupted[1]


def test_a_second_signal_has_the_effect_that_it_had_before(tmp_path):
    runner = step_runner(tmp_path)
    runner._signals = StopSignals(patience=0.0)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    at_batch(runner, 1, lambda: [signal.raise_signal(signal.SIGINT) for _ in range(2)])

    with pytest.raises(KeyboardInterrupt):
        runner.train()

    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


def test_a_signal_may_come_several_times(tmp_path):
    """As from torchrun, which passes on what its group has got."""
    runner = step_runner(tmp_path)
    runner._signals = StopSignals(patience=3600)
    at_batch(runner, 1, lambda: [signal.raise_signal(signal.SIGTERM) for _ in range(3)])
    with pytest.raises(TrainingStopped):
        runner.train()
    assert torch.load(tmp_path / "job" / checkpoints.LAST)["progress"]["step"] == 2


def test_a_task_without_steps_stops_at_once(tmp_path, caplog):
    runner = make_runner(tmp_path, save_freq=1)
    assert "run.save_freq: ToyTask is saved after epochs only" in caplog.text
    at_batch(runner, 4, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(TrainingStopped, match="everything up to the last epoch is saved") as stop:
        runner.train()
    assert stop.value.code == 130
    assert torch.load(tmp_path / "job" / checkpoints.LAST)["epoch"] == 0


def test_a_run_killed_anywhere_ends_as_if_it_were_not(tmp_path, monkeypatch, uninterrupted):
    """Killed after every few batches, between writing and renaming, and right after a renaming."""
    rename, deaths = checkpoints.replace_file, []
    settings = {"accum_grad_iters": 2, "save_freq": 1}
    for moment in (0, 3, "before", 1, "after", 2, "before"):
        runner = step_runner(tmp_path, **settings)

        def replace(source, target, moment=moment):
            if moment == "before":
                raise Killed
            rename(source, target)
            if moment == "after":
                raise Killed

        monkeypatch.setattr(checkpoints, "replace_file", replace)
        if isinstance(moment, int):
            at_batch(runner, moment, kill)
        with pytest.raises(Killed):
            runner.train()
        deaths.append(runner.start_epoch)
    monkeypatch.setattr(checkpoints, "replace_file", rename)
    runner = step_runner(tmp_path, **settings)
    runner.train()
    assert end_of(runner)[:2] == uninterrupted[2][:2]
    assert end_of(runner)[2][-1] == uninterrupted[2][2][-1]
    assert sorted(path.name for path in (tmp_path / "job").iterdir()) == [
        "checkpoint_last.pth",
        "log.txt",
        "result",
        "scalars.jsonl",
    ]


def test_a_killed_validation_is_made_up_for(tmp_path):
    scripted = {"val": [3, 2, 1]}
    runner = make_runner(tmp_path, max_epoch=3, scripted_metrics=scripted)
    runner.task.after_evaluation = lambda **_: kill()
    with pytest.raises(Killed):
        runner.train()

    settings = {"resume_ckpt_path": "auto", "resume_in_place": True, "max_epoch": 3}
    make_runner(tmp_path, scripted_metrics=scripted, **settings).train()

    assert logged(tmp_path / "job", "val_epoch") == [0, 1, 2]
    assert logged(tmp_path / "job", "train_epoch") == [0, 1, 2]
    assert torch.load(tmp_path / "job" / checkpoints.BEST)["epoch"] == 0


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"seed": 8}, "run.seed was 7 and is 8"),
        ({"batch_size_train": 2}, "run.batch_size_train times processes was 3 and is 2"),
        ({"accum_grad_iters": 3}, "run.accum_grad_iters was 1 and is 3"),
    ],
)
def test_the_rest_of_an_epoch_needs_the_same_samples(tmp_path, changes, difference, caplog):
    runner = step_runner(tmp_path, save_freq=2, keep_checkpoints=True)
    at_batch(runner, 8, kill)
    with pytest.raises(Killed):
        runner.train()

    with pytest.raises(checkpoints.CheckpointError, match=f"{difference}.*set that back"):
        step_runner(tmp_path, **changes).train()
    end = tmp_path / "job" / "checkpoint_0.pth"  # between epochs all this may change
    step_runner(tmp_path, resume_ckpt_path=str(end), resume_in_place=False, **changes).train()
    assert difference in caplog.text


def test_settings_may_change_within_an_epoch_and_the_log_says_so(tmp_path, caplog):
    runner = step_runner(tmp_path, save_freq=2, weight_decay=0.1)
    at_batch(runner, 8, kill)
    with pytest.raises(Killed):
        runner.train()

    runner = step_runner(tmp_path, init_lr=0.02, weight_decay=0.2)
    runner.train()

    assert "run.weight_decay was 0.1 and is 0.2" in caplog.text
    assert re.search(r"run.init_lr was \S+ and is 0.02", caplog.text)
    assert {group["weight_decay"] for group in runner.optimizer.param_groups} <= {0.0, 0.2}


def test_a_run_counts_the_time_of_those_that_it_continues(tmp_path, caplog):
    step_runner(tmp_path, max_epoch=1).train()
    path = tmp_path / "job" / checkpoints.LAST
    checkpoints.write_checkpoint(path, {**torch.load(path), "seconds": 5000.0})
    caplog.set_level("INFO")
    step_runner(tmp_path, max_epoch=2).train()
    assert re.search(r"finished in \d+ s, 500\d s in all", caplog.text)


# ---- losses that are not finite


def test_a_step_whose_loss_is_nan_is_named_kept_and_runs_again(tmp_path, capsys, monkeypatch):
    runner = step_runner(tmp_path)
    dataset = runner.datasets["toy_points"]["train"]
    dataset.points[4] = float("nan")

    with pytest.raises(ValueError, match=r"the loss is nan at epoch 0, step \d") as raised:
        runner.train()

    message = str(raised.value)
    (path,) = (tmp_path / "job").glob("failed_step_rank0.pth")
    kept = torch.load(path)
    listed = ", ".join(map(str, kept["batch"]["region_ids"]))
    assert 4 in kept["batch"]["region_ids"]
    assert f"with regions {listed}; lower run.init_lr" in message
    assert str(path) in message
    assert not (tmp_path / "job" / checkpoints.LAST).exists()
    # The same batch without the nan: the replay has the weights and the dropout of the step.
    bad = kept["batch"]["point"].isnan()
    kept["batch"]["point"][bad], kept["batch"]["target"][bad[:, 0]] = 1.0, 2.0
    torch.save(kept, path)
    loaded = runner.model.train()
    from lavis_dynrefer.training.loaders import seed_step

    seed_step(**kept["place"])
    expected = loaded(kept["batch"])["loss"].item()
    assert replay_step(path) == {"loss": expected}
    monkeypatch.setattr(sys, "argv", ["failed_step", str(path)])
    assert main() == 0
    assert capsys.readouterr().out.endswith(f"loss: {expected}\n")
    monkeypatch.setattr(sys, "argv", ["failed_step", str(tmp_path / "job" / "log.txt")])
    assert main() == 2


def test_weights_that_are_not_finite_replace_no_checkpoint(tmp_path):
    runner = step_runner(tmp_path, save_freq=1)
    bias = runner.model.head.bias
    at_batch(runner, 3, lambda: bias.register_hook(lambda gradient: gradient / 0))

    with pytest.raises(ValueError, match=r"1 weights are not finite, such as head\.bias"):
        runner.train()

    assert torch.load(tmp_path / "job" / checkpoints.LAST)["progress"]["step"] == 3
    runner = step_runner(tmp_path / "later")
    bias = runner.model.head.bias
    at_batch(runner, 3, lambda: bias.register_hook(lambda gradient: gradient / 0))
    seen = []
    runner.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]["region_ids"]))
    with pytest.raises(ValueError, match="since the step before") as raised:
        runner.train()
    assert f"regions {', '.join(map(str, seen[3]))}" in str(raised.value)


# ---- disks and folders


def test_a_full_disk_ends_the_run_and_leaves_the_checkpoint_before(tmp_path):
    resource = pytest.importorskip("resource", reason="this system limits no file sizes")
    runner = step_runner(tmp_path, save_freq=2)

    def fill():
        size = os.stat(tmp_path / "job" / checkpoints.LAST).st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    at_batch(runner, 3, fill)
    try:
        with pytest.raises(checkpoints.CheckpointWriteError) as raised:
            runner.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert os.strerror(errno.EFBIG) in str(raised.value)
    assert "run.resume_ckpt_path=auto" in str(raised.value)
    assert torch.load(tmp_path / "job" / checkpoints.LAST)["progress"]["step"] == 2
    assert not list((tmp_path / "job").glob("*.tmp"))


def test_a_folder_that_disappears_ends_the_run(tmp_path):
    runner = step_runner(tmp_path)
    at_batch(runner, 3, lambda: os.rename(tmp_path / "job", tmp_path / "moved"))
    with pytest.raises((checkpoints.CheckpointWriteError, FileNotFoundError), match="job"):
        runner.train()
