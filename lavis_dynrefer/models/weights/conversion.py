"""Keeps of a published file what the model uses, in the number format in which it is stored.

Starts read less then: of 16.3 GB that are published for the full model they map 9.2.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lavis_dynrefer.config import VisionConfig
from lavis_dynrefer.models.weights.checkpoint import CheckpointError, read_state_dict
from lavis_dynrefer.models.weights.tensor_writing import TensorPlan, write_tensors

FORMAT_VERSION = "1"  # in the header of what `convert` writes; grows when the rules below change
INDEX = "model.safetensors.index.json"  # which shard has which tensor
_LAST_BLOCK = VisionConfig().depth
_TIED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")

logger = logging.getLogger(__name__)


class Rule(NamedTuple):
    """What of a published file is kept.

    Args:
        names: a pattern of names, from their beginning.
        dtype: in which weights of products are stored.
        others: in which all other tensors are stored; None: as they are.
    """

    names: re.Pattern[str]
    dtype: torch.dtype
    others: torch.dtype | None

    def keeps(self, name: str) -> bool:
        """Whether the model uses a tensor of that name."""
        found = self.names.match(name)
        block = found.groupdict().get("block") if found else None
        return found is not None and (block is None or int(block) < _LAST_BLOCK)

    def dtype_of(self, name: str, tensor: Tensor) -> torch.dtype:
        """The number format in which a tensor is stored."""
        if not tensor.is_floating_point():
            return tensor.dtype
        is_factor = name.endswith(".weight") and tensor.ndim > 1
        return (self.dtype if is_factor else self.others) or tensor.dtype


RULES = {
    # As the released code stores it. What is not multiplied keeps its format: the published file is
    # in float16 throughout.
    "eva_vit": Rule(
        re.compile(r"cls_token|pos_embed|patch_embed\.|blocks\.(?P<block>\d+)\."),
        torch.float16,
        None,
    ),
    "blip2": Rule(  # without the text branch of the Q-Former
        re.compile(
            r"query_tokens$|ln_vision\.|t5_proj\.|Qformer\.bert\.(embeddings\.LayerNorm\."
            r"|encoder\.layer\.\d+\.(attention|crossattention|intermediate_query|output_query)\.)"
        ),
        torch.float32,
        torch.float32,
    ),
    "eva_clip_text": Rule(re.compile(r"text\.(?!logit_scale)"), torch.float32, torch.float32),
    "flan_t5": Rule(
        re.compile(
            r"(shared|lm_head)\.|(encoder|decoder)\.(final_layer_norm|block)\."
            r"(?!0\.layer\.1\.EncDecAttention\.relative_attention_bias)"
        ),
        torch.bfloat16,
        torch.bfloat16,
    ),
}


def convert(part: str, source: Path, target: Path, *, digest: str | None = None) -> None:
    """Write what the model uses of a published file.

    Memory: one tensor, and the source, mapped where its format allows.

    Args:
        part: a key of `RULES`.
        source: the published file; of flan_t5 the folder.
        target: the .safetensors file; of flan_t5 the folder, whose model.safetensors comes last.
        digest: sha256 of the source, for the header.

    Raises:
        CheckpointError: the source is damaged or another kind of file.
        MissingFileError: there is no source.
    """
    rule, folder = RULES[part], part == "flan_t5"
    tensors = read_folder(source) if folder else read_state_dict(source)
    kept = {name: tensor for name, tensor in tensors.items() if rule.keeps(name)}
    if not kept:
        raise CheckpointError(
            f"{source}: expected the published file of {part}, but none of its {len(tensors)} "
            f"tensors is one of those, it has {sorted(tensors)[:3]}"
        )
    plans = {
        name: TensorPlan(tuple(tensor.shape), rule.dtype_of(name, tensor))
        for name, tensor in kept.items()
    }
    metadata = {
        "format": "pt",
        "part": part,
        "source": source.name,
        "source_size": str(sum(tensor.nbytes for tensor in tensors.values())),
        "version": FORMAT_VERSION,
    }
    if digest is not None:
        metadata["source_sha256"] = digest
    if folder:
        target.mkdir(parents=True, exist_ok=True)
        _copy_small_files(source, target)
        target = target / "model.safetensors"
    logger.info("Converting %s: %.2f GB", source, sum(plan.size for plan in plans.values()) / 1e9)
    write_tensors(target, plans, lambda name: kept[name].to(plans[name].dtype), metadata)


def _copy_small_files(source: Path, target: Path) -> None:
    """Config and tokenizer of a Hugging Face folder."""
    for path in source.iterdir():
        if path.suffix in (".json", ".model", ".txt") and path.name != INDEX and path.is_file():
            shutil.copyfile(path, target / path.name)


def shard_paths(folder: Path) -> list[Path]:
    """The files of weights of a Hugging Face folder, .safetensors before .bin.

    Raises:
        CheckpointError: there are none, or the index is not readable.
    """
    for stem, suffix in (("model", ".safetensors"), ("pytorch_model", ".bin")):
        if (folder / f"{stem}{suffix}").is_file():
            return [folder / f"{stem}{suffix}"]
        index = folder / f"{stem}{suffix}.index.json"
        if index.is_file():
            try:
                places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
                return [folder / name for name in sorted(set(places.values()))]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise CheckpointError(
                    f"{index}: expected which file has which tensor under 'weight_map' ({error})"
                ) from error
    found = sorted(path.name for path in folder.iterdir())[:5] if folder.is_dir() else "no folder"
    raise CheckpointError(
        f"{folder}: expected model.safetensors or pytorch_model.bin, whole or in shards with their "
        f"index, found {found}"
    )


def read_folder(folder: Path) -> dict[str, Tensor]:
    """The tensors of a Hugging Face folder, mapped where the format allows.

    Raises:
        CheckpointError: a file is damaged.
        MissingFileError: a shard is not there.
    """
    tensors: dict[str, Tensor] = {}
    for path in shard_paths(folder):
        tensors.update(read_state_dict(path))
    return tensors
