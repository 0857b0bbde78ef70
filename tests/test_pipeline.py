"""The whole spine: raw files, training, evaluation and reports through LAVIS's own commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from lavis_dynrefer.datasets.region_dataset import SampleError
from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.models.weights.tensor_reading import read_state_dict
from lavis_dynrefer.synthetic import write_dataset
from lavis_dynrefer.training.answers.run_grading import grade_run
from lavis_dynrefer.training.launch import launch, train_main
from lavis_dynrefer.training.run_config import LaunchError

RUN = "dynrefer/synthetic.yaml"
SPLITS = ("test", "synthetic_attributes", "synthetic_categories")
LORA = "model.captioning.llm_options.lora"
PARTS = "region_encoder,qformer,text_encoder,tagging,contrast,captioning.prefix"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("scenes") / "data"
    write_dataset(root, scenes=10, seed=3, world="neighbour")
    return root


def options(scenes: Path, output: Path, *more: str) -> list[str]:
    return [
        f"datasets.synthetic_region.build_info.root={scenes}",
        "datasets.synthetic_region.build_info.scenes=10",
        "datasets.synthetic_region.build_info.seed=3",
        f"run.output_dir={output}",
        "run.batch_size_train=8",
        "run.batch_size_eval=1",
        "run.chunk=8",  # regions: several batches in a split, some of several images
        "run.num_workers=0",
        "run.max_epoch=2",
        "run.warmup_steps=5",
        "run.amp=false",
        "run.device=cpu",
        f"{LORA}.rank=4",
        f"{LORA}.alpha=8",
        f"model.trainable=[{PARTS}]",
        *more,
    ]


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory):
    return launch(RUN, options(scenes, tmp_path_factory.mktemp("output")))


def report(run, split: str) -> dict:
    (path,) = run.output_dir.glob(f"report_{split}_epoch*.json")
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("split", SPLITS)
def test_every_region_has_an_answer_in_the_report(trained, split):
    document = report(trained, split)
    rows = [
        json.loads(line)
        for line in Path(document["predictions"]).read_text(encoding="utf-8").splitlines()
    ]
    assert len(rows) == document["counts"]["regions"] > 0
    assert all("prediction" in row for row in rows)
    assert document["counts"]["missing"] == 0
    assert len({row["region_id"] for row in rows}) == len(rows)


@pytest.mark.parametrize("split", SPLITS)
def test_metrics_reach_the_caller_the_report_and_the_table(trained, split):
    document = report(trained, split)
    metrics = trained.metrics[split]
    primary = document["metrics"][document["primary"]]
    assert metrics["agg_metrics"] == primary
    assert isinstance(metrics["agg_metrics"], float)
    (table,) = trained.output_dir.glob(f"report_{split}_epoch*.txt")
    assert document["protocol"] in table.read_text(encoding="utf-8")


def test_training_lowers_the_loss(trained):
    log = (trained.output_dir / "log.txt").read_text(encoding="utf-8").splitlines()
    losses = [float(json.loads(line)["train_loss"]) for line in log if '"train_loss"' in line]
    assert len(losses) == 2
    assert losses[1] < losses[0]


def test_lora_on_the_language_model_is_trained_and_saved(trained):
    saved = read_state_dict(trained.output_dir / "checkpoint_last.pth")
    second = [value for name, value in saved.items() if ".lora_B." in name]  # zero when new
    assert len(second) > 0
    assert all(value.any() for value in second)


def torchrun(module: str, arguments: list[str], processes: int) -> subprocess.CompletedProcess:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = ["-m", module, "--cfg-path", RUN, "--options", *arguments]
    return subprocess.run(
        [*torchrun, f"--nproc_per_node={processes}", *command],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=900,
        check=False,
    )


def graded(folder: Path, split: str) -> tuple[dict, bytes]:
    """What the report of a split says about the answers, and the answers."""
    (path,) = folder.glob(f"report_{split}_epoch*.json")
    document = json.loads(path.read_text(encoding="utf-8"))
    answers = Path(document.pop("predictions")).read_bytes()
    del document["epoch"]
    return document, answers


# One image in one split and four in the others: some processes have none.
@pytest.mark.parametrize(
    "processes", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3, 4))]
)
def test_answers_do_not_depend_on_the_number_of_processes(trained, scenes, tmp_path, processes):
    weights = f"run.load_ckpt_path={trained.output_dir / 'checkpoint_last.pth'}"
    result = torchrun("lavis_dynrefer.evaluate", options(scenes, tmp_path, weights), processes)
    assert result.returncode == 0, result.stderr[-2000:]
    (folder,) = tmp_path.iterdir()
    assert len(list((folder / "result").iterdir())) == len(SPLITS)
    for split in SPLITS:
        assert graded(folder, split) == graded(trained.output_dir, split)


# Grading captions starts Java.
@pytest.mark.parametrize("splits", [SPLITS[1:], pytest.param(SPLITS, marks=pytest.mark.slow)])
def test_answers_graded_later_give_the_report_of_the_run(trained, tmp_path, splits):
    folder = shutil.copytree(trained.output_dir, tmp_path / "run")
    for split in splits:
        (path,) = folder.glob(f"report_{split}_*.json")
        path.unlink()

    grades = list(grade_run(folder))

    assert sorted(one.answers.split for one in grades) == sorted(splits)
    assert all(one.missing == 0 for one in grades)
    for split in splits:
        assert graded(folder, split) == graded(trained.output_dir, split)


def test_a_stopped_run_continues_within_its_epoch(trained, scenes, tmp_path):
    batches = iter(range(4))

    def stop(module, inputs):
        if isinstance(module, DynRefer) and next(batches, None) == 3:
            signal.raise_signal(signal.SIGINT)

    settings = [
        *options(scenes, tmp_path, "run.test_splits=[]"),
        "run.resume_ckpt_path=auto",
        "run.resume_in_place=true",
    ]
    hook = register_module_forward_pre_hook(stop)
    try:
        assert train_main(["--cfg-path", RUN, "--options", *settings]) == 130
    finally:
        hook.remove()

    resumed = launch(RUN, [*settings, "run.num_workers=2"])

    ends = [torch.load(run.output_dir / "checkpoint_last.pth") for run in (trained, resumed)]
    assert ends[0]["model"].keys() == ends[1]["model"].keys()
    assert all(
        torch.equal(ends[0]["model"][name], ends[1]["model"][name]) for name in ends[0]["model"]
    )
    logs = [(run.output_dir / "log.txt").read_text(encoding="utf-8") for run in (trained, resumed)]
    assert [line for line in logs[0].splitlines() if '"train_loss"' in line] == [
        line for line in logs[1].splitlines() if '"train_loss"' in line
    ]


@pytest.fixture
def spoilt(scenes, tmp_path):
    """Options of an evaluation on a copy of the scenes with a cut-off image, and that image."""
    root = shutil.copytree(scenes, tmp_path / "spoilt")
    image = min((root / "coco" / "val2017").iterdir())
    image.write_bytes(image.read_bytes()[:2000])
    return options(root, tmp_path / "out", "run.test_splits=[synthetic_categories]"), image


def test_a_cut_off_image_stops_with_its_name(spoilt):
    settings, image = spoilt
    with pytest.raises(SampleError, match=image.name):
        launch(RUN, settings, evaluate=True)


def test_a_skipped_image_counts_as_wrong_answers(trained, spoilt):
    settings, image = spoilt
    skip = "datasets.synthetic_region.build_info.on_error=skip"
    document = report(launch(RUN, [*settings, skip], evaluate=True), "synthetic_categories")
    failed, counts = document["failed"], document["counts"]
    assert failed
    assert all(image.name in row["detail"] for row in failed)
    assert counts["missing"] == len(failed) < counts["regions"]
    assert counts["regions"] == report(trained, "synthetic_categories")["counts"]["regions"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("run.batch_size_train=100000", "batch"),
        ("datasets.synthetic_region.build_info.sceens=3", "sceens"),
        ("datasets.synthetic_region.build_info.splits=[tset]", "tset"),
        ("model.vision.depht=3", "depht"),
        ("model.captioning.llm=gpt9", "gpt9"),
        ("run.task=dynrefre", "dynrefre"),
        ("run.max_epochs=3", "max_epoch"),
        ("model.tagging.vocabulary=/nowhere.txt", "nowhere.txt"),
    ],
)
def test_wrong_settings_are_named(scenes, tmp_path, change, message):
    with pytest.raises((LaunchError, ValueError), match=message):
        launch(RUN, options(scenes, tmp_path, change))
