"""Mistakes planted in yaml files, and what `dynrefer validate` says about them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import lavis_dynrefer  # noqa: F401  registers with LAVIS
from lavis_dynrefer.cli import main
from lavis_dynrefer.cli.validate import validate
from lavis_dynrefer.paths import config_path

QUICKSTART = "projects/dynrefer/quickstart.yaml"
OVAD = "projects/dynrefer/evaluate/ovad.yaml"
TRAIN = "projects/dynrefer/train/vg_v1.2.yaml"
MODEL = config_path("models/dynrefer_tiny.yaml")
DATASET = config_path("datasets/vg_region.yaml")


def errors(name, *options):
    return [finding.text for finding in validate(name, options) if finding.fatal]


def warnings(name, *options):
    return [finding.text for finding in validate(name, options) if not finding.fatal]


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        # names and sections
        ("rum.seed=3", "unknown section 'rum'; did you mean 'run'?"),
        ("model.arch=dynref", "model.arch does not know 'dynref'"),
        ("model.model_type=huge", "model.model_type does not know 'huge'"),
        ("datasets.synthetic.type=x", "datasets does not know 'synthetic'"),
        ("run.task=dynrefr", "run.task does not know 'dynrefr'"),
        ("datasets=null", "section 'datasets' is missing"),
        ("run=3", "section 'run' is missing or not a mapping"),
        # the run
        ("run.max_epochs=3", "run: unknown key 'max_epochs'; did you mean 'max_epoch'?"),
        ("run.max_epoch=three", "run.max_epoch: expected int, got 'three'"),
        ("run.protocol_mode=lenient", "run.protocol_mode: expected one of"),
        ("run.generation.beams=2", "run.generation: unknown ['beams']"),
        ("run.generation.num_beams=many", "run.generation.num_beams: expected int"),
        ("run.generation.num_beams=0", "run.generation.num_beams: expected at least 1, got 0"),
        ("run.test_splits=[exam]", "no dataset has a split 'exam'"),
        ("run.test_splits=[train]", "split 'train' is trained on"),
        ("run.train_splits=[val]", "run.train_splits: expected [train], got ['val']"),
        ("run.seed=${oc.env:NO_SUCH_VARIABLE}", "Environment variable 'NO_SUCH_VARIABLE'"),
        # the model
        ("model.vision.depht=3", "model.vision: unknown ['depht']"),
        ("model.vision.depth=deep", "model.vision.depth: expected int, got 'deep'"),
        ("model.vision.depth=0", "model.vision.depth: expected at least 1, got 0"),
        ("model.vision.patch_size=7", "image_size: expected a multiple of patch_size 7, got 64"),
        ("model.tagging.threshold=70", "model.tagging.threshold: expected a number in [0, 1]"),
        ("model.captioning.llm=gpt9", "model.captioning.llm: no adapter 'gpt9'"),
        ("model.captioning.llm_options.size=3", "model.captioning.llm_options: unknown ['size']"),
        ("model.trainable=[qfromer]", "no part 'qfromer'; did you mean 'qformer'?"),
        ("model.pretrained.eva=x", "model.pretrained.eva: unknown; did you mean"),
        ("model.pretrained=x.pth", "model.pretrained: expected some of"),
        ("model.load_finetuned=yes please", "model.load_finetuned: expected true or false"),
        # the data
        ("datasets.synthetic_region.vis_procesor=x", "unknown 'vis_procesor'; did you mean"),
        ("datasets.synthetic_region.type=v2", "datasets.synthetic_region.type does not know 'v2'"),
        ("datasets.synthetic_region.build_info.sceens=3", "build_info: unknown ['sceens']"),
        ("datasets.synthetic_region.build_info.scenes=few", "build_info.scenes: expected int"),
        ("datasets.synthetic_region.build_info.splits=[tset]", "no split 'tset'; did you mean"),
        ("datasets.synthetic_region.build_info.split_names.tset=x", "no split 'tset'"),
        ("datasets.synthetic_region.build_info.on_error=ignore", "on_error does not know 'ignore'"),
        ("datasets.synthetic_region.build_info.evaluator=bleu", "evaluator does not know 'bleu'"),
        # processors
        (
            "datasets.synthetic_region.vis_processor.eval.name=dynrefer_evil",
            "does not know 'dynrefer_evil'; did you mean 'dynrefer_eval'?",
        ),
        ("datasets.synthetic_region.vis_processor=x", "vis_processor: expected a mapping"),
        ("datasets.synthetic_region.vis_processor.evla.name=dynrefer_eval", "evla: unknown"),
        (
            "datasets.synthetic_region.vis_processor.eval.policy=best",
            "eval: view policy: expected one of",
        ),
        ("datasets.synthetic_region.vis_processor.eval.hsah=phash", "'hsah'"),
        (
            "datasets.synthetic_region.vis_processor.eval.hash=md5",
            "hash: expected one of ['official', 'phash'], got 'md5'",
        ),
        (
            "datasets.synthetic_region.vis_processor.eval.num_views=3",
            "eval: gives 3 views a region, model.region.num_views is 2",
        ),
        (
            "datasets.synthetic_region.vis_processor.eval.num_views=two",
            "eval: num_views: expected a whole number",
        ),
        (
            "datasets.synthetic_region.vis_processor.train.image_size=224",
            "train.image_size: is 224, model.vision.image_size is 64",
        ),
        # expected numbers
        ("expected=47.6", "expected: expected a mapping or null"),
        ("expected.test.map=[1,1]", "expected.source: say where"),
    ],
)
def test_a_mistake_in_a_run_is_named(option, complaint):
    found = errors(QUICKSTART, option)

    assert any(complaint in text for text in found), found


@pytest.mark.parametrize(
    ("policy", "views"),
    [
        (["policy=fixed", "scales=[0,0.1,0.4]"], "gives 3 views"),
        (
            ["policy=task", "scales.caption=[0,0.4,0.5]", "scales.tags=[0,0.1,0.2]"],
            # two tasks are not named, so they would look at all five
            "gives 3 or 5 views",
        ),
    ],
)
def test_views_are_counted_for_every_policy(policy, views):
    place = "datasets.synthetic_region.vis_processor.eval"

    (found,) = errors(QUICKSTART, *(f"{place}.{option}" for option in policy))

    assert views in found


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("expected.ovad_vla.map=[1,1]", "expected.ovad_vla: not evaluated; did you mean 'ovad_val"),
        ("expected.ovad_val.meteor=[1,1]", "expected.ovad_val: attributes reports no 'meteor'"),
        ("expected.ovad_val.map=29.2", "expected.ovad_val.map: expected [value, tolerance]"),
    ],
)
def test_an_expected_number_needs_a_metric_of_its_evaluator(option, complaint):
    (found,) = errors(OVAD, option)

    assert complaint in found


def test_a_group_of_attributes_may_be_of_the_users_vocabulary():
    option = "expected.ovad_val.map_colour=[1,1]"

    assert errors(OVAD, option) == []
    assert any("is it a parent type" in text for text in warnings(OVAD, option))


def test_all_mistakes_are_told_at_once():
    found = errors(
        QUICKSTART,
        "model.vision.depht=3",
        "datasets.synthetic_region.build_info.sceens=3",
        "datasets.synthetic_region.vis_processor.eval.policy=best",
    )

    assert len(found) == 3


@pytest.mark.parametrize(
    ("name", "option", "warning"),
    [
        (OVAD, "run.seed=1", "model.tagging.vocabulary: not set"),
        (OVAD, "run.seed=1", "model.finetuned: not set"),
        (OVAD, "run.seed=1", "model.pretrained.eva_vit: not set"),
        (OVAD, "run.seed=1", "build_info.root: not set; give it as an option or export OVAD_ROOT"),
        (OVAD, "model.finetuned=/nowhere.pth", "model.finetuned: no file '/nowhere.pth'"),
        (OVAD, "model.pretrained.blip2=/nowhere.pth", "model.pretrained.blip2: no file"),
        (OVAD, "datasets.ovad.build_info.root=/nowhere", "build_info.root: no folder '/nowhere'"),
        (OVAD, "run.load_ckpt_path=/nowhere.pth", "run.load_ckpt_path: no file '/nowhere.pth'"),
        (OVAD, "run.load_ckpt_path=[/nowhere.pth]", "run.load_ckpt_path: no file '/nowhere.pth'"),
        (QUICKSTART, "model.tagging.vocabulary=/nowhere.txt", "model.tagging.vocabulary: no file"),
        (QUICKSTART, "model.text.tokenizer=/nowhere.json", "model.text.tokenizer: no file"),
        (QUICKSTART, "run.device=cuda", "run.device is cuda, but torch finds no GPU here"),
    ],
)
def test_what_is_not_on_this_machine_is_a_warning(name, option, warning, monkeypatch):
    for variable in ("OVAD_ROOT", "DYNREFER_TAGS", "EVA_VIT_G"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert errors(name, option) == []
    assert any(warning in text for text in warnings(name, option))


def test_a_weight_file_to_download_is_no_missing_file():
    url = "https://example.org/vg1.2_5e.pth"

    assert not any("model.finetuned" in text for text in warnings(OVAD, f"model.finetuned={url}"))


def test_raw_files_are_looked_for_below_the_root(tmp_path):
    (tmp_path / "ovad2000.json").touch()

    found = warnings(OVAD, f"datasets.ovad.build_info.root={tmp_path}")

    assert any(text.startswith("datasets.ovad.build_info.images.storage: no") for text in found)
    assert not any("ovad2000.json" in text for text in found)


@pytest.mark.parametrize(
    ("name", "option", "complaint"),
    [
        (MODEL, "model.arch=dynref", "model.arch does not know 'dynref'"),
        (MODEL, "model.vision.depht=3", "model.vision: unknown ['depht']"),
        (MODEL, "model=3", "model: expected a mapping, got 3"),
        (MODEL, "preprocess.vis_procesor.eval=x", "preprocess: unknown 'vis_procesor'"),
        (MODEL, "preprocess.vis_processor.eval.policy=best", "preprocess.vis_processor.eval"),
        (MODEL, "preprocess.vis_processor.train.num_views=3", "gives 3 views a region"),
        (DATASET, "datasets.vg_region.build_info.rot=x", "build_info: unknown ['rot']"),
        (DATASET, "datasets.vg_region.type=v9", "datasets.vg_region.type does not know 'v9'"),
        (DATASET, "datasets.vg_regoin.type=x", "datasets does not know 'vg_regoin'; did you mean"),
        (DATASET, "datasets.vg_region=3", "datasets.vg_region: expected a mapping, got 3"),
        (DATASET, "datasets=null", "datasets: expected some of"),
        (DATASET, "datasets.vg_region.vis_processor.eval.policy=best", "view policy: expected one"),
    ],
)
def test_a_mistake_in_the_yaml_of_a_model_or_dataset_is_named(name, option, complaint):
    found = errors(name, option)

    assert any(complaint in text for text in found), found


def test_a_test_split_of_reg_is_the_only_one(tmp_path):
    options = ["datasets.vg_region.type=reg", "datasets.vg_region.build_info.splits=[val]"]

    assert errors(DATASET, *options) == [
        "datasets.vg_region.build_info: no split 'val'; known are test"
    ]


def test_a_run_of_lavis_is_checked_as_far_as_it_is_ours(tmp_path):
    path = tmp_path / "caption.yaml"
    path.write_text(
        "model: {arch: blip_caption, model_type: base_coco}\n"
        "datasets: {coco_caption: {vis_processor: {eval: {name: blip_image_eval}}}}\n"
        "run: {task: captioning, lr_sched: linear_warmup_cosine_lr, init_lr: 1e-5}\n"
        "expected: anything\n"
    )

    assert errors(str(path), "run.device=cpu") == []


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"run: [1", "not a readable yaml file"),
        (b"\xff\xfe\x00", "not a readable yaml file"),
        (b"- run\n- model", "expected the sections ['datasets', 'model', 'run'], got a list"),
        (b"", "expected the sections ['datasets', 'model', 'run'], got an empty file"),
        (b"run: 3\nmodel: {arch: dynrefer}\ndatasets: {}", "section 'run' is missing"),
        (b"model: {arch: dynrefer, vision: {depth: '???'}}", "given for model.vision.depth"),
        (
            b"model: {arch: dynrefer, tagging: []}\ndatasets: {ovad: {}}\n"
            b"run: {task: dynrefer, evaluate: true}",
            "a list stands where the default yaml",
        ),
    ],
)
def test_a_broken_file_is_one_finding(tmp_path, content, complaint):
    path = tmp_path / "run.yaml"
    path.write_bytes(content)

    (found,) = errors(str(path))

    assert complaint in found
    assert "\n" not in found


def test_a_missing_file_suggests_the_shipped_ones():
    assert "did you mean" in errors("projects/dynrefer/quickstrat.yaml")[0]


def test_command_is_silent_about_a_good_file_and_returns_zero(capsys):
    assert main(["validate", QUICKSTART, MODEL]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{QUICKSTART}: ok"


def test_command_lists_problems_and_returns_two(capsys):
    code = main(["validate", QUICKSTART, TRAIN, "--options", "run.amp_dtype=fp8"])
    lines = capsys.readouterr().out.splitlines()

    assert code == 2
    assert [line for line in lines if not line.startswith("  warning: ")] == [
        f"{QUICKSTART}: 1 wrong",
        "  error: run.amp_dtype: expected one of ['fp16', 'bf16'], got 'fp8'",
        f"{TRAIN}: 1 wrong",
        "  error: run.amp_dtype: expected one of ['fp16', 'bf16'], got 'fp8'",
    ]


def test_nothing_is_built_or_read(monkeypatch, tmp_path):
    monkeypatch.setenv("DYNREFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.nn.Module, "__init__", None)  # no part of a model can be made

    assert errors(QUICKSTART) == []
    assert not Path(tmp_path / "cache").exists()


def test_own_yaml_is_checked_like_a_shipped_one(tmp_path):
    content = OmegaConf.load(MODEL)
    content.model.region.num_views = 4
    OmegaConf.save(content, tmp_path / "mine.yaml")

    found = errors(str(tmp_path / "mine.yaml"))

    assert len(found) == 2  # both processors still give two views
    assert all("model.region.num_views is 4" in text for text in found)
