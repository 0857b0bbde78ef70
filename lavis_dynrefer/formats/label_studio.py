"""Label Studio's tasks with predictions, and the labeling setup that shows them.

After Label Studio's documentation of pre-annotations: boxes in percent of the image; the texts and
choices of a region carry the id of its box.
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
    category_labels,
    outstanding,
    relative_box,
    top_category,
)
from lavis_dynrefer.formats.json_stream import dump_list
from lavis_dynrefer.structures import RegionPrediction

# Address of a local image, followed by its path below LOCAL_FILES_DOCUMENT_ROOT. Label Studio
# serves folders in there, but not the root itself.
_LOCAL_FILES = "/data/local-files/?d="
_IMAGE = "image"
_LABEL = "label"


def write_label_studio(results: Collection[ImageResult], tasks: TextIO, setup: TextIO) -> None:
    """Write one task per image (json), and the labeling setup of the project (xml).

    A region is a rectangle labelled with its category, with its caption and tags as texts and its
    outstanding attributes as choices; boxes are clipped to the image. The images are served from a
    document root, which is the folder around theirs.
    """
    folders: set[str] = set()
    categories: set[str] = set()
    attributes: set[str] = set()
    for result in results:
        folders.add(os.path.dirname(os.path.abspath(result.path)))
        for region in result.regions:
            categories.update(category_labels(region))
            attributes.update(name for name, _ in region.attributes)
    setup.write(_setup(sorted(categories), sorted(attributes)))
    root = Path(os.path.commonpath(folders)).parent if folders else Path()
    dump_list((_task(result, root) for result in results), tasks)
    tasks.write("\n")


def _setup(categories: list[str], attributes: list[str]) -> str:
    view = ElementTree.Element("View")
    add = ElementTree.SubElement
    add(view, "Image", name=_IMAGE, value="$image")
    labels = add(view, "RectangleLabels", name=_LABEL, toName=_IMAGE)
    for name in categories or [NO_CATEGORY]:
        add(labels, "Label", value=name)
    for name in ("caption", "tags"):
        add(view, "TextArea", name=name, toName=_IMAGE, perRegion="true", editable="true")
    if attributes:
        choices = add(
            view, "Choices", name="attributes", toName=_IMAGE, perRegion="true", choice="multiple"
        )
        for name in attributes:
            add(choices, "Choice", value=name)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def _task(result: ImageResult, root: Path) -> dict[str, Any]:
    path = Path(os.path.relpath(result.path, root)).as_posix()
    parts = [
        part
        for number, region in zip(result.ids, result.regions)
        for part in _parts(result, f"region-{number}", region)
    ]
    return {
        "data": {"image": _LOCAL_FILES + quote(path, errors="surrogateescape")},
        "predictions": [{"model_version": "lavis_dynrefer", "result": parts}],
    }


def _parts(
    result: ImageResult, region_id: str, region: RegionPrediction
) -> Iterator[dict[str, Any]]:
    """The rectangle, then what belongs to it."""
    percent = (100 * value for value in relative_box(result, region))
    place = {**dict(zip(("x", "y", "width", "height"), percent)), "rotation": 0}
    category, share = top_category(region)

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
