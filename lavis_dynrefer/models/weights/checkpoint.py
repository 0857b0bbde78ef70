"""Weights in and out: safe reading, strict key checks, and the official names.

The released DynRefer stores only the tensors that it trained, under names of its own. The table
below is the complete translation.
"""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn

from lavis_dynrefer.errors import InputError, MissingFileError
from lavis_dynrefer.paths import cache_dir, replace_file

OFFICIAL_NAMES = (  # (official prefix, our prefix), first match wins
    ("visual_encoder.", "backbone.vit."),
    ("ln_vision.", "backbone.norm."),
    ("query_tokens", "qformer.query_tokens"),
    ("Qformer.bert.", "qformer.bert."),
    ("cvem_align.", "region_encoder.align."),
    ("cvem_mlp.", "region_encoder.fusion."),
    ("tag_head.encoder.layer.", "tagging.decoder.layers."),
    ("tag_vision_proj.", "tagging.decoder.vision_proj."),
    ("tag_text_proj.", "tagging.decoder.text_proj."),
    ("tag_fc.", "tagging.decoder.classifier."),
    ("attr_head.encoder.layer.", "contrast.decoder.layers."),
    ("attr_vision_proj.", "contrast.decoder.vision_proj."),
    ("attr_text_proj.", "contrast.decoder.text_proj."),
    ("attr_fc.", "contrast.decoder.classifier."),
    ("attr_t", "contrast.log_scale"),
    ("attr_b", "contrast.bias"),
    ("cem_memory", "captioning.prefix.control_embedding"),
    ("t5_proj.", "captioning.prefix.projection."),
    ("t5_model.", "captioning.llm.model."),
    ("text_encoder.", "text_encoder."),
)
OFFICIAL_DERIVED = (  # in official files, but computed at build time or never used
    "clip_embeds",
    "att_embeds",
    "ov_embeds",
    "text_encoder.logit_scale",
    "Qformer.bert.embeddings.position_ids",
)
_DERIVED = ("qformer.bert.embeddings.position_ids",)
_LORA = ".lora_"
_OFFICIAL_MARKS = ("cvem_mlp.0.weight", "cem_memory")

logger = logging.getLogger(__name__)


class CheckpointError(InputError):
    """A checkpoint does not fit the model."""


class LoadReport(NamedTuple):
    """Names of the tensors that a checkpoint filled, and of those that it lacks."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors or torch file, without running code from it.

    They are mapped where the format allows: what is not used is not read, and what is written to
    them never reaches the file. Copy what outlives a change of the file.

    Raises:
        MissingFileError: there is no such file.
        CheckpointError: the file does not hold named tensors.
    """
    content = read_content(path, keep_digest=True, mapped=True)
    content = content.get("model", content) if isinstance(content, Mapping) else content
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise CheckpointError(f"{path}: expected a mapping of names to tensors under 'model'")
    return dict(content)


def read_content(path: str | Path, *, keep_digest: bool = False, mapped: bool = False) -> Any:
    """Load a .safetensors or torch file without running code from it; its content is on the CPU.

    Args:
        path: of the file.
        mapped: map a torch file if it is a zip archive; on Windows it cannot be replaced then.
        keep_digest: log its sha256, and keep that for the next time: for files that do not change.

    Raises:
        MissingFileError: there is no such file.
        CheckpointError: it is damaged, of another kind, or would run code.
    """
    path = Path(path)
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise MissingFileError(f"there is no checkpoint {path}: it {found}")
    try:
        first = not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0
        if first and keep_digest:
            logger.info("Reading %s (sha256 %s)", path, file_digest(path))
        elif first:
            _check_records(path)
        if path.suffix == ".safetensors":
            return load_file(path)
        archive = mapped and zipfile.is_zipfile(path)  # the older format cannot be mapped
        return torch.load(os.fspath(path), map_location="cpu", weights_only=True, mmap=archive)
    except (MemoryError, CheckpointError):
        raise
    except Exception as error:  # torch raises nearly all kinds for damaged files
        if isinstance(error, OSError) and error.filename is not None:  # no permission
            raise
        # Not torch's own words, which advise to load the file unsafely.
        raise CheckpointError(
            f"{path}: not a readable file of tensors, or one that would run code"
        ) from error


def _check_records(path: Path) -> None:
    """Compare torch's records with their checksums, which `torch.load` does not.

    Raises:
        CheckpointError: the file is damaged.
    """
    if not zipfile.is_zipfile(path):  # other files have no checksums
        return
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            try:
                with archive.open(record) as file:
                    # 0: saved without a checksum
                    while record.CRC and file.read(1 << 20):
                        pass
            except zipfile.BadZipFile as error:
                raise CheckpointError(f"{path} is damaged: {error}; copy it again") from error


