"""Every yaml that is shipped, and the published numbers of its run."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
import torch

import lavis_dynrefer  # noqa: F401  registers with LAVIS
from lavis_dynrefer.config import GenerationConfig
from lavis_dynrefer.models.precision import number_formats
from lavis_dynrefer.training.checks.file_checks import check_file
from lavis_dynrefer.training.launch import launch
from lavis_dynrefer.training.run_config import load_run_config

ROOT = Path(__file__).parents[2]
YAMLS = sorted(
    str(path.relative_to(ROOT))
    for folder in ("configs", "projects")
    for path in (ROOT / folder).rglob("*.yaml")
)
RUNS = [name for name in YAMLS if name.startswith("projects/")]
OWN = [name for name in RUNS if name.endswith("/custom.yaml")]  # the user's own data
EVALUATIONS = [name for name in RUNS if "/evaluate/" in name and name not in OWN]
CAPTIONS = [name for name in EVALUATIONS if re.search(r"/(vg|refcocog)", name)]

# docs/train_and_eval.md of the released code; empty where it has only a script or a config.
PUBLISHED = {
    "train/vg_v1.2": {"test": {"map": 47.6}},
    "train/refcocog": {"refcocog_val": {"meteor": 18.1, "cider": 115.3}},
    "evaluate/vg_v1.2": {"test": {"map": 47.6}},
    "evaluate/vg_v1.0": {},
    "evaluate/vg_coco": {},
    "evaluate/vg_v1.2_grit": {},
    "evaluate/vg_v1.0_grit": {},
    "evaluate/vg_coco_grit": {},
    "evaluate/vg_reg": {"test": {"meteor": 21.2, "cider": 190.5}},
    "evaluate/refcocog": {"refcocog_val": {"meteor": 18.1, "cider": 115.3}},
    "evaluate/ovad": {"ovad_val": {"map": 29.2}},
    "evaluate/coco": {"coco_val": {"acc_official": 91.8}},
    "evaluate/coco_ovad": {"ovad_val": {"map": 29.2}, "coco_val": {"acc_official": 91.8}},
}


@pytest.fixture(autouse=True)
def _plain_machine(monkeypatch):
    """No data, no weights, no GPU; the current folder is that of the repository."""
    for name in ("VG_ROOT", "COCO_ROOT", "OVAD_ROOT", "REFCOCOG_ROOT", "DYNREFER_TAGS", "EVA_CLIP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", YAMLS)
def test_every_shipped_yaml_is_valid(name):
    assert [finding.text for finding in check_file(name) if finding.fatal] == []


@pytest.mark.parametrize("name", RUNS)
def test_a_run_file_begins_with_its_command(name):
    command = re.match(
        r"# (?:python|torchrun --nproc_per_node=8) -m lavis\.(\w+) --cfg-path (\S+)",
        (ROOT / name).read_text(encoding="utf-8"),
    )

    assert command is not None
    assert command[2] == name
    assert (command[1] == "evaluate") == bool(load_run_config(name).run_cfg.evaluate)


@pytest.mark.parametrize("name", [run for run in RUNS if "/train/" in run or "/evaluate/" in run])
def test_the_options_of_the_command_are_settings_that_exist(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    comments = [line for line in lines if line.startswith("#   ")]
    options = re.findall(r"\b[\w.]+=\S+", " ".join(comments))

    assert options
    assert [finding.text for finding in check_file(name, options) if finding.fatal] == []


@pytest.mark.parametrize("name", PUBLISHED)
def test_runs_expect_what_was_published(name):
    expected = load_run_config(f"projects/dynrefer/{name}.yaml").expected

    found = {}
    for number in expected.numbers if expected else ():
        found.setdefault(number.split, {})[number.metric] = number.value
    assert found == PUBLISHED[name]
    assert expected is None or "docs/train_and_eval.md" in expected.source


def test_every_row_of_the_released_table_has_its_run():
    known = {f"projects/dynrefer/{name}.yaml" for name in PUBLISHED}

    assert known == {name for name in RUNS if name.count("/") == 3 and name not in OWN}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_evaluations_use_the_settings_of_the_released_code(name):
    config = load_run_config(name)

    assert config.run_cfg.protocol_mode == "official"
    assert (config.run_cfg.amp, config.run_cfg.dtype) == (False, "auto")
    assert number_formats(config.run_cfg.dtype, "cuda", (9, 0)).name == "released"
    assert number_formats(config.run_cfg.dtype, "cpu").name == "float32"
    for dataset in config.datasets_cfg.values():
        views = dataset.vis_processor.eval
        assert (views.policy, views.hash, views.num_views) == ("image", "official", 3)


@pytest.mark.parametrize("name", CAPTIONS)
def test_captions_use_the_beam_search_of_the_released_configuration(name):
    search = GenerationConfig(**load_run_config(name).run_cfg.generation)

    assert (search.num_beams, search.max_new_tokens) == (2, 20)
    assert (search.length_penalty, search.repetition_penalty, search.min_length) == (0.0, 1.5, 1)


@pytest.mark.parametrize(
    ("name", "threshold"),
    [
        ("evaluate/vg_v1.2", None),  # config.py has the 0.7
        ("evaluate/vg_reg", 0.8),
        ("evaluate/refcocog", 0.76),
        ("train/refcocog", 0.76),
    ],
)
def test_tag_thresholds_are_the_released_ones(name, threshold):
    model = load_run_config(f"projects/dynrefer/{name}.yaml").model_cfg

    assert model.tagging.get("threshold") == threshold


@pytest.mark.parametrize(("name", "epochs"), [("train/vg_v1.2", 5), ("train/refcocog", 3)])
def test_training_uses_the_released_numbers(name, epochs):
    run = load_run_config(f"projects/dynrefer/{name}.yaml").run_cfg

    assert (run.max_epoch, run.batch_size_train, run.seed) == (epochs, 64, 42)
    assert (run.init_lr, run.min_lr, run.weight_decay) == (1e-4, 0, 0.05)
    assert (run.amp, run.amp_dtype, run.max_grad_norm) == (True, "fp16", 0)


def test_a_run_ends_with_the_numbers_it_met_and_missed(tmp_path, caplog):
    options = [
        "datasets.synthetic_region.build_info.scenes=5",
        f"datasets.synthetic_region.build_info.root={tmp_path / 'scenes'}",
        f"run.output_dir={tmp_path}",
        "run.test_splits=[synthetic_categories]",
        "run.num_workers=0",
        "model.pretrained=null",
        "model.load_finetuned=false",
        "model.random_parts=true",
        "expected.source=a test",
        "expected.synthetic_categories.acc=[50,50]",
        "expected.synthetic_categories.accuracy=[50,50]",
        "expected.test.map=[-5,1]",
    ]

    with caplog.at_level(logging.INFO, logger="lavis_dynrefer.training.launch"):
        launch("dynrefer/synthetic.yaml", options, evaluate=True)

    (table,) = [line for line in caplog.messages if line.startswith("expected: a test")]
    verdicts = {line.split()[1]: line.split("  ")[-1].strip() for line in table.splitlines()[3:]}
    assert verdicts == {
        "acc": "met",
        "accuracy": "missed, not reported",
        "map": "missed, not reported",
    }
