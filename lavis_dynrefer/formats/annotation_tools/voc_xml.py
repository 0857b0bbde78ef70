"""Pascal VOC's xml, one file per image. A file that declares a document type is not read."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any
from xml.etree import ElementTree

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.annotation_tools.layout import UNREADABLE, LayoutBuilder
from lavis_dynrefer.formats.image_names import ANY_SUFFIX
from lavis_dynrefer.formats.reading.records import size_of
from lavis_dynrefer.formats.reading.strict_values import finite_number, refuse_turned

TOOL = "VOC"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_FROM_ONE = re.compile(r"VOC ?20[0-9][0-9]|roboflow", re.IGNORECASE)


def parse_voc(data: bytes) -> ElementTree.Element:
    """Parse a file.

    Raises:
        InputError: no xml, not VOC's, or with a document type, in which entities may expand to
            gigabytes.
    """
    parser = ElementTree.XMLParser(target=_WithoutDoctype())
    try:
        parser.feed(data)
        root: ElementTree.Element = parser.close()
    except (ElementTree.ParseError, LookupError, RecursionError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"damaged xml: {error}") from error
    if root.tag != "annotation":
        if root.tag == "annotations":
            raise InputError("CVAT's xml is not read; export the task as COCO 1.0")
        raise InputError(f"expected VOC xml with <annotation>, got <{root.tag:.40}>")
    return root


def image_of(root: ElementTree.Element) -> str | None:
    """The name of the image, "NAME.*" if it has no suffix; None if there is none."""
    name = (root.findtext("filename") or "").strip()
    return name if "." in name or not name else name + ANY_SUFFIX


def add_voc(
    root: ElementTree.Element, name: str, where: str, layout: LayoutBuilder, folder: str = ""
) -> None:
    """Add the objects of a file.

    VOC itself and Roboflow, which the file names as its database, count pixels from 1, and xmax and
    ymax are the last ones of the object: there 1 is subtracted from xmin and ymin, unless one of
    them is below 1. LabelImg, CVAT, Label Studio and Datumaro write coordinates from 0: these are
    taken as they are.

    Args:
        root: the file.
        name: of the image.
        where: name of the file, for messages.
        layout: gets the image and its regions, and the objects without a box as faults.
        folder: of the image, as far as that of the file tells it.

    Raises:
        InputError: an invalid size.
    """
    size = size_of(_text(root, "size/width"), _text(root, "size/height"))
    image_id = layout.add_image(name, size, folder=folder, given_name=image_of(root) or "")
    offset = _first_pixel(root)
    for number, item in enumerate(root.iter("object"), start=1):
        corners = [_text(item, f"bndbox/{name}") for name in _CORNERS]
        try:
            if None in corners:
                raise InputError(_without_box(item))
            for noted in item.iter("attribute"):  # of CVAT
                if _text(noted, "name") == "rotation":
                    refuse_turned(_text(noted, "value"))
            x1, y1, x2, y2 = map(finite_number, corners)
            category = _text(item, "name")
            layout.add_region(
                image_id, (x1 - offset, y1 - offset, x2, y2), category=category or None
            )
        except InputError as error:
            layout.faults.add(UNREADABLE, f"{where}: object {number}: {error}")


def _first_pixel(root: ElementTree.Element) -> int:
    """The number of the first column and row of pixels, 0 or 1."""
    sources = (_text(root, f"source/{name}") or "" for name in ("database", "annotation"))
    if not any(map(_FROM_ONE.search, sources)):
        return 0
    starts = [
        _text(item, f"bndbox/{name}") for item in root.iter("object") for name in _CORNERS[:2]
    ]
    with suppress(InputError):  # named where it is read
        return int(all(finite_number(start) >= 1 for start in starts if start is not None))
    return 1


def _without_box(item: ElementTree.Element) -> str:
    found = next((name for name in ("robndbox", "polygon") if item.find(name) is not None), None)
    expected = "no bndbox with xmin, ymin, xmax and ymax"
    what = {"robndbox": ", but a rotated box", "polygon": ", but a polygon, as of LabelMe's xml"}
    return expected + what.get(found or "", "")


def _text(element: ElementTree.Element, path: str) -> str | None:
    text = element.findtext(path)
    return None if text is None else text.strip()


class _WithoutDoctype(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: Any, system: Any) -> None:
        del name, pubid, system
        raise InputError("it declares a document type, which is not read; remove <!DOCTYPE ...>")