def file_digest(path: str | Path) -> str:
    """The sha256 of a file in hex; kept in the cache until the file changes.

    Raises:
        CheckpointError: the checksums in the file say that it is damaged.
    """
    path = Path(path).resolve()
    stat = path.stat()
    version = f"{stat.st_size} {stat.st_mtime_ns}"
    name = hashlib.sha256(os.fsencode(path)).hexdigest()
    with suppress(OSError):  # without a cache it is computed each time
        kept, _, digest = _digests().joinpath(name).read_text(encoding="utf-8").rpartition(" ")
        if kept == version:
            return digest
    _check_records(path)
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            hasher.update(block)
    with suppress(OSError):
        partial = _digests() / f"{name}.{os.getpid()}"
        try:
            partial.write_text(f"{version} {hasher.hexdigest()}", encoding="utf-8")
            replace_file(partial, _digests() / name)
        finally:
            partial.unlink(missing_ok=True)
    return hasher.hexdigest()


def _digests() -> Path:
    folder = cache_dir() / "digests"
    folder.mkdir(exist_ok=True)
    return folder


def is_official(names: Iterable[str]) -> bool:
    """Whether these are names of the released code."""
    return any(name in _OFFICIAL_MARKS for name in names)


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict of the released code to ours, without derived tensors.

    Raises:
        CheckpointError: a name that the table lacks.
    """
    return _rename(
        {name: value for name, value in state.items() if name not in OFFICIAL_DERIVED},
        OFFICIAL_NAMES,
    )


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `from_official`."""
    table = [(ours, official) for official, ours in OFFICIAL_NAMES]
    return _rename({name: value for name, value in state.items() if name not in _DERIVED}, table)


def _rename(state: Mapping[str, Tensor], table: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    renamed, unknown = {}, []
    for name, value in state.items():
        for old, new in table:
            if name == old or (old.endswith(".") and name.startswith(old)):
                renamed[new + name[len(old) :]] = value
                break
        else:
            unknown.append(name)
    if unknown:
        raise CheckpointError(f"no translation for {len(unknown)} names: {sorted(unknown)[:10]}")
    return renamed


def _with_lora_names(state: Mapping[str, Tensor], model_names: Iterable[str]) -> dict[str, Tensor]:
    """The tensors of a model without LoRA under the names they have in the same model with it."""
    wrapped = {
        name.replace("base_model.model.", "").replace(".base_layer", ""): name
        for name in model_names
        if _LORA not in name
    }
    return {wrapped.get(name, name): value for name, value in state.items()}


def load_weights(
    model: nn.Module, state: Mapping[str, Tensor], *, may_miss: Sequence[str] = ()
) -> LoadReport:
    """Copy tensors into `model` after checking every name and shape.

    Args:
        model: target.
        state: tensors under our names or the official ones.
        may_miss: names that the file may lack, e.g. of frozen parts; those that end with a dot,
            and the empty one, are prefixes. It may also lack all names but one of a tied tensor.

    Raises:
        CheckpointError: unexpected names, other names missing than `may_miss`, or other shapes.
    """
    if is_official(state):
        state = from_official(state)
    target = model.state_dict(keep_vars=True)  # the same object under each name of a tied tensor
    state = _with_lora_names(state, target)
    unexpected = sorted(set(state) - set(target))
    given = {id(target[name]) for name in state if name in target}
    missing = sorted(
        name for name, value in target.items() if id(value) not in given and name not in _DERIVED
    )
    if not any(_LORA in name for name in state):  # LoRA may start untrained
        may_miss = [*may_miss, *(name for name in missing if _LORA in name)]
    prefixes = tuple(name for name in may_miss if not name or name.endswith("."))
    names = set(may_miss)
    forbidden = [name for name in missing if name not in names and not name.startswith(prefixes)]
    shapes = [
        f"{name}: file {tuple(state[name].shape)}, model {tuple(target[name].shape)}"
        for name in sorted(set(state) & set(target))
        if state[name].shape != target[name].shape
    ]
    if unexpected or forbidden or shapes:
        raise CheckpointError(
            "checkpoint does not fit the model: "
            f"{len(unexpected)} unexpected {unexpected[:5]}, "
            f"{len(forbidden)} missing {forbidden[:5]}, "
            f"{len(shapes)} of another shape {shapes[:5]}; "
            "is it a checkpoint of this model type?"
        )
    model.load_state_dict(dict(state), strict=False)
    logger.info("Loaded %d tensors, %d stay unchanged", len(state), len(missing))
    return LoadReport(loaded=tuple(sorted(state)), missing=tuple(missing))
