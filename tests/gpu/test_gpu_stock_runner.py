"""LAVIS's own runner with the task, model and data of this package."""

from __future__ import annotations

import json

import pytest
from lavis.common.registry import registry

from lavis_dynrefer.training.launch import launch

SYNTHETIC = "projects/dynrefer/synthetic.yaml"


@pytest.fixture
def options(tmp_path, monkeypatch):
    """A short run; the stock runner registers its folders once in a process."""
    for name in ("output_dir", "result_dir"):
        monkeypatch.delitem(registry.mapping["paths"], name, raising=False)
    yield [
        "datasets.synthetic_region.build_info.scenes=3",
        "run.runner=runner_base",
        "run.device=cuda",
        "run.batch_size_train=7",
        "run.batch_size_eval=1",
        "run.num_workers=0",
        "run.max_epoch=1",
        "run.test_splits=[synthetic_categories]",  # graded without Java
        f"run.output_dir={tmp_path}",
    ]
    for name in ("output_dir", "result_dir"):
        registry.mapping["paths"].pop(name, None)


def reported(run):
    (path,) = run.output_dir.glob("report_synthetic_categories_epoch*.json")
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["counts"]["missing"] == 0
    return document["metrics"]


def test_stock_runner_evaluates_to_a_report(training_gpu, options, tmp_path):
    del training_gpu
    run = launch(SYNTHETIC, options, evaluate=True)

    own = ["run.runner=runner_dynrefer", "run.device=cpu", f"run.output_dir={tmp_path / 'own'}"]
    expected = launch(SYNTHETIC, [*options, *own], evaluate=True)
    found, on_cpu = reported(run), reported(expected)
    # Of a dozen regions; a probability beside the edge of a bin may be on its other side.
    assert found.pop("calibration_error") == pytest.approx(on_cpu.pop("calibration_error"), abs=1)
    assert found == pytest.approx(on_cpu)


def test_stock_runner_trains_to_a_report(gpu, options, monkeypatch, tmp_path):
    del gpu
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)

    run = launch(SYNTHETIC, [*options, f"run.dist_url={(tmp_path / 'meet').as_uri()}"])

    assert reported(run)["acc"] > 50
