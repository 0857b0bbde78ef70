"""A whole model whose files come over HTTP equals the one whose files are named."""

from __future__ import annotations

import copy

import pytest
import torch
from weight_site import serve_weights

from lavis_dynrefer.errors import MissingFileError
from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.models.weights.fetching import transfer
from lavis_dynrefer.models.weights.fetching.part_registry import register
from lavis_dynrefer.models.weights.places import AUTO


@pytest.fixture
def site(monkeypatch, tmp_path):
    monkeypatch.setenv("DYNREFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in transfer.OFFLINE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with serve_weights() as server:
        yield server


@pytest.fixture
def by_name(site, published_section, published_files):
    """The section of a model that names no file of weights, and a site that has them."""
    section = copy.deepcopy(published_section)
    section["model_type"] = "mine"
    section["finetuned"] = AUTO
    section["pretrained"] = dict.fromkeys(section["pretrained"], AUTO)
    section["captioning"]["llm_options"]["pretrained"] = AUTO
    section["published"] = {"dynrefer": {"variable": "X", "page": "https://example.org"}}
    for part in ("eva_vit", "blip2", "eva_clip_text", "flan_t5"):
        path = published_files[part]
        paths = [path] if path.is_file() else sorted(path.iterdir())
        for file in paths:
            site.put(f"/{part}/{file.name}", file.read_bytes())
        section["published"][part] = {
            "variable": part.upper(),
            "kept": part if path.is_dir() else f"{part}.safetensors",
            "at": f"{site.address}/{part}",
            "files": [{"name": file.name, "size": file.stat().st_size} for file in paths],
        }
    return section


def test_fetched_parts_make_the_same_model(site, by_name, published_section, published_files):
    register("mine", "dynrefer", published_files["dynrefer"])
    expected = DynRefer.from_config(published_section).state_dict()

    found = DynRefer.from_config(by_name).state_dict()

    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
        assert found[name].dtype == value.dtype, name
    asked = len(site.asked)
    DynRefer.from_config(by_name)
    assert len(site.asked) == asked  # all is kept


@pytest.mark.parametrize("named", ["nothing", "a file that is not there", "a wrong file"])
def test_nothing_is_fetched_for_a_model_that_cannot_be_loaded(
    site, by_name, published_files, named
):
    if named != "nothing":
        absent = "nowhere.pth" if "not there" in named else str(published_files["blip2"])
        by_name["finetuned"] = absent
    message = {
        "nothing": r"dynrefer: it has no direct address",
        "a file that is not there": r"model\.finetuned: no file 'nowhere\.pth'",
        "a wrong file": r"is a BLIP-2 file, expected a DynRefer checkpoint",
    }

    with pytest.raises((MissingFileError, ValueError), match=message[named]):
        DynRefer.from_config(by_name)
    assert site.asked == []
