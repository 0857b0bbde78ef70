"""Reads files of tensors without running code from them, mapped where the format allows."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor

from lavis_dynrefer.errors import InputError, MissingFileError
from lavis_dynrefer.paths import cache_dir, replace_file

CONVERTED = "converted_from"  # in the header of what `conversion.convert` writes
_WRAPPERS = ("model", "state_dict", "module", "model_state_dict")  # levels above the tensors
_IN_PARALLEL = "module."  # before each name, where a model was wrapped for several processes
_ZIP = b"PK\x03\x04"

logger = logging.getLogger(__name__)


class CheckpointError(InputError):
    """A checkpoint does not fit the model."""


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a file, after a look at its checksums; see `open_tensors`.

    What `conversion.convert` wrote was checked when it was written, and is not read whole again.
    """
    path = _existing(path)
    if _is_first():
        digest = "" if _is_converted(path) else f" (sha256 {file_digest(path)})"
        logger.info("Reading %s%s", path, digest)
    return open_tensors(path)


def _is_converted(path: Path) -> bool:
    header = _safetensors_header(path) if _is_safetensors(path) else None
    return CONVERTED in ((header or {}).get("__metadata__") or {})


def open_tensors(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors or torch file by name; their values are read when they are used.

    They are mapped where the format allows, and what is written to them never reaches the file.
    Copy what must outlive a change of the file; on Windows a mapped file cannot be replaced. They
    may lie one or two levels below `model`, `state_dict` or `module`.

    Raises:
        MissingFileError: there is no such file.
        CheckpointError: the file is damaged, is something else, or does not hold named tensors.
    """
    path = _existing(path)
    content = _load(path, mapped=True)
    tensors = _unwrapped(content)
    if tensors is None:
        found = sorted(map(str, content))[:5] if isinstance(content, Mapping) else type(content)
        raise CheckpointError(
            f"{path}: expected a mapping of names to tensors, by itself or under one of "
            f"{list(_WRAPPERS)}, found {found}"
        )
    odd = [name for name, tensor in tensors.items() if not _has_plain_values(tensor)]
    if odd:
        raise CheckpointError(
            f"{path}: expected plain numbers, but {len(odd)} tensors are empty ones of the meta "
            f"device, or sparse, quantised or complex, such as {odd[0]}"
        )
    return tensors


def _has_plain_values(tensor: Tensor) -> bool:
    """A tensor without values would later get random ones; others mean something else."""
    plain = tensor.device.type == "cpu" and tensor.layout == torch.strided
    return plain and not (tensor.is_quantized or tensor.is_complex())


def read_content(path: str | Path) -> Any:
    """Content of a .safetensors or torch file, on the CPU and not mapped.

    Raises:
        MissingFileError: there is no such file.
        CheckpointError: it is damaged, of another kind, or would run code.
    """
    path = _existing(path)
    if _is_first():
        check_records(path)
    return _load(path, mapped=False)


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise MissingFileError(f"there is no checkpoint {path}: it {found}")
    return path


def _is_first() -> bool:
    """Whether this is the first of several processes, which checks for all of them."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


def _load(path: Path, *, mapped: bool) -> Any:
    try:
        if _is_safetensors(path):
            return load_file(path)  # always mapped
        archive = mapped and zipfile.is_zipfile(path)  # the older format cannot be mapped
        return torch.load(os.fspath(path), map_location="cpu", weights_only=True, mmap=archive)
    except MemoryError:
        raise
    except Exception as error:  # torch raises nearly all kinds for damaged files
        if isinstance(error, OSError) and error.filename is not None:  # no permission
            raise
        # Not torch's own words, which advise to load the file unsafely.
        raise CheckpointError(f"{path}: {_what_is_wrong(path)}") from error


def _what_is_wrong(path: Path) -> str:
    """Why a file cannot be read, from its first bytes."""
    with path.open("rb") as file:
        start = file.read(200)
    size = path.stat().st_size
    if not start:
        return "the file is empty; copy it again"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of git-lfs in place of the file; fetch that with `git lfs pull`"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page in place of the file; download it again, and look at the page"
    if _is_safetensors(path):
        expected = _safetensors_size(path)
        if expected is not None and expected != size:
            return (
                f"damaged: expected {expected:,} bytes by its own header, found {size:,}; copy it "
                "again"
            )
    if start.startswith(_ZIP) and not zipfile.is_zipfile(path):
        return f"damaged: it ends too early, after {size:,} bytes; copy it again"
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        return "libraries cannot open a name with bytes that are not UTF-8; rename the file"
    return "not a readable file of tensors, or one that would run code"


def _is_safetensors(path: Path) -> bool:
    """By the first bytes: behind a link there may be a file of any name."""
    with path.open("rb") as file:
        start = file.read(9)
    is_archive = start.startswith(_ZIP)
    return start[8:] == b"{" or (path.suffix == ".safetensors" and not is_archive)


def _safetensors_size(path: Path) -> int | None:
    """Bytes of a whole .safetensors file by its header; None where that is not readable."""
    header = _safetensors_header(path)
    if header is None:
        return None
    try:
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name[:2] != "__"]
    except (LookupError, TypeError):
        return None
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
    return 8 + length + max(ends, default=0)


def _safetensors_header(path: Path) -> dict[str, Any] | None:
    """The header of a .safetensors file; None where that is not readable."""
    with path.open("rb") as file:
        try:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, 100_000_000)))
        except (struct.error, ValueError):
            return None
    return header if isinstance(header, dict) else None


def _unwrapped(content: Any) -> dict[str, Tensor] | None:
    """Named tensors, wherever they are below `_WRAPPERS`; None if not in exactly one place."""
    for _ in range(3):
        if not isinstance(content, Mapping):
            return None
        if all(isinstance(item, Tensor) for item in content.values()):
            if content and all(str(name).startswith(_IN_PARALLEL) for name in content):
                return {name[len(_IN_PARALLEL) :]: item for name, item in content.items()}
            return dict(content) if all(isinstance(name, str) for name in content) else None
        below = [content[name] for name in _WRAPPERS if isinstance(content.get(name), Mapping)]
        if len(below) != 1:
            return None
        content = below[0]
    return None


def check_records(path: Path) -> None:
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
    check_records(path)
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
