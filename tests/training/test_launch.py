"""The command line of `lavis.train` and `lavis.evaluate`, tried on the toy plugin."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
import toy_plugin
from lavis.common.config import Config
from lavis.common.registry import registry
from omegaconf import OmegaConf

import lavis_dynrefer  # noqa: F401  registers the real ones
from lavis_dynrefer.training.checks.run_checks import load_checked_config
from lavis_dynrefer.training.launch import evaluate_main, launch, train_main
from lavis_dynrefer.training.run_config import LaunchError, find_run_file, load_run_config

ROOT = Path(__file__).parents[1]
QUICKSTART = "projects/dynrefer/quickstart.yaml"


@registry.register_model("toy_drawing")
class DrawingModel(toy_plugin.ToyModel):
    """Notes what the global generators give while it is built."""

    drawn: ClassVar = []

    def __init__(self, *sizes):
        self.drawn.append((random.random(), float(np.random.rand()), float(torch.rand(()))))
        super().__init__(*sizes)


@pytest.fixture
def toy_yaml(tmp_path, monkeypatch):
    """A run of the toy task, in a folder of its own that is the current one."""
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


@pytest.fixture
def other_yaml(tmp_path):
    """A run of a LAVIS model that has nothing to do with this plugin."""
    path = tmp_path / "caption.yaml"
    path.write_text(
        "model: {arch: blip_caption, model_type: base_coco}\n"
        "datasets: {coco_caption: {vis_processor: {eval: {name: blip_image_eval}}}}\n"
        "run: {task: captioning, lr_sched: linear_warmup_cosine_lr, init_lr: 1e-5, max_len: 20}\n"
    )
    return str(path)


# ---- running ------------------------------------------------------------------------------------


def test_training_leaves_a_checkpoint_and_reports_the_test_split(toy_yaml):
    summary = launch(toy_yaml)

    assert list(summary.metrics) == ["test"]
    assert (summary.output_dir / "checkpoint_best.pth").is_file()


def test_output_lies_below_the_current_folder_named_by_the_second(toy_yaml, tmp_path):
    summary = launch(toy_yaml)

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


def test_single_process_opens_no_group_even_in_a_slurm_shell(toy_yaml, monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "0")

    launch(toy_yaml, evaluate=True)

    assert not torch.distributed.is_initialized()


def test_main_returns_zero(toy_yaml):
    assert train_main(["--cfg-path", toy_yaml, "--options", "run.max_epoch=1"]) == 0


# ---- configuration ------------------------------------------------------------------------------


def test_own_task_gets_own_runner_and_lavis_tasks_keep_theirs(other_yaml):
    assert load_run_config(QUICKSTART, ["run.runner=null"]).run_cfg.runner == "runner_dynrefer"
    assert load_run_config(other_yaml, ["run.device=cpu"]).run_cfg.runner == "runner_base"


def test_config_of_another_task_is_what_lavis_makes_of_it(other_yaml):
    stock = Config(Namespace(cfg_path=other_yaml, options=None)).to_dict()

    ours = load_run_config(other_yaml, ["run.device=cpu"]).to_dict()

    assert {name: ours[name] for name in ("model", "datasets")} == {
        name: stock[name] for name in ("model", "datasets")
    }
    assert stock["run"].items() <= ours["run"].items()


def test_model_type_given_as_an_option_loads_that_types_yaml():
    config = load_run_config(QUICKSTART, ["model.model_type=flant5xl"])

    assert config.model_cfg.captioning.llm_options.dtype == "bfloat16"


def test_dataset_without_settings_means_its_defaults(tmp_path):
    quickstart = OmegaConf.load(find_run_file(QUICKSTART))
    quickstart.datasets = {"synthetic_region": None}
    OmegaConf.save(quickstart, tmp_path / "run.yaml")

    config = load_run_config(str(tmp_path / "run.yaml"))

    assert config.datasets_cfg.synthetic_region.data_type == "images"


@pytest.mark.parametrize(
    "options", [["run.max_epoch=7", "run.amp=true"], ["run.max_epoch", "7", "run.amp", "true"]]
)
def test_options_are_written_as_lavis_takes_them(options):
    run = load_run_config(QUICKSTART, options).run_cfg

    assert (run.max_epoch, run.amp) == (7, True)


def test_shipped_run_file_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert find_run_file(QUICKSTART).is_file()


def test_file_in_the_current_folder_wins_over_the_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / QUICKSTART
    own.parent.mkdir(parents=True)
    own.write_text("")

    assert find_run_file(QUICKSTART).resolve() == own


@pytest.mark.parametrize("wanted", ["auto", "cpu"])
def test_device_is_decided_before_anything_is_built(wanted, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert load_run_config(QUICKSTART, [f"run.device={wanted}"]).run_cfg.device == "cpu"


def test_auto_takes_the_gpu_if_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    assert load_run_config(QUICKSTART, ["run.device=auto"]).run_cfg.device == "cuda"


@pytest.mark.parametrize("path", sorted((ROOT / "projects").rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_run_file_is_accepted(path):
    assert load_run_config(str(path), ["run.device=cpu"]).run_cfg.task == "dynrefer"


# ---- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["run.task=dynrefr"], "run.task does not know 'dynrefr'; did you mean 'dynrefer'?"),
        (["run.runner=runer"], "run.runner does not know 'runer'"),
        (["run.lr_sched=cosine"], "run.lr_sched does not know 'cosine'"),
        (["run.max_epochs=3"], "run: unknown key 'max_epochs'; did you mean 'max_epoch'?"),
        (["run.max_epoch=three"], "run.max_epoch: expected int, got 'three'"),
        (["run.batch_size_train=0"], "run.batch_size_train: expected at least 1, got 0"),
        (["run.valid_splits=val"], "run.valid_splits: expected list, got 'val'"),
        (["run.amp_dtype=fp8"], "run.amp_dtype: expected one of ['fp16', 'bf16'], got 'fp8'"),
        (["run.init_lr=null"], "training needs run.init_lr (learning rate after the warmup)"),
        (["run.device=tpu"], "run.device: expected auto, cpu, cuda or cuda:1 and so on, got 'tpu'"),
        (["run=3"], "section 'run' is missing or not a mapping"),
        (["rum.seed=3"], "unknown section 'rum'; did you mean 'run'?"),
        (["run.seed"], "--options: run.seed has no value"),
        (["run.seed=[1"], "--options ['run.seed=[1']: not yaml"),
        (["model=[]"], "--options ['model=[]']: a list stands where"),
        (["model.arch=dynref"], "model.arch does not know 'dynref'; did you mean 'dynrefer'?"),
        (["model.model_type=huge"], "model.model_type does not know 'huge'"),
        (["datasets.ovadd.type=x"], "datasets does not know 'ovadd'; did you mean 'ovad'?"),
        (["datasets.ovad.type=x"], "datasets.ovad.type does not know 'x'"),
        (["datasets.ovad=3"], "datasets.ovad: expected a mapping, got 3"),
        (
            ["datasets.ovad.vis_processor.eval.name=dynrefer_evil"],
            "datasets.ovad.vis_processor.eval.name does not know 'dynrefer_evil'; did you mean",
        ),
        (["run.seed=${oc.env:NO_SUCH_VARIABLE}"], "Environment variable 'NO_SUCH_VARIABLE'"),
        (["datasets=null"], "section 'datasets' is missing or not a mapping"),
        (["run.resume_ckpt_path=???"], "a value must be given for run.resume_ckpt_path"),
    ],
)
def test_wrong_setting_is_named_with_the_known_ones(options, complaint):
    with pytest.raises(LaunchError) as raised:
        load_checked_config(QUICKSTART, options)

    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"run: [1", "not a readable yaml file"),
        (b"\xff\xfe\x00", "not a readable yaml file"),
        (b"- run\n- model", r"expected the sections .*, got a list"),
        (b"", r"expected the sections .*, got an empty file"),
        (b"model: {arch: dynrefer}\nrun: {task: dynrefer}", "section 'datasets' is missing"),
        (b"model: {}\nrun: {task: dynrefer}\ndatasets: {}", "model.arch is missing"),
        (b"model: {arch: dynrefer}\nrun: {}\ndatasets: {}", "run.task is missing"),
        (b"model: {arch: blip_vqa}\nrun: {}\ndatasets: {}", "model.model_type is missing"),
    ],
)
def test_broken_file_is_one_sentence(tmp_path, content, complaint):
    path = tmp_path / "run.yaml"
    path.write_bytes(content)

    with pytest.raises(LaunchError, match=complaint):
        load_run_config(str(path))


def test_missing_file_suggests_the_shipped_ones():
    with pytest.raises(
        LaunchError, match=r"no file projects/dynrefer/quickstrat\.yaml.*did you me"
    ):
        load_run_config("projects/dynrefer/quickstrat.yaml")


def test_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(LaunchError, match=r"torch finds no GPU here; set run\.device=cpu or auto"):
        load_checked_config(QUICKSTART, ["run.device=cuda"])


def test_evaluation_needs_no_training_settings():
    config, _ = load_checked_config(QUICKSTART, ["run.init_lr=null"], evaluate=True)

    assert config.run_cfg.evaluate


@pytest.mark.parametrize("main", [train_main, evaluate_main])
def test_main_prints_one_line_and_returns_two(main, capsys):
    code = main(["--cfg-path", "nowhere.yaml"])

    assert code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_unusable_data_is_one_line_without_a_traceback(toy_yaml, capsys):
    code = train_main(["--cfg-path", toy_yaml, "--options", "run.test_splits=[exam]"])

    assert code == 2
    assert "error: no dataset has a split 'exam'" in capsys.readouterr().err


def test_unusable_data_is_found_while_building(toy_yaml):
    with pytest.raises(LaunchError, match="split 'val' is empty"):
        launch(toy_yaml, ["datasets.toy_points.sizes.val=0"])


def test_debug_shows_the_traceback():
    with pytest.raises(LaunchError):
        train_main(["--cfg-path", "nowhere.yaml", "--debug"])


def test_debug_variable_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("DYNREFER_DEBUG", "1")

    with pytest.raises(LaunchError):
        train_main(["--cfg-path", "nowhere.yaml"])


def test_a_model_of_which_nothing_is_trained_is_refused(toy_yaml):
    with pytest.raises(LaunchError, match=r"no part of the model is trained.*model\.trainable"):
        launch(toy_yaml, ["model.frozen=true"])


def test_a_folder_that_cannot_be_made_is_named(toy_yaml, tmp_path):
    (tmp_path / "taken").touch()

    with pytest.raises(LaunchError, match=r"run\.output_dir: .*taken/runs cannot be written"):
        launch(toy_yaml, ["run.output_dir=taken/runs"])


# ---- several processes --------------------------------------------------------------------------


def run_on_two_processes(folder, *arguments):
    script = folder / "train_toy.py"
    script.write_text(
        "import sys, toy_plugin\n"
        "from lavis_dynrefer.training.launch import train_main\n"
        "sys.exit(train_main())\n"
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
    )


def test_two_processes_on_cpu_train_into_one_folder(toy_yaml, tmp_path):
    result = run_on_two_processes(tmp_path, "--cfg-path", toy_yaml)

    assert result.returncode == 0, result.stderr
    (folder,) = (tmp_path / "output").iterdir()
    assert (folder / "checkpoint_best.pth").is_file()
    assert "gloo" in (folder / "log.txt").read_text()


def test_two_processes_print_a_mistake_once_and_fail(toy_yaml, tmp_path):
    arguments = ["--cfg-path", toy_yaml, "--options", "run.task=toy"]

    result = run_on_two_processes(tmp_path, *arguments)

    assert result.returncode != 0
    assert result.stderr.count("error: run.task does not know 'toy'") == 1
