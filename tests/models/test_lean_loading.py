"""Weights as the files have them: mapped, in their format, and never by chance."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import T5ForConditionalGeneration

from lavis_dynrefer.errors import InputError, MissingFileError
from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.models.weights.conversion import convert
from lavis_dynrefer.models.weights.hugging_face_folder import fill_from_folder, read_folder
from lavis_dynrefer.models.weights.lean_building import fill, without_values
from lavis_dynrefer.models.weights.pretrained import fill_trained, trained_weights
from lavis_dynrefer.models.weights.tensor_reading import open_tensors


@pytest.fixture
def loaded(published_section):
    return DynRefer.from_config(published_section)


def test_nothing_is_left_without_values(loaded, published_section, published_files):
    assert not any(value.is_meta for value in loaded.state_dict().values())
    vit = open_tensors(published_files["eva_vit"])
    for name, weight in loaded.backbone.vit.named_parameters():
        assert torch.equal(weight, vit[name]), name
    checkpoint = open_tensors(published_files["dynrefer"])
    assert torch.equal(loaded.tagging.decoder.classifier.weight, checkpoint["tag_fc.weight"])
    assert torch.equal(loaded.captioning.prefix.projection.weight, checkpoint["t5_proj.weight"])


def test_a_checkpoint_may_be_named_by_a_path(loaded, published_files):
    weight = loaded.tagging.decoder.classifier.weight
    expected = weight.detach().clone()
    with torch.no_grad():
        weight.zero_()
    loaded.load_checkpoint(published_files["dynrefer"])
    assert torch.equal(weight, expected)


def test_formats_of_storage(loaded):
    formats = {
        name: {weight.dtype for weight in part.parameters()}
        for name, part in (("vit", loaded.backbone.vit), ("t5", loaded.captioning.llm))
    }
    assert formats == {"vit": {torch.float16}, "t5": {torch.bfloat16}}
    others = (loaded.qformer, loaded.text_encoder, loaded.tagging, loaded.backbone.norm)
    assert {weight.dtype for part in others for weight in part.parameters()} == {torch.float32}
    assert loaded.float().captioning.llm.model.dtype == torch.bfloat16  # LAVIS calls it on a CPU


def test_t5_has_the_weights_that_hugging_face_loads(loaded, published_files):
    reference = T5ForConditionalGeneration.from_pretrained(
        published_files["flan_t5"], torch_dtype=torch.bfloat16
    )
    own = loaded.captioning.llm.model
    state = own.state_dict()
    assert state.keys() == reference.state_dict().keys()
    for name, value in reference.state_dict().items():
        assert torch.equal(state[name], value), name
    assert own.encoder.embed_tokens.weight is own.shared.weight
    assert not own.training


def test_torch_shards_with_longer_names_fill_the_same_model(loaded, published_files, tmp_path):
    tensors = read_folder(published_files["flan_t5"])
    names = sorted(tensors)
    for number, part in enumerate((names[::2], names[1::2])):
        content = {f"transformer.{name}": tensors[name] for name in part}
        torch.save(content, tmp_path / f"pytorch_model-{number}.bin")
    places = {name: f"pytorch_model-{number % 2}.bin" for number, name in enumerate(names)}
    index = json.dumps({"weight_map": places})
    (tmp_path / "pytorch_model.bin.index.json").write_text(index, encoding="utf-8")
    own = loaded.captioning.llm.model
    with without_values():
        model = type(own)(own.config)

    fill_from_folder(model, tmp_path, read_folder(tmp_path), torch.bfloat16, key="k")

    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in own.state_dict().items())

    (tmp_path / "pytorch_model-1.bin").unlink()
    with pytest.raises(MissingFileError, match=r"pytorch_model-1\.bin: it does not exist"):
        read_folder(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_frozen_weights_are_mapped_and_trained_ones_are_not(published_section, tmp_path):
    for part, path in published_section["pretrained"].items():
        target = tmp_path / f"{part}.safetensors"
        convert(part, Path(path), target)
        published_section["pretrained"][part] = str(target)
    options = published_section["captioning"]["llm_options"]
    convert("flan_t5", Path(options["pretrained"]), tmp_path / "t5")
    options["pretrained"] = str(tmp_path / "t5")

    model = DynRefer.from_config(published_section)

    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    for name in ("eva_vit", "eva_clip_text", "t5/model"):
        assert f"{tmp_path}/{name}.safetensors" in maps
    assert published_section["finetuned"] not in maps
    before = (tmp_path / "eva_vit.safetensors").read_bytes()
    with torch.no_grad():
        model.backbone.vit.cls_token.fill_(9)
    assert (tmp_path / "eva_vit.safetensors").read_bytes() == before


def test_a_run_saves_what_it_trains_and_no_words_of_t5(loaded, published_section):
    saved = trained_weights(loaded)
    trained = {name for name, weight in loaded.named_parameters() if weight.requires_grad}
    assert set(saved) - trained == {"qformer.bert.embeddings.position_ids"}
    again = DynRefer.from_config({**published_section, "load_finetuned": False})
    fill_trained(again, saved, source="run.pth")
    state = again.state_dict()
    assert all(torch.equal(state[name], value) for name, value in loaded.state_dict().items())


def test_a_loaded_model_can_be_copied_and_pickled(loaded):
    expected = loaded.embed_texts(["a dog"])
    for copied in (copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded))):
        assert torch.equal(copied.backbone.vit.pos_embed, loaded.backbone.vit.pos_embed)
        assert copied.embed_texts._encoder is copied.text_encoder
        assert torch.equal(copied.embed_texts(["a dog"]), expected)


@pytest.mark.parametrize("allowed", [False, True])
def test_random_weights_need_a_word(published_section, allowed, caplog):
    section = {**published_section, "load_finetuned": False, "random_parts": allowed}
    del section["pretrained"]["eva_vit"]
    if not allowed:
        with pytest.raises(MissingFileError, match=r"no file has the weights of backbone\.vit;"):
            DynRefer.from_config(section)
        return
    model = DynRefer.from_config(section)
    assert model.backbone.vit.cls_token.std() > 0
    assert "begin with random weights: backbone.vit, captioning.prefix," in caplog.text
    assert model.captioning.prefix.control_embedding.std() > 0  # beside t5_proj of the BLIP-2 file


class Tied(nn.Module):
    """One weight in two modules, a trained one, and a buffer."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(3, 2).requires_grad_(False)
        self.head = nn.Linear(2, 3, bias=False)
        self.head.weight = self.words.weight
        self.layer = nn.Linear(2, 1, bias=False)
        self.register_buffer("steps", torch.arange(4.0), persistent=False)


