"""The whole spine: raw files, training, evaluation and reports through LAVIS's own commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lavis_dynrefer.models.weights.checkpoint import read_state_dict
from lavis_dynrefer.synthetic import write_dataset
from lavis_dynrefer.training.launch import launch
from lavis_dynrefer.training.run_config import LaunchError

RUN = "dynrefer/quickstart.yaml"
SPLITS = ("test", "synthetic_attributes", "synthetic_categories")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("scenes") / "data"
    write_dataset(root, scenes=20, seed=3, world="neighbour")
    return root


def options(scenes: Path, output: Path, *more: str) -> list[str]:
    return [
        f"datasets.synthetic_region.build_info.root={scenes}",
        "datasets.synthetic_region.build_info.scenes=20",
        "datasets.synthetic_region.build_info.seed=3",
        f"run.output_dir={output}",
        "run.batch_size_train=8",
        "run.num_workers=0",
        "run.max_epoch=2",
        "run.warmup_steps=5",
        "run.amp=false",
        "run.device=cpu",
        *more,
    ]


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory):
    return launch(RUN, options(scenes, tmp_path_factory.mktemp("output")))


def report(run, split: str) -> dict:
    (path,) = run.output_dir.glob(f"report_{split}_epoch*.json")
    return json.loads(path.read_text())


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
    assert document["protocol"] in table.read_text()


def test_training_lowers_the_loss(trained):
    log = (trained.output_dir / "log.txt").read_text().splitlines()
    losses = [float(json.loads(line)["train_loss"]) for line in log if '"train_loss"' in line]
    assert len(losses) == 2
    assert losses[1] < losses[0]


def test_lora_on_the_language_model_is_trained_and_saved(scenes, tmp_path):
    parts = "region_encoder,qformer,text_encoder,tagging,contrast,captioning.prefix"
    run = launch(
        RUN,
        options(
            scenes,
            tmp_path,
            "model.captioning.llm_options.lora.rank=4",
            "model.captioning.llm_options.lora.alpha=8",
            f"model.trainable=[{parts}]",
            "run.max_epoch=1",
            "run.test_splits=[]",
        ),
    )
    saved = read_state_dict(run.output_dir / "checkpoint_last.pth")
    second = [value for name, value in saved.items() if ".lora_B." in name]  # zero when new
    assert len(second) > 0
    assert all(value.any() for value in second)


def torchrun(module: str, arguments: list[str]) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return subprocess.run(
        [*command, "-m", module, "--cfg-path", RUN, "--options", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_two_processes_grade_as_one_does(trained, scenes, tmp_path):
    weights = f"run.load_ckpt_path={trained.output_dir / 'checkpoint_last.pth'}"
    result = torchrun("lavis_dynrefer.evaluate", options(scenes, tmp_path, weights))
    assert result.returncode == 0, result.stderr[-2000:]
    (folder,) = tmp_path.iterdir()
    for split in SPLITS:
        (path,) = folder.glob(f"report_{split}_*.json")
        expected = report(trained, split)["metrics"]
        assert json.loads(path.read_text())["metrics"] == pytest.approx(expected, abs=1e-4)


def epochs(folder: Path) -> list[int]:
    """Numbers of the epochs that a run's log says it saved."""
    log = folder / "log.txt"
    return (
        sum('"train_loss"' in line for line in log.read_text().splitlines()) if log.exists() else 0
    )


def test_a_killed_run_continues_from_its_last_checkpoint(scenes, tmp_path):
    settings = options(scenes, tmp_path, "run.max_epoch=50", "run.test_splits=[]")
    command = [sys.executable, "-m", "lavis_dynrefer.train", "--cfg-path", RUN, "--options"]
    with subprocess.Popen(
        [*command, *settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("*/checkpoint_last.pth")) and time.monotonic() < deadline:
            assert run.poll() is None
            time.sleep(0.1)
        run.send_signal(signal.SIGKILL)
    (folder,) = tmp_path.iterdir()
    done = epochs(folder)
    assert done >= 1

    resumed = launch(
        RUN,
        [
            *options(scenes, tmp_path, f"run.max_epoch={done + 2}", "run.test_splits=[]"),
            "run.resume_ckpt_path=auto",
            "run.resume_in_place=true",
        ],
    )

    assert resumed.output_dir == folder
    assert done + 1 <= epochs(folder) <= done + 2  # the kill may fall between save and log


def spoil(scenes: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the scenes whose first test image is cut off."""
    root = tmp_path / "spoilt"
    shutil.copytree(scenes, root)
    splits = json.loads((root / "vg" / "densecap_splits.json").read_text())
    image = root / "vg" / "images" / "VG_100K" / f"{sorted(splits['test'])[0]}.jpg"
    image.write_bytes(image.read_bytes()[:2000])
    return root, image


def test_a_cut_off_image_stops_with_its_name(trained, scenes, tmp_path):
    root, image = spoil(scenes, tmp_path)
    with pytest.raises(Exception, match=image.name):
        launch(RUN, options(root, tmp_path / "out", "run.test_splits=[test]"), evaluate=True)


def test_a_skipped_image_counts_as_wrong_answers(trained, scenes, tmp_path):
    root, image = spoil(scenes, tmp_path)
    skip = "datasets.synthetic_region.build_info.on_error=skip"
    run = launch(
        RUN, options(root, tmp_path / "out", "run.test_splits=[test]", skip), evaluate=True
    )
    document = report(run, "test")
    failed = document["failed"]
    assert failed
    assert all(image.name in row["detail"] for row in failed)
    assert document["counts"]["missing"] == len(failed)
    assert document["counts"]["regions"] == report(trained, "test")["counts"]["regions"]


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
