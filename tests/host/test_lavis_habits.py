"""What users of LAVIS type, word by word."""

from __future__ import annotations

import lavis.models
import pytest
import torch
from lavis.common.registry import registry
from lavis.models import load_model, load_model_and_preprocess, load_preprocess, model_zoo
from omegaconf import OmegaConf
from PIL import Image

from lavis_dynrefer.paths import config_path

IMAGE = Image.linear_gradient("L").resize((100, 80)).convert("RGB")


@pytest.fixture(scope="module")
def loaded():
    return load_model_and_preprocess(
        name="dynrefer", model_type="tiny", is_eval=True, device=torch.device("cpu")
    )


def test_a_model_comes_with_its_processors(loaded):
    model, vis_processors, txt_processors = loaded

    assert list(vis_processors) == list(txt_processors) == ["train", "eval"]
    assert txt_processors["eval"]("A red Dog!") == "a red dog"
    assert model.device == torch.device("cpu")
    assert not model.training
    assert model.show_n_params() == "2.4M"


def test_an_image_is_captioned_as_by_any_model(loaded):
    model, vis_processors, _ = loaded
    image = vis_processors["eval"](IMAGE).unsqueeze(0).to(torch.device("cpu"))

    assert len(model.generate({"image": image}, max_length=3)) == 1
    both = torch.stack([vis_processors["eval"](IMAGE) for _ in range(2)])
    assert len(model.generate({"image": both}, max_length=3)) == 2


def test_a_training_processor_also_takes_a_whole_image(loaded):
    assert loaded[1]["train"](IMAGE).shape == (1, 2, 3, 64, 64)


def test_the_model_is_listed():
    lines = str(model_zoo).splitlines()

    assert ["dynrefer", "default,", "tiny,", "flant5xl,", "vicuna7b"] in [x.split() for x in lines]
    assert "dynrefer" in registry.list_models()
    assert {"dynrefer_train", "dynrefer_eval"} <= set(registry.list_processors())
    assert "dynrefer" in registry.list_tasks()
    assert "runner_dynrefer" in registry.list_runners()
    assert "coco_region" in registry.list_datasets()


def test_a_model_without_types_does_not_break_the_list(monkeypatch):
    monkeypatch.setitem(registry.mapping["model_name_mapping"], "toy", object)

    assert ["toy"] in [line.split() for line in str(model_zoo).splitlines()]


def test_the_class_is_one_of_the_models():
    model_class = registry.get_model_class("dynrefer")

    assert lavis.models.DynRefer is model_class
    assert model_class.default_config_path() == config_path("models/dynrefer_tiny.yaml")
    with pytest.raises(AttributeError, match=r"'lavis\.models' has no attribute 'DynRefr'"):
        lavis.models.DynRefr  # noqa: B018


def test_processors_are_built_of_a_config():
    config = OmegaConf.load(registry.get_model_class("dynrefer").default_config_path("tiny"))

    vis_processors, _ = load_preprocess(config.preprocess)

    assert vis_processors["eval"](IMAGE).shape == (1, 2, 3, 64, 64)


def test_a_checkpoint_replaces_the_weights(loaded, tmp_path):
    model = loaded[0]
    path = tmp_path / "own.pth"
    torch.save({"model": {**model.state_dict(), "contrast.bias": torch.tensor(3.0)}}, path)

    assert load_model("dynrefer", "tiny", checkpoint=str(path)).contrast.bias == 3
    with pytest.raises(FileNotFoundError, match=r"nofile\.pth"):
        load_model("dynrefer", "tiny", checkpoint="nofile.pth")
