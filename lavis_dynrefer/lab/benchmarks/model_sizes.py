"""Models of several sizes that need no file: with random weights, or without any, to be counted."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lavis_dynrefer.config import DynReferConfig, RegionEncoderConfig, VisionConfig
from lavis_dynrefer.errors import InputError, choice_problem
from lavis_dynrefer.lab.benchmarks.counting import Reads
from lavis_dynrefer.lab.random_weights import FLAN_T5_XL
from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.models.model_parts import build_parts
from lavis_dynrefer.settings import from_mapping

_TOKENIZER = "assets/tiny/tokenizer.json"
_TINY = {
    "vision": {"image_size": 64, "patch_size": 8, "width": 128, "depth": 4, "heads": 4},
    "region": {"num_views": 2, "roi_size": 4},
    "qformer": {"num_queries": 8, "width": 128, "depth": 2, "heads": 4, "mlp_width": 256},
    "text": {"width": 64, "depth": 1, "heads": 4, "embed_dim": 64, "context_length": 24},
    "captioning": {"vocab_size": 768, "d_model": 128, "d_kv": 32, "d_ff": 256, "num_layers": 2}
    | {"num_heads": 4},
    "words": {"tags": 55, "attributes": 21, "categories": 18},
}
_MIDDLE = {  # between the embedded model and the released one, for comparisons on a CPU
    "vision": {"width": 256, "depth": 8, "heads": 8},
    "region": {},
    "qformer": {"width": 256, "depth": 6, "heads": 8, "mlp_width": 1024},
    "text": {"width": 128, "depth": 2, "heads": 4, "embed_dim": 128},
    "captioning": {"vocab_size": 32128, "d_model": 256, "d_kv": 32, "d_ff": 512, "num_layers": 6}
    | {"num_heads": 8},
    "words": {"tags": 1000, "attributes": 117, "categories": 80},
}
_FULL = {
    "captioning": FLAN_T5_XL,
    "words": {"tags": 4585, "attributes": 117, "categories": 80},
}
SIZES: dict[str, dict[str, Any]] = {"tiny": _TINY, "middle": _MIDDLE, "full": _FULL}


def words_of(size: str) -> dict[str, tuple[str, ...]]:
    """Invented "tags", "attributes" and "categories", as many as a size has."""
    return {
        kind: tuple(f"{kind[:3]} {number}" for number in range(count))
        for kind, count in _size(size)["words"].items()
    }


def vision_of(size: str) -> VisionConfig:
    """Numbers of the ViT of a size."""
    return VisionConfig(**_size(size).get("vision", {}))


def section_of(size: str, tags: Path, *, dtype: str | None = None) -> dict[str, Any]:
    """The `model` section of a size.

    Args:
        size: one of `SIZES`.
        tags: file with the tag list.
        dtype: stored format of the language model; None: as released.

    Raises:
        InputError: another size.
    """
    numbers = _size(size)
    parts = {name: dict(numbers.get(name, {})) for name in ("vision", "region", "qformer", "text")}
    if size != "full":
        parts["text"]["tokenizer"] = _TOKENIZER
    stored = dtype or ("bfloat16" if size == "full" else "float32")
    options = {"config": numbers["captioning"], "tokenizer": _TOKENIZER, "dtype": stored}
    return {
        **parts,
        "tagging": {"vocabulary": str(tags)},
        "captioning": {"llm": "flan_t5", "llm_options": options},
    }


def build_model(size: str, **options: Any) -> DynRefer:
    """A model with random weights, on torch's default device; `options` as in `section_of`."""
    with tempfile.TemporaryDirectory() as folder:
        tags = Path(folder) / "tags.txt"
        tags.write_text("\n".join(words_of(size)["tags"]), encoding="utf-8")
        return model_of(section_of(size, tags, **options), categories=words_of(size)["categories"])


def model_without_weights(size: str, **options: Any) -> DynRefer:
    """A model on the meta device, for `Counting.adopt`; `options` as in `section_of`."""
    with torch.device("meta"), Reads():
        return build_model(size, **options)


def model_of_section(section: Mapping[str, Any]) -> DynRefer:
    """As `model_without_weights`, of a section that names no file of weights."""
    with torch.device("meta"), Reads():
        return model_of(section)


def model_of(section: Mapping[str, Any], **vocabularies: Sequence[Any]) -> DynRefer:
    """A model with random weights from a section that names no file of weights."""
    config = from_mapping(DynReferConfig, section, where="model")
    parts = build_parts(config)
    model = DynRefer(
        **{**parts, **vocabularies},
        losses=config.losses,
        caption_config=config.captioning,
        trainable=config.trainable,
    )
    return model.eval()


def example_batch(
    size: str, regions: int, *, views: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Regions to train on or to describe, with random pixels and boxes.

    Args:
        size: one of `SIZES`.
        regions: B.
        views: V; None: as many as the model fuses.
        seed: of the pixels and boxes.
    """
    side = vision_of(size).image_size
    fused = RegionEncoderConfig(**_size(size).get("region", {})).num_views
    return batch_of(side, regions, views or fused, seed=seed)


def batch_of(side: int, regions: int, views: int, *, seed: int = 0) -> dict[str, Any]:
    """As `example_batch`, for views of any side in pixels."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (regions, views, 3, side, side), generator=generator)
    return {
        "views": pixels.to(torch.uint8),
        "boxes": _boxes(regions, views, side, generator),
        "scales": torch.linspace(0, 1, views).repeat(regions, 1),
        "image_boxes": torch.tensor([0.0, 0.0, side, side]).repeat(regions, 1),
        "captions": ["a red house left of a green tree"] * regions,
        "tags": [[0]] * regions,
        "controls": ["|"] * regions,
    }


def _boxes(regions: int, views: int, side: int, generator: torch.Generator) -> Tensor:
    corners = torch.rand(regions, views, 2, 2, generator=generator).sort(dim=2).values
    boxes = (corners * side).floor().flatten(2)
    boxes[..., 2:] = torch.maximum(boxes[..., 2:], boxes[..., :2] + 1)
    return boxes


def _size(name: str) -> dict[str, Any]:
    problem = choice_problem("size", name, SIZES)
    if problem is not None:
        raise InputError(problem)
    return SIZES[name]
