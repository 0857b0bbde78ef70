"""What is kept of the published files, and in which number format."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lavis_dynrefer.models.weights.conversion import convert
from lavis_dynrefer.models.weights.tensor_reading import CheckpointError

half, bf16, single = torch.float16, torch.bfloat16, torch.float32
FILES = {  # part -> name -> (type in the file, type that is kept; None: dropped)
    "eva_vit": {
        "cls_token": (half, half),
        "patch_embed.proj.weight": (half, half),
        "blocks.38.mlp.fc1.weight": (single, half),
        "blocks.38.norm1.bias": (single, single),
        "blocks.39.mlp.fc1.weight": (half, None),
        "norm.weight": (half, None),
        "head.weight": (half, None),
    },
    "blip2": {
        "query_tokens": (single, single),
        "ln_vision.weight": (half, single),
        "t5_proj.weight": (single, single),
        "Qformer.bert.embeddings.LayerNorm.weight": (single, single),
        "Qformer.bert.embeddings.word_embeddings.weight": (single, None),
        "Qformer.bert.embeddings.position_ids": (torch.int64, None),
        "Qformer.bert.encoder.layer.10.intermediate_query.dense.weight": (single, single),
        "Qformer.bert.encoder.layer.10.attention.output.dense.weight": (single, single),
        "Qformer.bert.encoder.layer.10.output.dense.weight": (single, None),
        "Qformer.cls.predictions.bias": (single, None),
        "visual_encoder.cls_token": (half, None),
    },
    "eva_clip_text": {
        "text.token_embedding.weight": (half, single),
        "text.logit_scale": (half, None),
        "visual.cls_token": (half, None),
    },
}


@pytest.mark.parametrize("part", FILES)
def test_what_is_kept_of_a_file(part, tmp_path):
    tensors = {name: torch.full((3, 2), 0.1).to(kind) for name, (kind, _) in FILES[part].items()}
    torch.save({"model": tensors}, tmp_path / "a.pth")

    convert(part, tmp_path / "a.pth", tmp_path / "a.safetensors")

    kept = load_file(tmp_path / "a.safetensors")
    expected = {name: kind for name, (_, kind) in FILES[part].items() if kind is not None}
    assert {name: tensor.dtype for name, tensor in kept.items()} == expected
    for name, kind in expected.items():
        assert torch.equal(kept[name], tensors[name].to(kind))
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata()["part"] == part
        assert file.metadata()["converted_from"] == "a.pth"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth", "a.safetensors"]


def test_shards_of_t5_become_one_file(tmp_path):
    shards = [
        {"shared.weight": torch.rand(5, 2), "encoder.embed_tokens.weight": torch.rand(5, 2)},
        {
            "lm_head.weight": torch.rand(5, 2),
            "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": torch.rand(1),
            "decoder.block.0.layer.1.EncDecAttention.q.weight": torch.rand(2, 2),
        },
    ]
    folder = tmp_path / "shards"
    folder.mkdir()
    places = {}
    for number, shard in enumerate(shards):
        places.update(dict.fromkeys(shard, f"model-{number}.safetensors"))
        save_file(shard, folder / f"model-{number}.safetensors")
    index = json.dumps({"weight_map": places})
    (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    (folder / "config.json").write_text("{}", encoding="utf-8")

    convert("flan_t5", folder, tmp_path / "whole")

    assert sorted(path.name for path in (tmp_path / "whole").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    kept = load_file(tmp_path / "whole" / "model.safetensors")
    assert sorted(kept) == [
        "decoder.block.0.layer.1.EncDecAttention.q.weight",
        "lm_head.weight",
        "shared.weight",
    ]
    assert torch.equal(kept["shared.weight"], shards[0]["shared.weight"].bfloat16())


def test_another_kind_of_file_is_refused(tmp_path):
    torch.save({"visual.a": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"a\.pth: expected the published file of eva_vit"):
        convert("eva_vit", tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert not (tmp_path / "a.safetensors").exists()


def test_a_source_with_a_flipped_bit_is_refused(tmp_path):
    torch.save({"cls_token": torch.full((9,), 7.0)}, tmp_path / "a.pth")
    data = (tmp_path / "a.pth").read_bytes()
    place = data.index(torch.full((9,), 7.0).numpy().tobytes())
    (tmp_path / "a.pth").write_bytes(data[:place] + b"\1" + data[place + 1 :])
    with pytest.raises(CheckpointError, match=r"a\.pth is damaged"):
        convert("eva_vit", tmp_path / "a.pth", tmp_path / "a.safetensors")
