"""Images of a table: bytes, the struct of Hugging Face and Ray, paths, and addresses."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import pyarrow as pa
from PIL import Image
from pyarrow import fs

from lavis_dynrefer.errors import InputError, MissingFileError
from lavis_dynrefer.images import open_image, open_image_bytes
from lavis_dynrefer.models.weights.fetching.transfer import offline_variable, open_session

if TYPE_CHECKING:
    import requests

MAX_BYTES = 256 << 20  # of a file that is fetched; its pixels are limited as everywhere
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)  # more than one letter: no drive
_TIMEOUT = (10, 60)  # seconds to connect, and without a byte


def load_image(value: Any, root: str | None = None) -> Image.Image:
    """The RGB image in a cell of a table.

    Args:
        value: bytes of a file; a struct {bytes, path}, of which the path counts where there are no
            bytes; a path or address; or what `images.open_image` takes. Addresses of http(s) are
            fetched; others, such as s3://, are read by pyarrow, or by fsspec if it knows them.
        root: folder or address that relative paths begin at.

    Raises:
        MissingFileError: there is no such file.
        InputError: null, an address that cannot be read, or not an image that can be used.
    """
    if isinstance(value, Mapping):
        if not {"bytes", "path"}.intersection(value):
            raise InputError(f"image: expected a struct of bytes and path, got {list(value)[:8]}")
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return open_image_bytes(bytes(value))
    if isinstance(value, (str, os.PathLike)):
        return _from_address(_joined(os.fspath(value), root))
    if value is None:
        raise InputError("image: it is null; expected bytes, a path or an address")
    return open_image(value)


def _joined(name: str, root: str | None) -> str:
    if _ADDRESS.match(name) or os.path.isabs(name):
        return name
    if not name:
        raise InputError("image: the path is empty")
    if root is None:
        raise InputError(f"image {name:.300}: a relative path; name the folder that it begins at")
    if _ADDRESS.match(root):
        return posixpath.join(root, name)
    return os.path.join(root, name)


def _from_address(address: str) -> Image.Image:
    scheme = address.partition("://")[0].lower() if _ADDRESS.match(address) else ""
    if scheme == "":
        return open_image(address)
    if scheme == "file":
        return open_image(Path(url2pathname(unquote(urlsplit(address).path))))
    name = f"image {address:.300}"
    data = _fetch(address, name) if scheme in ("http", "https") else _read(address, name)
    return open_image_bytes(data, name)


def _fetch(address: str, name: str) -> bytes:
    variable = offline_variable()
    if variable is not None:
        raise InputError(f"{name}: not fetched, because {variable} is set")
    import requests

    try:
        with _session().get(address, stream=True, timeout=_TIMEOUT) as answer:
            if answer.status_code == 404:
                raise MissingFileError(f"no {name}: the server answers 404")
            answer.raise_for_status()
            return _limited(answer.raw, name)
    except (requests.RequestException, OSError) as error:
        if isinstance(error, MissingFileError):
            raise
        raise InputError(f"{name}: {error}") from error


@lru_cache(maxsize=1)
def _session() -> requests.Session:
    """One for all reader threads; it lives as long as the process."""
    return ExitStack().enter_context(open_session())


def _read(address: str, name: str) -> bytes:
    try:
        try:
            system, path = fs.FileSystem.from_uri(address)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            return _by_fsspec(address, name, error)
        with system.open_input_stream(path) as file:
            return _limited(file, name)
    except MissingFileError:
        raise
    except FileNotFoundError as error:
        raise MissingFileError(f"no {name}") from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{name}: {error}") from error


def _by_fsspec(address: str, name: str, error: Exception) -> bytes:
    try:
        import fsspec
    except ImportError:
        raise InputError(f"{name}: {error}; pip install fsspec may know such addresses") from error
    try:
        with fsspec.open(address, "rb") as file:
            return _limited(file, name)
    except (ImportError, ValueError) as problem:  # an unknown scheme, or a missing package
        if isinstance(problem, InputError):
            raise
        raise InputError(f"{name}: {problem}") from problem


def _limited(file: IO[bytes], name: str) -> bytes:
    """All of a file, unless it is too large."""
    parts, size = [], 0
    while block := file.read(1 << 20):
        parts.append(block)
        size += len(block)
        if size > MAX_BYTES:
            raise InputError(f"{name}: larger than {MAX_BYTES >> 20} MB")
    return b"".join(parts)
