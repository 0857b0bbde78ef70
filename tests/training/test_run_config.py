"""Reading and merging the yaml of a run."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
from fresh_interpreter import run_python
from omegaconf import OmegaConf

import lavis_dynrefer  # noqa: F401  registers with LAVIS
from lavis_dynrefer.models.weights.fetching.part_registry import register
from lavis_dynrefer.training.run_config import LaunchError, find_run_file, load_run_config
from lavis_dynrefer.views.view_processor import ViewProcessor

ROOT = Path(__file__).parents[2]
SYNTHETIC = "projects/dynrefer/synthetic.yaml"
RUNS = sorted((ROOT / "projects").rglob("*.yaml"))
OTHER = """
model: {arch: blip_caption, model_type: base_coco}
datasets: {coco_caption: {vis_processor: {eval: {name: blip_image_eval}}}}
run: {task: captioning, lr_sched: linear_warmup_cosine_lr, init_lr: 1e-5, max_len: 20, seed: null}
"""


@pytest.fixture
def other_yaml(tmp_path):
    """A run of a LAVIS model that has nothing to do with this plugin."""
    path = tmp_path / "caption.yaml"
    path.write_text(OTHER, encoding="utf-8")
    return str(path)


def stock_config(path, options=None):
    from lavis.common.config import Config

    return Config(Namespace(cfg_path=str(path), options=options))


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_a_shipped_run_is_merged_as_lavis_does(path):
    stock = stock_config(path)

    ours = load_run_config(str(path))

    for name in ("model", "datasets"):
        assert OmegaConf.to_yaml(ours.config[name]) == OmegaConf.to_yaml(stock.config[name])
    assert OmegaConf.to_container(stock.config.run).items() <= ours.to_dict()["run"].items()


def test_options_win_over_every_yaml_as_in_lavis():
    options = ["model.tagging.threshold=0.3", "datasets.synthetic_region.build_info.scenes=7"]
    stock = stock_config(find_run_file(SYNTHETIC), options).to_dict()

    ours = load_run_config(SYNTHETIC, options).to_dict()

    assert ours["model"] == stock["model"]
    assert ours["datasets"] == stock["datasets"]


def test_a_run_of_another_task_is_what_lavis_makes_of_it(other_yaml):
    stock, ours = stock_config(other_yaml).to_dict(), load_run_config(other_yaml).to_dict()

    assert {name: ours[name] for name in ("model", "datasets")} == {
        name: stock[name] for name in ("model", "datasets")
    }
    assert ours["run"]["runner"] == "runner_base"
    assert {**stock["run"], "seed": 42}.items() <= ours["run"].items()


def test_a_run_of_ours_is_read_without_lavis():
    code = (
        "import sys; from lavis_dynrefer.training.checks.file_checks import check_file; "
        f"check_file({SYNTHETIC!r}); "
        "print(sorted({'lavis', 'transformers', 'torchvision'} & set(sys.modules)))"
    )
    result = run_python(code)
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_our_task_gets_our_runner_and_the_defaults_of_all_keys():
    run = load_run_config(SYNTHETIC, ["run.runner=null", "run.seed=null"]).run_cfg

    assert (run.runner, run.seed, run.beta2) == ("runner_dynrefer", 42, 0.999)


def test_model_type_given_as_an_option_loads_the_yaml_of_that_type():
    config = load_run_config(SYNTHETIC, ["model.model_type=flant5xl"])

    assert config.model_cfg.captioning.llm_options.dtype == "bfloat16"


def test_dataset_without_settings_means_its_defaults(tmp_path):
    section = OmegaConf.load(find_run_file(SYNTHETIC))
    section.datasets = {"synthetic_region": None}
    OmegaConf.save(section, tmp_path / "run.yaml")

    config = load_run_config(str(tmp_path / "run.yaml"))

    assert config.datasets_cfg.synthetic_region.data_type == "images"


@pytest.mark.parametrize(
    "options", [["run.max_epoch=7", "run.amp=true"], ["run.max_epoch", "7", "run.amp", "true"]]
)
def test_options_are_written_as_in_lavis(options):
    run = load_run_config(SYNTHETIC, options).run_cfg

    assert (run.max_epoch, run.amp) == (7, True)


def test_a_shipped_file_is_found_unless_the_current_folder_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_run_file(SYNTHETIC).is_file()
    own = tmp_path / SYNTHETIC
    own.parent.mkdir(parents=True)
    own.write_text("", encoding="utf-8")

    assert find_run_file(SYNTHETIC).resolve() == own


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["run.seed"], "--options: run.seed has no value"),
        (["run.seed=[1"], "--options ['run.seed=[1']: not yaml"),
        (["model=[]"], "cannot merge a list with a mapping"),
        (["run.resume_ckpt_path=???"], "a value must be given for run.resume_ckpt_path"),
        (["run.seed=${oc.env:NO_SUCH_VARIABLE}"], "Environment variable 'NO_SUCH_VARIABLE'"),
        (["datasets.ovad=3"], "datasets.ovad: expected a mapping, got 3"),
    ],
)
def test_options_that_cannot_be_merged_are_named(options, complaint):
    with pytest.raises(LaunchError) as raised:
        load_run_config(SYNTHETIC, options)

    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"model: {}\nrun: {task: dynrefer}\ndatasets: {ovad: }", "model.arch: is missing"),
        (b"model: {arch: dynrefer}\nrun: {}\ndatasets: {ovad: }", "run.task: is missing"),
        (
            b"model: {arch: blip_vqa}\nrun: {task: vqa}\ndatasets: {ovad: }",
            "model.model_type: is missing",
        ),
        (b"model: {arch: dynrefer}\nrun: {}\ndatasets: {}", "datasets: name at least one"),
    ],
)
def test_a_file_that_names_too_little_is_refused(tmp_path, content, complaint):
    path = tmp_path / "run.yaml"
    path.write_bytes(content)

    with pytest.raises(LaunchError, match=complaint):
        load_run_config(str(path))


def test_data_name_the_tag_list_that_the_model_finds(tmp_path, monkeypatch):
    monkeypatch.setenv("DYNREFER_CACHE", str(tmp_path))
    monkeypatch.delenv("DYNREFER_TAGS", raising=False)
    tags = tmp_path / "tags.txt"
    tags.write_text("dog\ncat\n", encoding="utf-8")
    register("flant5xl", "tags", tags)

    config = load_run_config("projects/dynrefer/train/vg_v1.2.yaml").config

    # "auto" means frequent words of the captions to a dataset.
    assert config.datasets.vg_region.build_info.tags == config.model.tagging.vocabulary == str(tags)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("!!python/object/apply:os.mkdir [ran]", "not a readable yaml file: could not determine"),
        ("!!python/name:os.system", "not a readable yaml file: could not determine"),
        ("!run ran", "not a readable yaml file: could not determine"),
        ("${eval:mkdir}", "Unsupported interpolation type eval"),
        ("${eval:os.mkdir('ran')}", "run.seed: token recognition error"),
        ("${oc.exec:mkdir ran}", "Unsupported interpolation type oc.exec"),
    ],
)
def test_code_in_a_yaml_is_not_run(tmp_path, monkeypatch, value, complaint):
    monkeypatch.chdir(tmp_path)
    content = Path(find_run_file(SYNTHETIC)).read_text(encoding="utf-8")
    (tmp_path / "run.yaml").write_text(content.replace("seed: 42", f"seed: {value}"), "utf-8")

    with pytest.raises(LaunchError) as raised:
        load_run_config("run.yaml")

    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("own", "scales"),
    [
        ({}, [0.0, 0.7]),  # those of the embedded model
        ({"scales": {"caption": [0.0, 0.3]}}, [0.0, 0.3]),
        ({"policy": "fixed", "scales": [0.0, 0.5]}, [0.0, 0.5]),
    ],
)
def test_data_are_seen_through_the_views_of_the_model_unless_a_policy_is_named(
    tmp_path, own, scales
):
    path = tmp_path / "run.yaml"
    content = OmegaConf.load(ROOT / SYNTHETIC)
    content.datasets.synthetic_region.vis_processor = {"eval": own}
    OmegaConf.save(content, path)
    options = load_run_config(str(path)).datasets_cfg.synthetic_region.vis_processor.eval

    policy = ViewProcessor.from_config(options).policy

    assert policy.scales.tolist() == pytest.approx(scales)
