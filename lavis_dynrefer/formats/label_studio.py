"""Label Studio's tasks with predictions, and the labelling set-up that shows them.

Layout after Label Studio's documentation of pre-annotations: boxes in percent of the image; the
texts and choices of a region carry the id of its box.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote
from xml.etree import ElementTree

from lavis_dynrefer.formats.image_result import (
    NO_CATEGORY,
    ImageResult,
    best_category,
    outstanding,
    relative_box,
)
from lavis_dynrefer.formats.json_stream import dump_list
from lavis_dynrefer.structures import RegionPrediction

# Where Label Studio serves the images of local folders: after it comes the path below its
# LOCAL_FILES_DOCUMENT_ROOT. A project may be shown folders in there, but not the root itself.
LOCAL_FILES = "/data/local-files/?d="
_IMAGE = "image"
_LABEL = "label"


def to_label_studio(
    results: Collection[ImageResult], *, prefix: str | None = None
) -> list[dict[str, Any]]:
    """One task per image.

    A region is a rectangle labelled with its category, with its caption and tags as texts and the
    attributes that stand out as choices.

    Args:
        results: what to show; boxes are cut at the edges of the image.
        prefix: goes before an image's name to make its address. None: Label Studio serves the
            images as local files, and its document root is the folder around theirs.
    """
    return list(_tasks(results, prefix))


def write_tasks(results: Collection[ImageResult], file: TextIO) -> None:
    """Write what `to_label_studio` returns, image by image."""
    dump_list(_tasks(results, None), file)
    file.write("\n")


def document_root(results: Collection[ImageResult]) -> Path:
    """The folder around the one that holds all images."""
    folders = {os.path.dirname(os.path.abspath(result.path)) for result in results}
    return Path(os.path.commonpath(folders)).parent if folders else Path()


def label_config(results: Collection[ImageResult]) -> str:
    """The labelling set-up, xml: paste it into a new project's settings before the import."""
    categories = {
        name
        for result in results
        for region in result.regions
        for name, _ in region.categories or ((NO_CATEGORY, 0.0),)
    }
    attributes = {
        name for result in results for region in result.regions for name, _ in region.attributes
    }
    view = ElementTree.Element("View")
    _add(view, "Image", name=_IMAGE, value="$image")
    labels = _add(view, "RectangleLabels", name=_LABEL, toName=_IMAGE)
    for name in sorted(categories) or [NO_CATEGORY]:
        _add(labels, "Label", value=name)
    for name in ("caption", "tags"):
        _add(view, "TextArea", name=name, toName=_IMAGE, perRegion="true", editable="true")
    if attributes:
        choices = _add(
            view, "Choices", name="attributes", toName=_IMAGE, perRegion="true", choice="multiple"
        )
        for name in sorted(attributes):
            _add(choices, "Choice", value=name)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def _tasks(results: Collection[ImageResult], prefix: str | None) -> Iterator[dict[str, Any]]:
    root = document_root(results) if prefix is None else Path()
    for result in results:
        if prefix is None:
            address = LOCAL_FILES + _quoted(Path(os.path.relpath(result.path, root)).as_posix())
        else:
            address = prefix + _quoted(result.image)
        regions = [
            part
            for number, region in zip(result.ids, result.regions)
            for part in _parts(result, f"region-{number}", region)
        ]
        yield {
            "data": {"image": address},
            "predictions": [{"model_version": "lavis_dynrefer", "result": regions}],
        }


def _quoted(path: str) -> str:
    return quote(path, errors="surrogateescape")


def _parts(
    result: ImageResult, region_id: str, region: RegionPrediction
) -> Iterator[dict[str, Any]]:
    """The rectangle, then what belongs to it."""
    percent = (100 * share for share in relative_box(result, region))
    place = {**dict(zip(("x", "y", "width", "height"), percent)), "rotation": 0}
    category, share = best_category(region)

    def part(name: str, kind: str, key: str, values: list[str]) -> dict[str, Any]:
        return {
            "id": region_id,
            "from_name": name,
            "to_name": _IMAGE,
            "type": kind,
            "original_width": result.width,
            "original_height": result.height,
            "image_rotation": 0,
            "value": {**place, key: values},
        }

    rectangle = part(_LABEL, "rectanglelabels", "rectanglelabels", [category])
    yield rectangle if share is None else {**rectangle, "score": share}
    if region.caption is not None:
        yield part("caption", "textarea", "text", [region.caption])
    if region.tags:
        yield part("tags", "textarea", "text", [name for name, _ in region.tags])
    chosen = outstanding(region.attributes)
    if chosen:
        yield part("attributes", "choices", "choices", chosen)


def _add(parent: ElementTree.Element, tag: str, **attributes: str) -> ElementTree.Element:
    return ElementTree.SubElement(parent, tag, attributes)
