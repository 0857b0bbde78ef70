"""Weights from the published files of the frozen parts, at toy size."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.models.weights.checkpoint import to_official
from lavis_dynrefer.models.weights.pretrained import load_sources
from lavis_dynrefer.models.weights.tensor_reading import CheckpointError


def filled_with(state, value):
    return {name: torch.full_like(tensor, value) for name, tensor in state.items()}


@pytest.fixture
def published(smallest_model, tmp_path):
    """The three published files for the smallest model, including tensors that it does not use."""
    state = smallest_model.state_dict()

    def part(prefix, new=""):
        return {new + k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}

    vit = filled_with(part("backbone.vit."), 0.25)
    vit["blocks.1.norm1.weight"] = torch.zeros(32)  # a block more than the model uses
    vit["head.weight"] = torch.zeros(3, 32)
    blip2 = filled_with(
        {
            "query_tokens": state["qformer.query_tokens"],
            **part("qformer.bert.", "Qformer.bert."),
            **part("backbone.norm.", "ln_vision."),
        },
        0.5,
    )
    blip2["Qformer.bert.encoder.layer.0.output.dense.weight"] = torch.zeros(2, 2)  # text branch
    clip = filled_with(part("text_encoder.", "text."), 0.75)
    clip["text.logit_scale"] = torch.zeros(())
    clip["visual.conv.weight"] = torch.zeros(3)
    files = {"eva_vit": vit, "blip2": blip2, "eva_clip_text": clip}
    paths = {kind: str(tmp_path / f"{kind}.pth") for kind in files}
    for kind, content in files.items():
        torch.save({"model": content} if kind == "blip2" else content, paths[kind])
    return paths


def test_a_later_file_wins(smallest_model, tmp_path):
    state = smallest_model.state_dict()
    eye = {
        k: torch.full_like(v, 0.25) for k, v in state.items() if k.startswith("qformer.bert.enc")
    }
    both = {k: torch.full_like(v, 0.5) for k, v in list(eye.items())[:1]}
    both["contrast.bias"] = torch.tensor(3.0)
    names = [str(tmp_path / name) for name in ("eye.pth", "both.pth")]
    for name, content in zip(names, (eye, both)):
        torch.save(content, name)

    filled = load_sources(smallest_model, {"parts": names})

    loaded = smallest_model.state_dict()
    first, *others = eye
    assert loaded[first].unique().tolist() == [0.5]
    assert loaded[others[0]].unique().tolist() == [0.25]
    assert loaded["contrast.bias"] == 3
    assert filled == {*eye, "contrast.bias"}


def test_each_file_fills_its_part(smallest_model, published):
    load_sources(smallest_model, published)
    assert (smallest_model.backbone.vit.cls_token == 0.25).all()
    assert (smallest_model.backbone.norm.weight == 0.5).all()
    assert (smallest_model.qformer.query_tokens == 0.5).all()
    assert (smallest_model.text_encoder.text_projection == 0.75).all()


def test_a_partial_official_checkpoint_completes_them(smallest_config, published, tmp_path):
    model = DynRefer.from_config(smallest_config)
    # The smallest model's language model is in no other file, unlike the real one's.
    kept = {name for name, weight in model.named_parameters() if weight.requires_grad}
    state = {
        name: value
        for name, value in model.state_dict().items()
        if name in kept or name.startswith("captioning.llm.")
    }
    path = tmp_path / "dynrefer.safetensors"
    save_file(to_official(filled_with(state, 0.125)), path)

    whole = DynRefer.from_config(
        {
            **smallest_config,
            "pretrained": published,
            "load_finetuned": True,
            "finetuned": str(path),
        }
    )

    assert (whole.tagging.decoder.classifier.weight == 0.125).all()
    assert (whole.backbone.vit.cls_token == 0.25).all()


def test_a_partial_checkpoint_alone_is_refused(smallest_config, tmp_path):
    model = DynRefer.from_config(smallest_config)
    trained = {name: w.detach() for name, w in model.named_parameters() if w.requires_grad}
    save_file(trained, tmp_path / "trained.safetensors")
    with pytest.raises(CheckpointError, match=r"backbone.*have no file.*model\.pretrained"):
        DynRefer.from_config(
            {
                **smallest_config,
                "load_finetuned": True,
                "finetuned": str(tmp_path / "trained.safetensors"),
            }
        )


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ({"eva_vit": "{blip2}"}, CheckpointError, r"model\.pretrained\.eva_vit: .*lacks"),
        ({"blip2": "b.pth"}, FileNotFoundError, r"model\.pretrained\.blip2: no file 'b\.pth'"),
        (
            {"eva": "x.pth"},
            ValueError,
            r"model\.pretrained: unknown \['eva'\]; did you mean eva_vit",
        ),
    ],
)
def test_a_wrong_file_is_named_with_its_key(smallest_model, published, files, error, message):
    paths = {kind: name.format(**published) for kind, name in files.items()}
    with pytest.raises(error, match=message):
        load_sources(smallest_model, paths)
