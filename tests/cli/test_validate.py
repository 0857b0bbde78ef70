"""Mistakes planted in yaml files, and what `dynrefer validate` says about them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fresh_interpreter import run_python
from omegaconf import OmegaConf

from lavis_dynrefer.cli import main
from lavis_dynrefer.paths import config_path
from lavis_dynrefer.training.checks.file_checks import check_file

SYNTHETIC = "projects/dynrefer/synthetic.yaml"
OVAD = "projects/dynrefer/evaluate/ovad.yaml"
TRAIN = "projects/dynrefer/train/vg_v1.2.yaml"
MODEL = config_path("models/dynrefer_tiny.yaml")
DATASET = config_path("datasets/vg_region.yaml")
DATA = "datasets.synthetic_region"
EVAL = f"{DATA}.vis_processor.eval"


def errors(name, *options):
    return [finding.text for finding in check_file(name, options) if finding.fatal]


def warnings(name, *options):
    return [finding.text for finding in check_file(name, options) if not finding.fatal]


RUN_MISTAKES = [  # option of the run -> complaint
    # names and sections
    ("rum.seed=3", "'rum'; did you mean run?"),
    ("model.arch=dynref", "model.arch: unknown 'dynref'"),
    ("model.model_type=huge", "model.model_type: unknown 'huge'"),
    ("datasets.synthetic.type=x", "datasets: unknown 'synthetic'"),
    ("run.task=dynrefr", "run.task: unknown 'dynrefr'"),
    ("datasets=null", "datasets"),
    ("run=3", "run"),
    # the run
    ("run.max_epochs=3", "'max_epochs'"),
    ("run.max_epoch=three", "run.max_epoch: expected an integer"),
    ("run.protocol_mode=lenient", "run.protocol_mode: expected "),
    ("run.generation.num_beams=0", "run.generation.num_beams: expected at least 1, got 0"),
    ("run.test_splits=[exam]", "'exam'"),
    ("run.test_splits=[train]", "'train'"),
    ("run.train_splits=[val]", "run.train_splits: expected "),
    ("run.seed=${oc.env:NO_SUCH_VARIABLE}", "Environment variable 'NO_SUCH_VARIABLE'"),
    # the model
    ("model.vision.depht=3", "model.vision: unknown ['depht']"),
    ("model.tagging.threshold=70", "model.tagging.threshold: expected "),
    ("model.captioning.llm=gpt9", "'gpt9'"),
    ("model.trainable=[qfromer]", "'qfromer'; did you mean qformer?"),
    ("model.pretrained=x.pth", "model.pretrained: expected a mapping"),
    # the data
    (f"{DATA}.vis_procesor=x", "'vis_procesor'; did you mean vis_processor?"),
    (f"{DATA}.type=v2", f"{DATA}.type: unknown 'v2'"),
    (f"{DATA}.build_info.sceens=3", "build_info: unknown ['sceens']"),
    (f"{DATA}.build_info.splits=[tset]", "'tset'; did you mean test?"),
    (f"{DATA}.build_info.evaluator=bleu", "'bleu'"),
    (f"{DATA}.build_info.regions_per_image=0", "regions_per_image: expected at least 1, got 0"),
    (f"{DATA}.build_info.split_names.val=test", "split_names: two splits share a name"),
    (f"{DATA}.build_info.on_error=ignore", "on_error: expected 'raise' or 'skip', got 'ignore'"),
    # processors
    (f"{EVAL}.name=dynrefer_evil", "'dynrefer_evil'; did you mean dynrefer_eval?"),
    (f"{DATA}.vis_processor=x", "vis_processor: expected a mapping"),
    (f"{DATA}.vis_processor.evla.name=dynrefer_eval", "'evla'"),
    (f"{EVAL}.policy=best", "'best'"),
    (f"{EVAL}.hash=md5", "view policy 'task'"),
    (f"{EVAL}={{policy: image, hash: md5}}", "'md5'"),
    (f"{EVAL}={{policy: image, num_views: 3}}", "eval: gives 3 views a region, model.region.num_v"),
    (f"{EVAL}.num_views=3", "num_views: expected 2, as many as each task has scales, got 3"),
    (f"{EVAL}.num_views=two", "'two'"),
    # expected numbers
    ("expected=47.6", "expected: expected a mapping"),
    ("expected.test.map=[1,1]", "expected.source"),
]
MISTAKES = [
    *((SYNTHETIC, *mistake) for mistake in RUN_MISTAKES),
    (OVAD, "expected.ovad_vla.map=[1,1]", "'ovad_vla'; did you mean ovad_val?"),
    (OVAD, "expected.ovad_val.meteor=[1,1]", "'meteor'"),
    (OVAD, "expected.ovad_val.map=29.2", "expected.ovad_val.map: expected "),
    (MODEL, "model.arch=dynref", "model.arch: unknown 'dynref'"),
    (MODEL, "model.vision.depht=3", "model.vision: unknown ['depht']"),
    (MODEL, "model=3", "model: expected a mapping, got 3"),
    (MODEL, "preprocess.vis_procesor.eval=x", "preprocess: unknown 'vis_procesor'"),
    (MODEL, "preprocess.vis_processor.train.num_views=3", "gives 3 views a region"),
    (MODEL, "preprocess.vis_processor.train.mask_share=50", "mask_share: expected a number from 0"),
    (MODEL, "preprocess.vis_processor.eval.mask_views=blur", "mask_views: unknown 'blur'"),
    (MODEL, "model.region.masks=pixels", "model.region.masks: expected 'ignore' or 'cells'"),
    (MODEL, "model.vision.heads=3", "model.vision.width: expected a multiple of heads 3, got 128"),
    (MODEL, "model.qformer.heads=3", "model.qformer.width: expected a multiple of heads 3"),
    (MODEL, "model.tagging.decoder.heads=7", "tagging.decoder.width: expected a multiple of heads"),
    (MODEL, "model.vision.patch_size=7", "vision.image_size: expected a multiple of patch_size 7"),
    (MODEL, "model.region.offset_groups=3", "expected a multiple of region.offset_groups 3"),
    (MODEL, "model.vision.mlp_ratio=0.0", "model.vision.mlp_ratio: expected more than 0, got 0.0"),
    (MODEL, "model.losses.clip=.nan", "model.losses.clip: expected a finite number, got nan"),
    (MODEL, "model.captioning.llm_options.tokenizer=3", "tokenizer: expected a string, got 3"),
    (MODEL, "model.captioning.llm_options.config.d_model=0", "d_model: expected at least 1"),
    (MODEL, "model.pretrained.parts=[1]", "model.pretrained.parts[0]: expected a string, got 1"),
    (MODEL, "model.pretrained.eva=x", "model.pretrained: unknown ['eva']; did you mean eva_vit?"),
    (MODEL, "model.finetuned=vocab/data/synthetic_tags.txt", "not a readable file of tensors"),
    (MODEL, "model.load_finetuned=yes please", "model.load_finetuned: expected true or false"),
    (DATASET, "datasets.vg_region.build_info.rot=x", "build_info: unknown ['rot']"),
    (DATASET, "datasets.vg_region.type=v9", "datasets.vg_region.type: unknown 'v9'"),
    (DATASET, "datasets.vg_regoin.type=x", "datasets: unknown 'vg_regoin'; did you mean"),
    (DATASET, "datasets.vg_region=3", "datasets.vg_region: expected a mapping, got 3"),
    (DATASET, "datasets=null", "datasets: expected "),
    (DATASET, "datasets.vg_region.vis_processor.eval.policy=best", "'best'"),
]


@pytest.mark.parametrize(("name", "option", "complaint"), MISTAKES)
def test_a_mistake_is_named(name, option, complaint):
    found = errors(name, option)

    assert any(complaint in text for text in found), found


@pytest.mark.parametrize("change", ["region.sampling_ratio=0", "trainable=[]", "trainable=['']"])
def test_unusual_values_that_work_are_accepted(change):
    assert errors(MODEL, f"model.{change}") == []


@pytest.mark.parametrize(
    ("policy", "views"),
    [
        (["policy=fixed", "scales=[0,0.1,0.4]"], "gives 3 views"),
        (["policy=learned", "candidates=[0.3,0.6]"], "model.scale_prior.candidates is None"),
        # two tasks are not named, so they would use all five
        (
            ["policy=task", "num_views=3", "scales={caption: [0,0.4,0.5], tags: [0,0.1,0.2]}"],
            "gives 3 or 5 views",
        ),
    ],
)
def test_views_are_counted_for_every_policy(policy, views):
    (found,) = errors(SYNTHETIC, *(f"{EVAL}.{option}" for option in policy))

    assert views in found


def test_unknown_group_of_attributes_is_a_warning():
    option = "expected.ovad_val.map_colour=[1,1]"

    assert errors(OVAD, option) == []
    assert any("is it a parent type" in text for text in warnings(OVAD, option))


def test_all_mistakes_are_listed_at_once():
    planted = ("model.vision.depht=3", f"{DATA}.build_info.sceens=3", f"{EVAL}.policy=best")

    assert len(errors(SYNTHETIC, *planted)) == 3


@pytest.mark.parametrize(
    ("name", "option", "warning"),
    [
        (OVAD, "run.seed=1", "model.tagging.vocabulary: not on this machine; 0.04 MB at https"),
        (OVAD, "run.seed=1", "model.pretrained.eva_vit: not on this machine; about 2.03 GB at h"),
        (OVAD, "run.seed=1", "model.finetuned: not on this machine; it has no direct address"),
        (OVAD, "model.pretrained.eva_vit=null", "model: no file has the weights of backbone.vit;"),
        (OVAD, "model.random_parts=true", "by EVA_VIT_G or model.pretrained.eva_vit; begins"),
        (OVAD, "run.seed=1", "build_info.root: not set; give it as an option or export OVAD_ROOT"),
        (OVAD, "model.finetuned=/nowhere.pth", "model.finetuned: no file '/nowhere.pth'"),
        (OVAD, "datasets.ovad.build_info.root=/nowhere", "build_info.root: no folder '/nowhere'"),
        (OVAD, "run.load_ckpt_path=/nowhere.pth", "run.load_ckpt_path: no file '/nowhere.pth'"),
        (SYNTHETIC, "model.text.tokenizer=/nowhere.json", "model.text.tokenizer: no file"),
        (SYNTHETIC, "run.device=cuda", "run.device: torch finds no cuda device"),
    ],
)
def test_what_this_machine_lacks_is_a_warning(name, option, warning, monkeypatch):
    for variable in ("OVAD_ROOT", "DYNREFER_TAGS", "EVA_VIT_G", "DYNREFER_CHECKPOINT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert errors(name, option) == []
    assert any(warning in text for text in warnings(name, option))


@pytest.mark.parametrize(
    "option", ["run.load_ckpt_path=/a.pth", "run.resume_ckpt_path=/a.pth", "model.finetuned=/a.pth"]
)
def test_a_run_that_names_its_checkpoint_needs_no_other(option, monkeypatch):
    monkeypatch.delenv("DYNREFER_CHECKPOINT", raising=False)

    found = warnings(OVAD, option)

    assert any(f"{option.split('=')[0]}: no file '/a.pth'" in text for text in found)
    assert not any("it has no direct address" in text for text in found)


def test_a_weight_file_to_download_is_not_missing():
    url = "https://example.org/vg1.2_5e.pth"

    assert not any("model.finetuned" in text for text in warnings(OVAD, f"model.finetuned={url}"))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"run: [1", "not a readable yaml file"),
        (b"\xff\xfe\x00", "not a readable yaml file"),
        (b"- run\n- model", "got a list"),
        (b"", "got an empty file"),
        (b"run: 3\nmodel: {arch: dynrefer}\ndatasets: {}", "run"),
        (b"model: {arch: dynrefer, vision: {depth: '???'}}", "model.vision.depth"),
    ],
)
def test_a_broken_file_is_one_finding(tmp_path, content, complaint):
    path = tmp_path / "run.yaml"
    path.write_bytes(content)

    (found,) = errors(str(path))

    assert complaint in found
    assert "\n" not in found


def test_a_missing_file_leads_to_the_shipped_ones():
    assert errors("projects/dynrefer/syntetic.yaml")[0].endswith(f"did you mean {SYNTHETIC}?")
    (error,) = errors("nofile.yaml")
    folder = Path(error.rpartition("the shipped files are in ")[2])
    assert (folder / "synthetic.yaml").is_file()


def test_valid_files_are_ok(capsys):
    assert main(["validate", SYNTHETIC, MODEL]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{SYNTHETIC}: ok"


def test_problems_are_listed_with_exit_code_2(capsys):
    code = main(["validate", SYNTHETIC, TRAIN, "--options", "run.amp_dtype=fp8"])
    lines = capsys.readouterr().out.splitlines()

    assert code == 2
    found = [line for line in lines if not line.startswith("  warning: ")]
    assert found[::2] == [f"{SYNTHETIC}: 1 wrong", f"{TRAIN}: 1 wrong"]
    assert all(line.startswith("  error: run.amp_dtype: expected") for line in found[1::2])


def test_nothing_is_built_or_read(monkeypatch, tmp_path):
    monkeypatch.setenv("DYNREFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.nn.Module, "__init__", None)  # no part of a model can be made

    assert errors(SYNTHETIC) == []
    assert not Path(tmp_path / "cache").exists()


def test_lavis_is_not_imported():
    done = run_python(
        "import sys; from lavis_dynrefer.cli import main\n"
        f"assert main(['validate', {SYNTHETIC!r}]) == 0\n"
        "assert not {'lavis', 'transformers', 'torchvision'} & sys.modules.keys()"
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_a_users_yaml_is_checked_like_a_shipped_one(tmp_path):
    content = OmegaConf.load(MODEL)
    content.model.region.num_views = 4
    OmegaConf.save(content, tmp_path / "mine.yaml")

    found = errors(str(tmp_path / "mine.yaml"))

    assert len(found) == 2  # both processors still give two views
    assert all("model.region.num_views is 4" in text for text in found)