def test_modules_without_values():
    with without_values():
        net = Tied()
    assert net.words.weight.is_meta
    assert net.steps.tolist() == [0, 1, 2, 3]
    words, layer = torch.rand(3, 2, dtype=torch.bfloat16), torch.rand(1, 2, dtype=torch.float16)

    fill(net, {"head.weight": words, "layer.weight": layer}, copy=False)

    assert net.words.weight is net.head.weight
    assert net.words.weight.data_ptr() == words.data_ptr()
    assert not net.words.weight.requires_grad
    assert net.layer.weight.dtype == torch.float32
    assert net.layer.weight.requires_grad
    assert not nn.Linear(1, 1).weight.is_meta


def test_other_threads_may_build_meanwhile():
    class Slow(nn.Parameter):
        @property
        def is_meta(self):  # asked while the other thread is registered
            with without_values():
                return False

    module = nn.Module()
    with without_values(), ThreadPoolExecutor(1) as pool:
        pool.submit(setattr, module, "weight", Slow(torch.ones(1))).result()
    assert module.weight.tolist() == [1]


def test_a_model_is_not_built_on_the_meta_device(published_section):
    with torch.device("meta"), pytest.raises(InputError, match="are on the meta device; build"):
        DynRefer.from_config(published_section)


def test_weights_with_more_digits_than_the_stored_ones_widen_them():
    with without_values():
        net = Tied()
    fill(net, {"words.weight": torch.zeros(3, 2, dtype=torch.float16)}, copy=False)
    fill(net, {"words.weight": torch.full((3, 2), 0.5)})
    assert net.words.weight.dtype == torch.float16
    fill(net, {"words.weight": torch.full((3, 2), 0.1)})
    assert torch.equal(net.head.weight, torch.full((3, 2), 0.1))
