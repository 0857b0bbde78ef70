"""A process dies, torchrun starts all again, and the run ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_plugin import logged

from lavis_dynrefer import living_processes
from lavis_dynrefer.training import checkpoints
from lavis_dynrefer.training.run_settings import RunSettings

ROOT = Path(__file__).parents[2]
SCRIPT = """
import os, signal, sys
from pathlib import Path
from omegaconf import OmegaConf
from toy_plugin import at_batch, step_runner
from lavis_dynrefer.training.process_group import process_group

folder, batch, save_freq = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
with process_group(OmegaConf.create({"device": "cpu", "dist_url": "env://"})):
    settings = {"resume_ckpt_path": None, "resume_in_place": False, "save_freq": save_freq}
    runner = step_runner(folder, f"job{attempt}", sizes={"train": 30}, **settings)
    if attempt == 0 and os.environ["RANK"] == "1" and batch >= 0:
        at_batch(runner, batch, lambda: os.kill(os.getpid(), signal.SIGKILL))
    runner.train()
"""


@pytest.fixture
def train(tmp_path):
    """Trains 3 epochs of 5 batches with two processes, of which one dies at a batch."""

    def trained(name, *, dies_at=-1, save_freq=1):
        (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        run = subprocess.run(
            [sys.executable, *torchrun, "--max-restarts=1", tmp_path / "script.py"]
            + [str(value) for value in (tmp_path / name, dies_at, save_freq)],
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert run.returncode == 0, run.stderr
        (folder,) = (tmp_path / name).iterdir()
        last = torch.load(folder / checkpoints.LAST)
        return folder, {key: last[key] for key in ("epoch", "model", "optimizer")}, run.stderr

    return trained


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_run_goes_on_from_its_last_checkpoint(train):
    whole, expected, _ = train("whole")

    folder, last, _ = train("killed", dies_at=7)  # the third batch of the second epoch

    assert folder.name == "job0"  # not another one of the second start
    torch.testing.assert_close(last, expected, rtol=0, atol=0)
    losses = logged(folder, "train_loss")
    assert losses == logged(whole, "train_loss")
    assert len(losses) == 3


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_run_without_a_checkpoint_begins_anew_and_says_so(train):
    whole, expected, _ = train("whole", save_freq=0)

    folder, last, said = train("killed", dies_at=3, save_freq=0)

    assert "before a checkpoint was saved" in said
    torch.testing.assert_close(last, expected, rtol=0, atol=0)
    assert logged(folder, "train_loss") == logged(whole, "train_loss")


# ---- which folder it is


@pytest.fixture
def place(tmp_path):
    """Where a run of some torchruns writes, and what it resumes."""

    def found(*launchers, restarts=0, **settings):
        run = RunSettings(max_epoch=1, init_lr=0.1, batch_size_train=1, **settings)
        resumed, folder = checkpoints.find_place(
            run, tmp_path / "new", launchers, restarts=restarts
        )
        return resumed and resumed.relative_to(tmp_path).as_posix(), folder.name

    return found


@pytest.fixture
def runs(tmp_path):
    """Two runs, each of two torchruns; the first has saved a checkpoint."""
    for name, launchers in (("one", ["a", "b"]), ("two", ["c", "d"])):
        (tmp_path / name).mkdir()
        checkpoints.keep_launchers(tmp_path / name, launchers)
    (tmp_path / "one" / checkpoints.LAST).touch()
    checkpoints._begun_here.clear()  # as in the processes that torchrun starts next


@pytest.mark.usefixtures("runs")
def test_a_second_run_of_the_same_process_is_a_new_one(place, tmp_path):
    checkpoints.keep_launchers(tmp_path / "one", ["a"])

    assert place("a") == (None, "new")


@pytest.mark.usefixtures("runs")
def test_one_torchrun_that_has_survived_knows_the_run(place):
    assert place("b", "new one") == ("one/checkpoint_last.pth", "one")
    assert place("b", resume_ckpt_path="auto") == ("one/checkpoint_last.pth", "one")


@pytest.mark.usefixtures("runs")
def test_a_run_that_has_saved_nothing_keeps_its_folder(place):
    assert place("c") == (None, "two")
    assert place("c", resume_ckpt_path="auto") == ("one/checkpoint_last.pth", "two")


@pytest.mark.usefixtures("runs")
def test_other_torchruns_start_a_run_of_their_own(place, caplog):
    assert place("e") == (None, "new")
    assert place() == (None, "new")
    assert caplog.text == ""


@pytest.mark.usefixtures("runs")
def test_an_evaluation_is_a_new_run(place):
    assert place("a", evaluate=True) == (None, "new")


@pytest.mark.usefixtures("runs")
def test_a_restart_that_finds_nothing_is_not_silent(place, caplog):
    assert place("e", restarts=1) == (None, "new")
    assert "they have no run to go on with" in caplog.text


def test_a_damaged_note_is_passed_over(place, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "torchrun.json").write_text(json.dumps(["a"])[:3], encoding="utf-8")
    assert place("a") == (None, "new")


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="needs /proc")
def test_processes_have_identities_while_they_live():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    names = [living_processes.identity(pid) for pid in (os.getpid(), child.pid, child.pid)]
    assert living_processes.lives(child.pid)
    child.communicate(b"\n")
    assert names[0] != names[1] == names[2] != ""
    assert not living_processes.lives(child.pid)
    assert living_processes.identity(child.pid) == ""
