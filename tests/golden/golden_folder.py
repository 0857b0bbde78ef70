"""Reading a golden folder, and building our model from it.

A folder of this layout was written by the official code; its README says what each key holds. Other
folders have other sizes, thresholds and counts, so tests take all of these from the folder.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load

from lavis_dynrefer.config import DynReferConfig
from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.models.llms.llm_options import T5Sizes
from lavis_dynrefer.models.model_parts import build_parts
from lavis_dynrefer.models.weights.checkpoint import load_weights
from lavis_dynrefer.settings import from_mapping
from tests.conftest import SHARED

T5_SIZES = [item.name for item in fields(T5Sizes)]  # the rest of config.json is ours by default
OWN = SHARED / "parity"  # the folder used unless --golden names another


class Recorded(dict):
    """Recorded values by name; a test skips if another folder than `OWN` lacks what it needs."""

    def __init__(self, path: Path, values: dict) -> None:
        super().__init__(values)
        self.path = path

    def __missing__(self, name: str):
        if self.path.parent == OWN:
            raise KeyError(name)
        pytest.skip(f"{self.path} does not hold {name}")


def read_json(path: Path) -> Recorded:
    return _read(path, lambda: json.loads(path.read_text(encoding="utf-8")))


def read_tensors(path: Path) -> Recorded:
    return _read(path, lambda: load(lzma.decompress(path.read_bytes())))


def read_arrays(path: Path) -> Recorded:
    return _read(path, lambda: dict(np.load(path)))


FILES: dict[Path, Recorded] = {}  # read so far


def _read(path: Path, content: Callable[[], dict]) -> Recorded:
    if path not in FILES:
        FILES[path] = Recorded(path, content() if path.is_file() else {})
    return FILES[path]


def expand_views(cells: np.ndarray, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Normalised views from inputs.npz, by the recipe in the README."""
    pixels = cells.astype(np.int64).repeat(8, axis=-1).repeat(8, axis=-2)
    row, column = np.arange(pixels.shape[-2])[:, None], np.arange(pixels.shape[-1])[None]
    pattern = (3 * row + 5 * column + (row * column) % 23)[None] + 40 * np.arange(3)[:, None, None]
    views = torch.from_numpy(pixels + pattern % 64).float() / 255
    return (views - mean) / std


def model_config(folder: Path) -> DynReferConfig:
    """Our config for the dimensions in configs/model.json."""
    dims = read_json(folder / "configs" / "model.json")
    vit, qformer, text, head = (dims[key] for key in ("vit", "qformer", "text_encoder", "tag_head"))
    options, llm = dims["model_kwargs"], read_json(folder / "t5" / "config.json")
    decoder = {
        "width": head["hidden_size"],
        "depth": head["num_hidden_layers"],
        "heads": head["num_attention_heads"],
        "mlp_width": head["intermediate_size"],
    }
    sections = {
        "vision": {
            "image_size": dims["img_size"],
            "patch_size": vit["patch_size"],
            "width": vit["embed_dim"],
            "depth": vit["depth"],
            "heads": vit["num_heads"],
            "mlp_ratio": vit["mlp_ratio"],
        },
        "region": {"num_views": dims["num_views"], "offset_groups": dims["dcn"]["group"]},
        "qformer": {
            "num_queries": dims["num_query_token"],
            "width": qformer["hidden_size"],
            "depth": qformer["num_hidden_layers"],
            "heads": qformer["num_attention_heads"],
            "mlp_width": qformer["intermediate_size"],
            "cross_attention_freq": qformer["cross_attention_freq"],
        },
        "text": {
            "width": text["width"],
            "depth": text["layers"],
            "heads": text["heads"],
            "embed_dim": text["embed_dim"],
            "context_length": text["context_length"],
        },
        "tagging": {
            "vocabulary": str(folder / options["tag_list"]),
            "threshold": options["tag_thr"],
            "decoder": decoder,
        },
        "contrast": {"attributes": str(folder / options["ovad_file"]), "decoder": decoder},
        "captioning": {
            "max_text_length": options["max_txt_len"],
            "llm_options": {
                "config": {name: llm[name] for name in T5_SIZES if name in llm},
                "tokenizer": str(folder / "t5"),
            },
        },
    }
    return from_mapping(DynReferConfig, sections)


def build(folder: Path, weights) -> DynRefer:
    """The model with the golden weights and no dropout."""
    config = model_config(folder)
    model = DynRefer(**build_parts(config), losses=config.losses, caption_config=config.captioning)
    load_weights(model, weights)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return model
