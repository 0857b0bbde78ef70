"""Keeps of a published file what the model uses, in the number format in which it is stored.

Starts read less then: of 16.3 GB that are published for the full model they map 9.2.
"""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lavis_dynrefer.config import VisionConfig
from lavis_dynrefer.models.weights.hugging_face_folder import INDEX, shard_paths
from lavis_dynrefer.models.weights.tensor_reading import (
    CONVERTED,
    CheckpointError,
    check_records,
    open_tensors,
)
from lavis_dynrefer.models.weights.tensor_writing import TensorPlan, write_tensors

_LAST_BLOCK = VisionConfig().depth

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


RULES = {  # with another rule `model.published` must keep the file under another name
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


def convert(part: str, source: Path, target: Path) -> None:
    """Write what the model uses of a published file, after a look at its checksums.

    Memory: one tensor, and the source, mapped where its format allows.

    Args:
        part: a key of `RULES`.
        source: the published file; of flan_t5 the folder.
        target: the .safetensors file; of flan_t5 the folder, whose model.safetensors comes last.

    Raises:
        CheckpointError: the source is damaged or another kind of file.
        MissingFileError: there is no source.
    """
    rule, folder = RULES[part], part == "flan_t5"
    tensors = {}
    for path in shard_paths(source) if folder else [source]:
        tensors.update(open_tensors(path))
        check_records(path)
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
    metadata = {"format": "pt", "part": part, CONVERTED: source.name}
    if folder:
        target.mkdir(parents=True, exist_ok=True)
        _copy_small_files(source, target)
        target = target / "model.safetensors"
    logger.info("Converting %s: %.2f GB", source, sum(plan.size for plan in plans.values()) / 1e9)
    write_tensors(target, plans, lambda name: kept[name].to(plans[name].dtype), metadata)


def _copy_small_files(source: Path, target: Path) -> None:
    """Config and tokenizer of a Hugging Face folder."""
    for path in source.iterdir():
        is_index = path.name.endswith(INDEX)
        if path.suffix in (".json", ".model", ".txt") and path.is_file() and not is_index:
            shutil.copyfile(path, target / path.name)
