"""The file of a custom dataset, of any annotation tool, made into what the tables can keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lavis_dynrefer.datasets.sources.raw_files import RawFile
from lavis_dynrefer.errors import InputError, MissingFileError
from lavis_dynrefer.formats.annotation_tools.layout import Layout
from lavis_dynrefer.formats.annotation_tools.tool_files import read_layout
from lavis_dynrefer.formats.reading.coco_rows import whole_ids


def read_annotations(path: str | Path, source: RawFile, units: str | None) -> Layout:
    """Read a file or folder; ids become numbers, and each annotation has one caption.

    Args:
        path: of the file, or of a folder of a tool's files.
        source: what it is, for errors.
        units: what the user says the boxes are in.

    Raises:
        DatasetError: missing, damaged, of no known tool, or in other units than `units`.
    """
    try:
        layout = read_layout(path)
    except MissingFileError as error:
        raise source.error(
            f"{source.setting}: no file or folder {Path(path).absolute()}"
        ) from error
    except InputError as error:
        raise source.error(f"{path}: {error}") from error
    except OSError as error:
        raise source.error(f"{path} cannot be read: {error}") from error
    if layout.units is not None and units not in (None, layout.units):
        raise source.error(f"{path}: files of {layout.tool} are in {layout.units}, not in {units}")
    document = _one_caption_each(whole_ids(layout.document))
    return replace(layout, document=document, units=units or layout.units)


def _one_caption_each(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Annotations with a list of captions become several, the first of which keeps the id."""
    rows = document["annotations"]
    if not isinstance(rows, list) or not any(map(_captions, rows)):
        return document
    ids = [row["id"] for row in rows if isinstance(row, Mapping) and type(row.get("id")) is int]
    new_id = max(ids, default=0)
    found: list[Any] = []
    for row in rows:
        captions = _captions(row)
        if captions is None:
            found.append(row)
            continue
        first, *others = captions
        found.append({**row, "caption": first})
        for caption in others:
            new_id += 1
            found.append({**row, "caption": caption, "id": new_id})
    return {**document, "annotations": found}


def _captions(row: Any) -> list[str] | None:
    """The captions of an annotation that has a list of them."""
    if not isinstance(row, Mapping):
        return None
    captions = row.get("captions") if row.get("caption") is None else row["caption"]
    is_list = isinstance(captions, list) and len(captions) > 0
    return captions if is_list and all(isinstance(text, str) for text in captions) else None
