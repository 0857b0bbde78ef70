"""`dynrefer download` and `dynrefer weights`, with a server on this machine."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save
from weight_site import serve_weights

from lavis_dynrefer.cli import main
from lavis_dynrefer.models.weights.fetching import transfer
from lavis_dynrefer.models.weights.fetching.part_registry import registered
from lavis_dynrefer.models.weights.places import checkpoint_of, model_section, resolve_files

HUB = "/nobody/tiny-t5/resolve/main"
T5 = {
    "shared.weight": torch.ones(4, 2),
    "decoder.embed_tokens.weight": torch.ones(4, 2),  # the same again
    "lm_head.weight": torch.ones(4, 2),
}
SHARDS = {"model-1.safetensors": ["shared.weight"], "model-2.safetensors": list(T5)[1:]}


@pytest.fixture
def site(monkeypatch, tmp_path):
    """A server with the tags, and a mirror of the hub with a T5 in two shards."""
    monkeypatch.setattr(transfer, "PAUSES", (0.0, 0.0))
    monkeypatch.setenv("DYNREFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in (*transfer.OFFLINE_VARIABLES, "DYNREFER_TAGS", "DYNREFER_CHECKPOINT"):
        monkeypatch.delenv(name, raising=False)
    with serve_weights() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        server.put("/models/tags.txt", b"dog\ncat\n")
        server.put(f"{HUB}/config.json", b'{"d_model": 2}')
        places = {name: shard for shard, names in SHARDS.items() for name in names}
        index = json.dumps({"weight_map": places}).encode()
        server.put(f"{HUB}/model.safetensors.index.json", index)
        for shard, names in SHARDS.items():
            content = save({name: T5[name] for name in names})
            server.put(f"{HUB}/{shard}", content)
            server.large[f"{HUB}/{shard}"] = hashlib.sha256(content).hexdigest()
        yield server


@pytest.fixture
def model(site, tmp_path):
    """A model yaml: a T5 on the hub, tags at an address that does not exist, a checkpoint."""
    files = [*("config.json", "model.safetensors.index.json"), *SHARDS]
    section = {
        "arch": "dynrefer",
        "model_type": "mine",
        "load_finetuned": True,
        "finetuned": "${oc.env:DYNREFER_CHECKPOINT,auto}",
        "tagging": {"vocabulary": "${oc.env:DYNREFER_TAGS,auto}"},
        "captioning": {"llm_options": {"pretrained": "${oc.env:FLAN_T5_XL,auto}"}},
        "published": {
            "flan_t5": {
                "variable": "FLAN_T5_XL",
                "kept": "flan-t5",
                "at": f"https://huggingface.co{HUB}",
                "files": [{"name": name, "about": 100} for name in files],
            },
            "tags": {
                "variable": "DYNREFER_TAGS",
                "kept": "tags.txt",
                "at": "http://weights.invalid/models",
                "files": [{"name": "tags.txt", "size": 8}],
            },
            "dynrefer": {"variable": "DYNREFER_CHECKPOINT", "page": "https://example.org/where"},
        },
    }
    OmegaConf.save(OmegaConf.create({"model": section}), tmp_path / "mine.yaml")
    return str(tmp_path / "mine.yaml")


def test_a_model_of_the_hub_and_another_server(site, model, tmp_path, capsys):
    assert main(["download", model, "--mirror", site.address]) == 0

    folder = tmp_path / "cache" / "weights"
    told = capsys.readouterr().out
    assert f"in all 0.00 MB to {folder}, which takes" in told
    assert "still missing: dynrefer; it has no direct address, https://example.org/where" in told
    assert f"dynrefer weights set dynrefer FILE --model {model}" in told
    kept = load_file(folder / "flan-t5" / "model.safetensors")
    assert {name: value.dtype for name, value in kept.items()} == {
        "shared.weight": torch.bfloat16,
        "lm_head.weight": torch.bfloat16,
    }
    assert (folder / "flan-t5" / "config.json").read_bytes() == b'{"d_model": 2}'
    assert not (folder / "flan-t5.original").exists()
    asked = len(site.asked)
    assert main(["download", model, "--offline"]) == 0  # all is here
    assert len(site.asked) == asked == 5


def test_another_folder_is_remembered(site, model, tmp_path):
    folder = tmp_path / "weights"

    assert main(["download", model, "--to", str(folder), "--part", "flan_t5"]) == 0

    assert registered("mine") == {"flan_t5": folder / "flan-t5"}
    assert not any("tags" in path for path, _ in site.asked)
    assert main(["download", model, "--part", "flan_t5"]) == 0  # not again into the cache
    assert len(site.asked) == 4


def test_a_file_of_the_user_that_is_gone_is_forgotten_by_a_download(site, model, tmp_path, capsys):
    tags = tmp_path / "mine.txt"
    tags.write_bytes(b"dog\n")
    assert main(["weights", "set", "tags", str(tags), "--model", model]) == 0
    command = ["download", model, "--part", "tags", "--mirror", site.address]
    assert main([*command, "--check"]) == 0
    assert f"tags: {tags} is your own file" in capsys.readouterr().out
    tags.unlink()

    assert main(command) == 0

    assert f"tags: no longer {tags}, which does not exist any more" in capsys.readouterr().out
    assert registered("mine") == {}


def test_the_originals_stay_on_request(site, model, tmp_path):
    assert main(["download", model, "--part", "flan_t5", "--keep-original"]) == 0

    kept = tmp_path / "cache" / "weights" / "flan-t5.original"
    assert set(SHARDS) < {path.name for path in kept.iterdir()}
    digest, name = (kept / "config.json.sha256").read_text(encoding="utf-8").split()
    assert (len(digest), name) == (64, "config.json")


def test_a_damaged_file_is_found(site, model, tmp_path, capsys):
    assert main(["download", model, "--mirror", site.address]) == 0
    assert main(["download", model, "--check"]) == 0
    path = tmp_path / "cache" / "weights" / "flan-t5" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    capsys.readouterr()

    assert main(["download", model, "--check"]) == 2
    assert f"flan_t5: damaged: {path}; remove it" in capsys.readouterr().out


def test_another_file_of_a_mirror_is_taken_only_on_request(site, model, capsys):
    site.put("/models/tags.txt", b"bird\n")
    command = ["download", model, "--part", "tags", "--mirror", site.address]

    assert main(command) == 2
    assert "expected 8 bytes, the server has 5" in capsys.readouterr().err
    assert main([*command, "--accept-changed"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--part", "tag"], "--part: unknown 'tag'; did you mean tags?"),
        (["--part", "dynrefer"], "dynrefer has no address; https://example.org/where links to it"),
        (["--offline"], "flan_t5, tags: not downloaded, because DYNREFER_OFFLINE is set"),
    ],
)
def test_what_cannot_be_downloaded_is_said(site, model, capsys, monkeypatch, words, message):
    monkeypatch.setenv("DYNREFER_OFFLINE", "0")  # restored after the command has set it

    assert main(["download", model, *words]) == 2
    assert message in capsys.readouterr().err
    assert site.asked == []


def test_a_model_of_the_package_needs_no_download(capsys):
    assert main(["download", "tiny"]) == 0
    assert "there is nothing to download" in capsys.readouterr().out
    assert main(["download", "flant5xxl"]) == 2
    assert "model: unknown 'flant5xxl'; did you mean flant5xl?" in capsys.readouterr().err


def test_files_are_told_once_and_listed(site, model, tmp_path, capsys, monkeypatch):
    checkpoint, tags = tmp_path / "vg1.2_5e.pth", tmp_path / "tags.txt"
    torch.save({"model": {"cem_memory": torch.zeros(50_000)}}, checkpoint)
    tags.write_bytes(b"dog\n")
    of_model = ["--model", model]

    assert main(["weights", "set", "dynrefer", str(checkpoint), *of_model]) == 0
    assert main(["download", model, "--part", "flan_t5"]) == 0
    monkeypatch.setenv("DYNREFER_TAGS", str(tags))
    assert main(["weights", "list", *of_model]) == 0

    listed = capsys.readouterr().out.splitlines()[-3:]
    kept = tmp_path / "cache" / "weights" / "flan-t5"
    assert listed[0].startswith(f"flan_t5: {kept}, 0.00 MB, downloaded")
    assert listed[1] == f"tags: {tags}, 0.00 MB, from DYNREFER_TAGS or the yaml"
    assert listed[2] == f"dynrefer: {checkpoint}, 0.20 MB, from `weights set`"
    assert resolve_files(model_section(model))["finetuned"] == str(checkpoint)
    assert checkpoint_of(model_section(model)) == str(checkpoint)  # noted with the answers
    assert main(["weights", "unset", "dynrefer", *of_model]) == 0
    main(["weights", "list", *of_model])
    assert "dynrefer: missing; it has no direct address" in capsys.readouterr().out
    assert checkpoint_of(model_section(model)) is None
    monkeypatch.setenv("DYNREFER_CHECKPOINT", "other.pth")
    assert checkpoint_of(model_section(model)) == "other.pth"
    assert checkpoint_of(model_section("tiny")) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["set", "dynrefer", "nowhere.pth"], "dynrefer: there is no nowhere.pth"),
        (["set", "dynrefer", "."], "dynrefer: expected a file, got ."),
        (["set", "flan_t5", __file__], "flan_t5: expected a folder of Hugging Face files, got"),
        (["set", "dynrefr", __file__], "part: unknown 'dynrefr'; did you mean dynrefer?"),
        (["set", "dynrefer", "vit.pth"], "is an EVA ViT file, expected a DynRefer checkpoint"),
        (["unset", "tags"], "tags: nothing was told for mine"),
    ],
)
def test_what_cannot_be_told_is_said(model, capsys, monkeypatch, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    torch.save({"blocks.0.attn.qkv.weight": torch.zeros(2)}, "vit.pth")

    assert main(["weights", *words, "--model", model]) == 2
    assert message in capsys.readouterr().err
