"""What is said of files that cannot be used, before anything is built."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from lavis_dynrefer.errors import InputError, MissingFileError
from lavis_dynrefer.models.weights.weight_checks import check_files, what_it_is


@pytest.fixture
def section(published_section, tmp_path):
    """The section with files that may be written to."""
    pretrained = published_section["pretrained"]
    for kind, path in pretrained.items():
        pretrained[kind] = shutil.copy(path, tmp_path)
    published_section["finetuned"] = shutil.copy(published_section["finetuned"], tmp_path)
    options = published_section["captioning"]["llm_options"]
    options["pretrained"] = shutil.copytree(options["pretrained"], tmp_path / "t5")
    options["pretrained"] = str(options["pretrained"])
    return published_section


def cut(path):
    path.write_bytes(path.read_bytes()[:-400])


def pointer(path):
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n")


def page(path):
    path.write_bytes(b"\n<!DOCTYPE html><html><head>")


def change(path, **tensors):
    content = torch.load(path)
    content.update(tensors)
    torch.save({name: value for name, value in content.items() if value is not None}, path)


def test_whole_files_are_right(section):
    check_files(section)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut, r"eva_vit_g\.pth: damaged: it ends too early"),
        (pointer, r"eva_vit_g\.pth: a pointer of git-lfs .*`git lfs pull`"),
        (page, r"eva_vit_g\.pth: a web page in place of the file"),
        (lambda path: path.write_bytes(b""), r"eva_vit_g\.pth: the file is empty"),
        (lambda path: torch.save({"a": {"b": 1}}, path), r"expected a mapping of names to tensors"),
        (
            lambda path: shutil.copy(path.with_name("blip2_pretrained_flant5xl.pth"), path),
            r"eva_vit_g\.pth is a BLIP-2 file, expected an EVA ViT file",
        ),
        (
            lambda path: change(path, pos_embed=torch.zeros(1, 257, 1408)),
            r"of another size: its pos_embed is \(1, 257, 1408\), expected \(1, 17, 32\)",
        ),
        (
            lambda path: change(path, **{"blocks.0.norm1.weight": None}),
            r"has no blocks\.0\.norm1\.weight; is it of this size",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_told_with_its_key(section, spoil, message):
    spoil(Path(section["pretrained"]["eva_vit"]))
    with pytest.raises(InputError, match=f"^model.pretrained.eva_vit: .*{message}"):
        check_files(section)


def t5_without_a_shard(folder):
    next(folder.glob("model-*1-of*")).unlink()


def wide_t5(folder):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "d_model": 1024}), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (t5_without_a_shard, r"model-00001-of-00002\.safetensors: it does not exist"),
        (
            lambda t5: cut(t5 / "model-00002-of-00002.safetensors"),
            r"damaged: expected [\d,]+ bytes",
        ),
        (lambda t5: pointer(t5 / "model-00001-of-00002.safetensors"), "a pointer of git-lfs"),
        (lambda t5: (t5 / "config.json").unlink(), r"expected the config\.json of a model"),
        (lambda t5: shutil.rmtree(t5), r"no folder '.*t5'"),
        (
            wide_t5,
            r"dynrefer\.pth was trained with a language model of width 32; .*t5 is of width 1024",
        ),
    ],
)
def test_a_folder_of_t5_that_cannot_be_used_is_told(section, spoil, message):
    spoil(Path(section["captioning"]["llm_options"]["pretrained"]))
    with pytest.raises((InputError, MissingFileError), match=message):
        check_files(section)


def test_all_files_are_told_at_once(section):
    cut(Path(section["pretrained"]["eva_vit"]))
    Path(section["pretrained"]["blip2"]).unlink()
    section["finetuned"] = section["pretrained"]["eva_clip_text"]
    with pytest.raises(InputError) as error:
        check_files(section)
    first, second, third = str(error.value).splitlines()
    assert first.startswith("model.pretrained.eva_vit: ")
    assert second.startswith("model.pretrained.blip2: no file ")
    assert third.endswith("is an EVA-CLIP file, expected a DynRefer checkpoint")


@pytest.mark.parametrize(
    ("name", "message"),
    [("finetuned", "expected text, one name per line"), ("nowhere.txt", "no file 'nowhere")],
)
def test_a_file_that_is_no_list_of_tags_is_told(section, name, message):
    section["tagging"]["vocabulary"] = section.get(name, name)
    with pytest.raises(
        (InputError, MissingFileError), match=f"model.tagging.vocabulary: .*{message}"
    ):
        check_files(section)


@pytest.mark.parametrize("levels", [("module",), ("state_dict",), ("model", "module")])
def test_tensors_may_lie_below_the_usual_names(section, levels):
    path = Path(section["pretrained"]["eva_vit"])
    content = torch.load(path)
    for level in levels:
        content = {level: content, "epoch": 3}
    torch.save(content, path)
    check_files(section)


def test_tensors_in_two_places_are_refused(section):
    path = Path(section["pretrained"]["eva_vit"])
    torch.save({"model": torch.load(path), "state_dict": torch.load(path)}, path)
    with pytest.raises(InputError, match=r"under one of \['model', .*found \['model', 'state_dict"):
        check_files(section)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"pretrained": {}}, "backbone.norm, backbone.vit, qformer.query_tokens, text_encoder"),
        (
            {"load_finetuned": False, "pretrained": {}},
            "backbone.norm, backbone.vit, qformer.query_tokens, text_encoder",
        ),
        ({"load_finetuned": False}, None),  # what is trained may begin at random
        ({"pretrained": {}, "random_parts": True}, None),
    ],
)
def test_parts_without_a_file_are_told(section, changes, parts):
    section.update(changes)
    if parts is None:
        check_files(section)
    else:
        with pytest.raises(MissingFileError, match=f"^model: no file has the weights of {parts};"):
            check_files(section)


def test_a_file_of_the_first_stage_is_told(section, caplog):
    path = Path(section["pretrained"]["blip2"])
    tensors = torch.load(path)["model"]
    kept = {name: value for name, value in tensors.items() if not name.startswith("t5_proj")}
    torch.save({"model": kept}, path)
    check_files({**section, "load_finetuned": False})
    assert "blip2_pretrained_flant5xl.pth is of the first stage of BLIP-2" in caplog.text


def test_kinds_of_other_files():
    assert what_it_is(["encoder.block.0.layer.0.SelfAttention.q.weight"]) == "a T5 model"
    assert what_it_is(["b", "a"]) == "a file with other tensors (a, b)"
