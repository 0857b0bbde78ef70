"""Text embeddings kept on disk, for later processes and for those beside this one.

A file is found by a checksum of everything that its numbers depend on: weights, tokens, kind of
device. It holds a checksum of its own contents; a damaged file is computed again. Where nothing
can be written, nothing is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

import safetensors.torch
import torch
from filelock import FileLock
from torch import Tensor

from lavis_dynrefer.errors import MissingFileError
from lavis_dynrefer.paths import cache_dir, replace_file

logger = logging.getLogger(__name__)

LIMIT = 2**30  # bytes of all files; those that were not read for longest are removed
_WORDS = 2**16  # summed at once: 512 KiB, what a core's cache holds


def kept(key: str, compute: Callable[[], Tensor]) -> Tensor:
    """What `compute` returns, from disk if a process has computed it before.

    Of several processes that ask at once, one computes and the others wait for its file.

    Args:
        key: checksum of all that the result depends on.
        compute: its result (K, E) is kept on disk.
    """
    try:
        folder = cache_dir() / "texts"
        folder.mkdir(exist_ok=True)
    except (OSError, MissingFileError):
        return compute()
    path = folder / f"{key}.safetensors"
    found = _read(path)
    if found is not None:
        return found
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(FileLock(folder / f".{key}.lock"))
        except (OSError, NotImplementedError) as error:  # read-only, or a share without locks
            logger.debug("text embeddings are not kept: %s", error)
            return compute()
        found = _read(path)  # another process may have written it meanwhile
        if found is None:
            found = compute()
            _write(path, found)
        return found


def checksum(tensors: Mapping[str, Tensor], *texts: object) -> str:
    """Hexadecimal checksum of tensors, their names, formats and shapes, and of some words.

    Tensors are summed where they are, in integers, with random weights that depend on the position
    in blocks of 512 KiB: as fast as they can be read, where a cryptographic checksum of a text
    tower takes half a second at every start, or a copy from a GPU.

    Args:
        tensors: by name, on any device.
        texts: anything else, by its `repr`.
    """
    digest = hashlib.blake2b(digest_size=16)
    sums = []
    for name, tensor in sorted(tensors.items()):
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        flat = tensor.detach().contiguous().flatten()
        size = flat.element_size()
        whole = len(flat) * size // 8 * 8 // size
        digest.update(flat[whole:].cpu().view(torch.uint8).numpy().tobytes())
        sums += [_weighted_sum(part) for part in flat[:whole].split(_WORDS * 8 // size)]
    if sums:
        digest.update(torch.stack(sums).cpu().numpy().tobytes())
    digest.update(repr(texts).encode())
    return digest.hexdigest()


def _weighted_sum(part: Tensor) -> Tensor:
    """Sum of a part's bytes as 64-bit integers times odd random ones, modulo 2 ** 64."""
    if part.storage_offset() * part.element_size() % 8:
        part = part.clone()  # torch reads integers of 64 bits only where such may lie
    words = part.view(torch.int64)
    weights = _weights(part.device)[: len(words)]
    if part.device.type == "cpu":
        return torch.dot(words, weights)
    return (words * weights).sum()  # torch has no integer dot product elsewhere


@lru_cache(maxsize=4)
def _weights(device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randint(-(2**62), 2**62, (_WORDS,), generator=generator)
    return (2 * numbers + 1).to(device)


def _read(path: Path) -> Tensor | None:
    """The embeddings in a file; None if there is none, or it is damaged."""
    try:
        tensors = safetensors.torch.load(path.read_bytes())
        embeddings, expected = tensors["embeddings"], tensors["checksum"]
    except FileNotFoundError:
        return None
    except Exception as error:  # the library has errors of its own
        logger.info("%s cannot be read (%s); its texts are embedded again", path, error)
        return None
    if not torch.equal(_own_checksum(embeddings), expected):
        logger.info("%s is damaged; its texts are embedded again", path)
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # the files read last are kept
    return embeddings


def _write(path: Path, embeddings: Tensor) -> None:
    """Write a file at once or not at all, and make room for it."""
    embeddings = embeddings.cpu().contiguous()
    tensors = {"embeddings": embeddings, "checksum": _own_checksum(embeddings)}
    part = path.with_name(f".{path.stem}.{os.getpid()}.part")
    try:
        part.write_bytes(safetensors.torch.save(tensors))
        replace_file(part, path)
    except OSError as error:  # a full disk
        logger.info("text embeddings are not kept: %s", error)
        with contextlib.suppress(OSError):
            part.unlink()
    _make_room(path)


def _own_checksum(embeddings: Tensor) -> Tensor:
    digest = hashlib.sha256(embeddings.view(torch.uint8).numpy().tobytes()).digest()
    return torch.frombuffer(bytearray(digest), dtype=torch.uint8)


def _make_room(newest: Path) -> None:
    """Remove what was read longest ago, until the files are within the limit."""
    ages = []
    for path in newest.parent.glob("*.safetensors"):
        with contextlib.suppress(OSError):  # another process may have removed it
            about = path.stat()
            ages.append((path != newest, -about.st_mtime, about.st_size, path))
    total = 0
    for _, _, size, path in sorted(ages):
        total += size
        if total > LIMIT and path != newest:
            with contextlib.suppress(OSError):
                path.unlink()
                path.with_name(f".{path.stem}.lock").unlink()
