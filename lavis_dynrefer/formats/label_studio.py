"""Label Studio's tasks: with predictions and the labeling setup that shows them, and its exports.

After Label Studio's documentation of pre-annotations: boxes in percent of the image; the texts and
choices of a region carry the id of its box.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote
from xml.etree import ElementTree

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.annotation_tools.layout import (
    UNREADABLE,
    Layout,
    LayoutBuilder,
    extent,
    read_points,
)
from lavis_dynrefer.formats.image_result import (
    NO_CATEGORY,
    ImageResult,
    category_labels,
    outstanding,
    relative_box,
    top_category,
)
from lavis_dynrefer.formats.json_stream import dump_list
from lavis_dynrefer.formats.reading.faults import Faults
from lavis_dynrefer.formats.reading.records import KeyedRow, image_name, size_of
from lavis_dynrefer.formats.reading.strict_values import Row, finite_number, shown, text_of
from lavis_dynrefer.structures import RegionPrediction

# Address of a local image, followed by its path below LOCAL_FILES_DOCUMENT_ROOT. Label Studio
# serves folders in there, but not the root itself.
_LOCAL_FILES = "/data/local-files/?d="
_IMAGE = "image"
_LABEL = "label"
_REGION = "region-"  # begins the ids of our regions

TOOL = "Label Studio"
_RESULTS = ("annotations", "completions", "predictions")  # completions: before version 1
_SHAPES = (
    "labels",
    "rectanglelabels",
    "polygonlabels",
    "ellipselabels",
    "brushlabels",
    "keypointlabels",
)
_OTHER_KINDS = {
    **{"relation": "relations", "rating": "ratings", "number": "numbers"},
    **{"taxonomy": "taxonomies", "datetime": "dates", "ranker": "rankings"},
}
_LOOKS_LIKE_IMAGE = re.compile(r"\.[A-Za-z]{3,4}($|\?)")


def write_label_studio(results: Collection[ImageResult], tasks: TextIO, setup: TextIO) -> None:
    """Write one task per image (json), and the labeling setup of the project (xml).

    A region is a rectangle labelled with its category, with its caption and tags as texts and its
    outstanding attributes as choices; boxes are clipped to the image. The images are served from a
    document root, which is the folder around theirs.

    Raises:
        InputError: there is no such folder, for the images are on several drives.
    """
    folders: set[str] = set()
    categories: set[str] = set()
    attributes: set[str] = set()
    for result in results:
        folders.add(os.path.dirname(os.path.abspath(result.path)))
        for region in result.regions:
            categories.update(category_labels(region))
            attributes.update(name for name, _ in region.attributes)
    root = _document_root(folders)
    setup.write(_setup(sorted(categories), sorted(attributes)))
    dump_list((_task(result, root) for result in results), tasks)
    tasks.write("\n")


def _document_root(folders: set[str]) -> Path:
    try:
        return Path(os.path.commonpath(folders)).parent if folders else Path()
    except ValueError as error:
        raise InputError(
            f"label-studio: expected images on one drive, got {sorted(folders)[0]} and "
            f"{sorted(folders)[-1]}; Label Studio serves one folder"
        ) from error


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
        for part in _parts(result, f"{_REGION}{number}", region)
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


class _OtherKind(InputError):
    """A result that is neither a shape nor a text, a choice or a label of one; its plural."""


def is_label_studio(document: Any) -> bool:
    """Whether a json document is a list of tasks, as JSON or JSON-MIN."""
    first = document[0] if isinstance(document, list) and document else None
    if not isinstance(first, Mapping):
        return False
    has_results = any(isinstance(first.get(key), list) for key in _RESULTS)
    return ("data" in first and has_results) or any(map(_is_short, first.values()))


def read_label_studio(document: Sequence[Any]) -> Layout:
    """Read the regions of tasks, in percent of their images.

    Of a task its first annotation counts that is not cancelled, else its first prediction. A region
    is a rectangle, an ellipse or a polygon; texts named "caption" and "tags" and choices belong to
    the region of the same id.

    Raises:
        InputError: nothing in it can be used.
    """
    layout = LayoutBuilder(TOOL, "percent")
    for number, task in enumerate(document, start=1):
        where = f"task {number}"
        try:
            if not isinstance(task, Mapping):
                raise InputError(f"expected an object, got {shown(task)}")
            data = task["data"] if isinstance(task.get("data"), Mapping) else task
            name = _image_in(data)
            parts = _results_of(task, where, layout.faults)
        except InputError as error:
            layout.faults.add("tasks that cannot be read", f"{where}: {error}")
            continue
        _add_task(name, parts, where, layout)
    return layout.finish()


def _add_task(name: str, parts: Sequence[Any], where: str, layout: LayoutBuilder) -> None:
    regions: dict[Any, dict[str, Any]] = {}  # id -> what belongs to it
    told = set()  # ids of shapes that cannot be read
    size = None
    for place, part in enumerate(parts):
        key: Any = place
        try:
            if not isinstance(part, Mapping):
                raise InputError(f"expected an object, got {shown(part)}")
            value = part["value"] if isinstance(part.get("value"), Mapping) else part
            size = size or size_of(part.get("original_width"), part.get("original_height"))
            key = part["id"] if isinstance(part.get("id"), str) else place
            other_kind = _OTHER_KINDS.get(str(part.get("type")))
            if other_kind is not None:
                raise _OtherKind(other_kind)
            _take(part, value, regions.setdefault(key, {"where": f"{where}: result {place}"}))
        except _OtherKind as other:
            layout.faults.add(f"{other} of Label Studio", f"{where}: result {place}")
        except InputError as error:
            layout.faults.add(UNREADABLE, f"{where}: result {place}: {error}")
            told.add(key)
    image_id = layout.add_image(name, size)
    for key, kept in regions.items():
        place = kept.pop("where")
        kept.pop("is_region", None)
        try:
            if "corners" not in kept:
                raise InputError("no rectangle, ellipse or polygon")
            if isinstance(key, str):
                kept["region_id"] = _own_id(key)
            layout.add_region(image_id, **kept)
        except InputError as error:
            if key not in told:
                layout.faults.add(UNREADABLE, f"{place}: {error}")


def _take(part: Row, value: Row, kept: dict[str, Any]) -> None:
    """Note what one result says about its region."""
    kind = next((key for key in _SHAPES if key in value), None)
    if kind is not None and isinstance(value[kind], list) and value[kind]:
        name = text_of(value[kind][0])
        kept.setdefault("category", None if name == NO_CATEGORY else name)
    texts, about = value.get("text"), part.get("from_name")
    if isinstance(texts, list) and all(isinstance(text, str) for text in texts):
        if about == "tags":
            kept["tags"] = texts
        elif texts:
            kept["caption"] = " ".join(texts)
        return
    if isinstance(value.get("choices"), list):
        kept["attributes"] = [text_of(name) for name in value["choices"]]
        return
    if part.get("type") == "labels":  # of the shape with the same id
        return
    if "is_region" in kept:
        raise InputError("a second shape of the same id")
    kept["is_region"] = True
    for what, turn in (("a box", value.get("rotation")), ("an image", part.get("image_rotation"))):
        if finite_number(turn or 0):
            raise InputError(f"{what} that is rotated by {turn} degrees")
    if "points" in value:
        kept["corners"] = extent(read_points(value["points"]))
    elif {"x", "y", "width", "height"} <= set(value):
        x, y, width, height = (finite_number(value[key]) for key in ("x", "y", "width", "height"))
        kept["corners"] = x, y, x + width, y + height
    elif {"x", "y", "radiusX", "radiusY"} <= set(value):
        x, y, across, down = (finite_number(value[key]) for key in ("x", "y", "radiusX", "radiusY"))
        kept["corners"] = x - across, y - down, x + across, y + down


def _results_of(task: Row, where: str, faults: Faults) -> Sequence[Any]:
    """The results of one annotation or prediction of a task."""
    for key in _RESULTS:
        given = task.get(key)
        usable = [
            item
            for item in (given if isinstance(given, list) else [])
            if isinstance(item, Mapping)
            and isinstance(item.get("result"), list)
            and not item.get("was_cancelled")
        ]
        for _ in usable[1:]:
            faults.add(f"further {key} of a task", where)
        if usable:
            results: Sequence[Any] = usable[0]["result"]
            return results
    if isinstance(task.get("data"), Mapping):
        return []
    return [part for parts in task.values() if _is_short(parts) for part in parts]


def _is_short(parts: Any) -> bool:
    """Whether a value of a task in JSON-MIN is a list of regions."""
    first = parts[0] if isinstance(parts, list) and parts else None
    return isinstance(first, Mapping) and "original_width" in first


def _image_in(data: Row) -> str:
    name = image_name(data, KeyedRow(data))
    if name is None:  # under a name of the project's own
        texts = [value for value in data.values() if isinstance(value, str)]
        name = next((text for text in texts if _LOOKS_LIKE_IMAGE.search(text)), None)
    if name is None:
        raise InputError(f"no image in {shown(data)}")
    return name


def _own_id(text: str) -> int | str:
    """The id of a region that we wrote, or the tool's own."""
    number = text[len(_REGION) :] if text.startswith(_REGION) else text
    return int(number) if re.fullmatch("[0-9]{1,18}", number) else number
