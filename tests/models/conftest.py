"""The files of a whole model in the published layout, at toy size."""

from __future__ import annotations

import copy

import pytest

from lavis_dynrefer.config import LAVIS_KEYS, DynReferConfig
from lavis_dynrefer.settings import from_mapping


@pytest.fixture(scope="session")
def published_files(smallest_config, tmp_path_factory) -> dict:
    """Part -> path; not to be written to."""
    from lavis_dynrefer.lab.random_weights import RandomFiles

    numbers = {key: value for key, value in smallest_config.items() if key not in LAVIS_KEYS}
    config = from_mapping(DynReferConfig, numbers)
    return RandomFiles(tmp_path_factory.mktemp("published"), config).write()


@pytest.fixture
def published_section(smallest_config, published_files) -> dict:
    """A `model` section that names all of them."""
    section = copy.deepcopy({**smallest_config, "random_parts": False})
    kinds = ("eva_vit", "blip2", "eva_clip_text")
    section["pretrained"] = {kind: str(published_files[kind]) for kind in kinds}
    section.update(load_finetuned=True, finetuned=str(published_files["dynrefer"]))
    folder = str(published_files["flan_t5"])
    section["captioning"]["llm_options"] = {"pretrained": folder, "dtype": "bfloat16"}
    return section
