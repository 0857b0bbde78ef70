"""Shards of WebDataset, .tar files whose members share a name: an image and its json."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.annotation_tools.sa1b import is_sa1b, read_sa1b
from lavis_dynrefer.formats.coco_json import read_coco_boxes
from lavis_dynrefer.formats.reading.json_text import parse_json
from lavis_dynrefer.formats.region_boxes import DEFAULT_FORMAT, ImageBoxes, read_records
from lavis_dynrefer.images import readable_suffixes
from lavis_dynrefer.images.boxes import xywh_to_xyxy
from lavis_dynrefer.images.decoding import HEIF_SUFFIXES

KEY = "__key__"  # as WebDataset and Ray name it
_MARK = 1024  # bytes of zero at the end of a tar file
_COMPRESSED = (b"\x1f\x8b", b"BZ", b"\xfd7")  # cut off, these do not open
_SUFFIXES = frozenset(suffix[1:] for suffix in readable_suffixes().union(HEIF_SUFFIXES))


def webdataset_row(sample: Mapping[str, Any], *, format: str = DEFAULT_FORMAT) -> dict[str, Any]:
    """The row of a sample.

    Args:
        sample: "__key__", the bytes of an image under its suffix, and "json" with its boxes: a list
            as in a json file of boxes, an object with "boxes", or what SA-1B's shards have.
            "ID.cls.jpg" is under "cls.jpg".
        format: of the boxes, for keys that do not say it.

    Returns:
        id (the key), image (bytes or None), boxes (lists), or an error in their place, masks (a
        list of json texts and None, or None without any), and json (the text or None).
    """
    parts = {name.lower(): value for name, value in sample.items() if not name.startswith("__")}
    images = [value for name, value in parts.items() if name.rpartition(".")[2] in _SUFFIXES]
    text = parts.get("json")
    row = {"id": sample.get(KEY), "image": None, "boxes": None, "masks": None, "json": None}
    row["image"] = images[0] if len(images) == 1 else None
    try:
        if len(images) > 1:
            raise InputError(f"the sample has {len(images)} images; expected one")
        row["json"] = _text(text)
        row["boxes"], row["masks"] = _regions(row["json"], format)
    except InputError as error:
        row["boxes"] = error
    return row


def read_shard(path: str | Path) -> Iterator[dict[str, Any]]:
    """The samples of a shard in order, each a dictionary suffix -> bytes with its "__key__".

    Raises:
        tarfile.TarError, OSError, EOFError: a damaged file, after the samples before the damage.
    """
    sample: dict[str, Any] = {}
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            if not member.isfile() or PurePosixPath(member.name).name.startswith((".", "__")):
                continue
            key, suffix = _split(member.name)
            if sample and sample[KEY] != key:
                yield sample
                sample = {}
            sample.setdefault(KEY, key)
            file = archive.extractfile(member)
            data = b"" if file is None else file.read()
            if len(data) != member.size:
                raise tarfile.ReadError("unexpected end of data")
            sample[suffix] = data
    _check_end(path)  # before the last sample, which may be incomplete
    if sample:
        yield sample


def _check_end(path: str | Path) -> None:
    """Refuse a shard that was cut off between two members, which tarfile takes for whole."""
    with open(path, "rb") as file:
        is_plain = file.read(2) not in _COMPRESSED
        file.seek(-min(_MARK, file.seek(0, 2)), 2)
        if is_plain and any(file.read()):
            raise tarfile.ReadError("it has no mark at its end; was it cut off?")


def _split(name: str) -> tuple[str, str]:
    """Key and suffix: the file name is cut at its first dot."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}{slash}{stem}", suffix


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise InputError(
            f"its json is a {type(value).__name__}, expected bytes; read the shard without "
            "decoding, in Ray with decoder=None"
        )
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError("its json is not UTF-8") from error


def _regions(text: str | None, format: str) -> tuple[list[Any], list[str | None] | None]:
    """Boxes and masks of a json text."""
    if text is None:
        raise InputError("the sample has no json with boxes")
    document = parse_json(text)
    if is_sa1b(document):
        return _of_sa1b(document, format)
    found, said = read_records([document] if isinstance(document, Mapping) else document)
    if said not in (None, format):
        raise InputError(f"its keys say {said}, but the boxes are to be read as {format}")
    return _listed(found)


def _of_sa1b(document: Mapping[str, Any], format: str) -> tuple[list[Any], list[str | None] | None]:
    layout = read_sa1b(document)
    images, annotations = (layout.document[key] for key in ("images", "annotations"))
    found = read_coco_boxes(annotations, images, "xywh", layout.faults)
    faults = layout.faults.sentences()
    if faults:
        raise InputError("; ".join(faults))
    boxes, masks = _listed(found)
    return boxes if format == "xywh" else [list(xywh_to_xyxy(box)) for box in boxes], masks


def _listed(found: Mapping[str, ImageBoxes]) -> tuple[list[Any], list[str | None] | None]:
    masks = [mask and json.dumps(mask) for boxes in found.values() for mask in boxes.masks]
    return [list(box) for boxes in found.values() for box in boxes.boxes], (
        masks if any(masks) else None
    )
