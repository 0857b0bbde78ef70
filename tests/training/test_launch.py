"""The command line of `lavis.train` and `lavis.evaluate`, tried on the toy plugin."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
import toy_plugin
from lavis.common.registry import registry
from omegaconf import OmegaConf

import lavis_dynrefer  # noqa: F401  registers the real ones
from lavis_dynrefer.training.launch import evaluate_main, launch, train_main
from lavis_dynrefer.training.run_config import LaunchError

ROOT = Path(__file__).parents[2]
SYNTHETIC = "projects/dynrefer/synthetic.yaml"


@registry.register_model("toy_drawing")
class DrawingModel(toy_plugin.ToyModel):
    """Records what the global generators return while it is built."""

    drawn: ClassVar = []

    def __init__(self, *sizes):
        self.drawn.append((random.random(), float(np.random.rand()), float(torch.rand(()))))
        super().__init__(*sizes)


@registry.register_model("toy_broken")
class BrokenModel(toy_plugin.ToyModel):
    """A bug: an error that no user can cure."""

    def __init__(self, *sizes):
        raise ValueError("too many values to unpack")


@pytest.fixture
def toy_yaml(tmp_path, monkeypatch):
    """A run of the toy task, in its own folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    run = {
        "task": "toy_regression",
        "runner": "runner_dynrefer",
        "init_lr": 0.1,
        "max_epoch": 1,
        "batch_size_train": 3,
        "num_workers": 0,
        "valid_splits": ["val"],
        "test_splits": ["test"],
    }
    content = {
        "model": {"arch": "toy_regression", "model_type": "default"},
        "datasets": {"toy_points": {"sizes": {"train": 10, "val": 5, "test": 7}}},
        "run": run,
    }
    OmegaConf.save(OmegaConf.create(content), tmp_path / "toy.yaml")
    return "toy.yaml"


# ---- running


def test_training_leaves_a_checkpoint_and_reports_the_test_split(toy_yaml, tmp_path):
    summary = launch(toy_yaml)

    assert list(summary.metrics) == ["test"]
    assert (summary.output_dir / "checkpoint_best.pth").is_file()
    assert summary.output_dir.parent == tmp_path / "output"
    assert len(summary.output_dir.name) == len("20230517093015")


def test_evaluation_grades_validation_and_test_splits_without_training(toy_yaml):
    summary = launch(toy_yaml, evaluate=True)

    assert list(summary.metrics) == ["val", "test"]
    assert not list(summary.output_dir.glob("*.pth"))


def test_evaluation_takes_weights_from_a_checkpoint(toy_yaml):
    trained = launch(toy_yaml)
    checkpoint = trained.output_dir / "checkpoint_best.pth"

    evaluated = launch(toy_yaml, [f"run.load_ckpt_path={checkpoint}"], evaluate=True)

    assert evaluated.metrics["test"] == trained.metrics["test"]


def test_every_random_generator_follows_the_seed(toy_yaml):
    for seed in (1, 1, 2):
        launch(toy_yaml, ["model.arch=toy_drawing", f"run.seed={seed}"], evaluate=True)

    first, same, other = DrawingModel.drawn[-3:]
    assert first == same
    assert set(first).isdisjoint(other)


def test_a_single_process_opens_no_group_even_in_a_slurm_shell(toy_yaml, monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    launch(toy_yaml, ["run.device=auto"], evaluate=True)

    assert not torch.distributed.is_initialized()


# ---- errors


@pytest.mark.parametrize("main", [train_main, evaluate_main])
def test_main_prints_one_line_and_returns_two(main, capsys):
    code = main(["--cfg-path", "nowhere.yaml"])

    assert code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_errors_and_warnings_are_printed_a_line_each(capsys, tmp_path, monkeypatch):
    tokenizer = "model.captioning.llm_options.tokenizer"
    options = ["run.device=cpu", f"{tokenizer}=a/b", "run.seed=-1", "run.chunk=0"]

    monkeypatch.chdir(tmp_path)

    assert train_main(["--cfg-path", SYNTHETIC, "--options", *options]) == 2
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err.splitlines() == [
        "error: run.chunk: expected at least 1, got 0",
        "error: run.seed: expected at least 0, got -1",
        f"warning: {tokenizer}: no file 'a/b'; is it a name of Hugging Face?",
    ]


def test_other_ranks_print_nothing(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")

    assert train_main(["--cfg-path", SYNTHETIC, "--options", "run.seed=-1"]) == 2
    assert capsys.readouterr().err == ""


def test_debug_shows_the_traceback(monkeypatch):
    with pytest.raises(LaunchError):
        train_main(["--cfg-path", "nowhere.yaml", "--debug"])
    monkeypatch.setenv("DYNREFER_DEBUG", "1")
    with pytest.raises(LaunchError):
        train_main(["--cfg-path", "nowhere.yaml"])


def test_a_bug_keeps_its_traceback(toy_yaml):
    with pytest.raises(ValueError, match="too many values"):
        train_main(["--cfg-path", toy_yaml, "--options", "model.arch=toy_broken"])


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("datasets.toy_points.sizes.val=0", "split 'val' is empty"),
        ("run.test_splits=[exam]", "no dataset has a split 'exam'"),
        ("model.frozen=true", r"no part of the model is trained.*model\.trainable"),
        ("run.output_dir=taken/runs", r"run\.output_dir: .*taken/runs cannot be written"),
    ],
)
def test_what_only_building_shows_is_one_error(toy_yaml, tmp_path, option, complaint):
    (tmp_path / "taken").touch()

    with pytest.raises(LaunchError, match=complaint):
        launch(toy_yaml, [option])


# ---- several processes


def run_on_two_processes(folder, *arguments):
    script = folder / "train_toy.py"
    script.write_text(
        "import sys, toy_plugin\n"
        "from lavis_dynrefer.training.launch import train_main\n"
        "sys.exit(train_main())\n",
        encoding="utf-8",
    )
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return subprocess.run(
        [*torchrun, script, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )


@pytest.mark.slow  # test_ranks.py trains on two processes, test_pipeline.py evaluates by torchrun
def test_two_processes_on_a_cpu_train_into_one_folder(toy_yaml, tmp_path):
    result = run_on_two_processes(tmp_path, "--cfg-path", toy_yaml)

    assert result.returncode == 0, result.stderr
    (folder,) = (tmp_path / "output").iterdir()
    assert (folder / "checkpoint_best.pth").is_file()
    assert "gloo" in (folder / "log.txt").read_text(encoding="utf-8")


@pytest.mark.slow
def test_two_processes_print_a_mistake_once_and_fail(toy_yaml, tmp_path):
    arguments = ["--cfg-path", toy_yaml, "--options", "run.task=toy"]

    result = run_on_two_processes(tmp_path, *arguments)

    assert result.returncode != 0
    assert result.stderr.count("error: run.task: unknown 'toy'") == 1
