"""Pascal VOC's xml, one file per image. A file that declares a document type is not read."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.annotation_tools.layout import UNREADABLE, LayoutBuilder
from lavis_dynrefer.formats.image_names import ANY_SUFFIX
from lavis_dynrefer.formats.reading.records import size_of

TOOL = "VOC"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


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
        cure = "; export CVAT's as COCO" if root.tag == "annotations" else ""
        raise InputError(f"expected VOC xml with <annotation>, got <{root.tag:.40}>{cure}")
    return root


def image_of(root: ElementTree.Element) -> str | None:
    """The name of the image, "NAME.*" if it has no suffix; None if there is none."""
    name = (root.findtext("filename") or "").strip()
    return name if "." in name or not name else name + ANY_SUFFIX


def add_voc(root: ElementTree.Element, name: str, where: str, layout: LayoutBuilder) -> None:
    """Add the objects of a file. Numbers are taken as they are, though VOC's own begin at 1.

    Args:
        root: the file.
        name: of the image.
        where: name of the file, for messages.
        layout: gets the image and its regions, and the objects without a box as faults.

    Raises:
        InputError: an invalid size.
    """
    size = size_of(_text(root, "size/width"), _text(root, "size/height"))
    image_id = layout.add_image(name, size)
    for number, item in enumerate(root.iter("object"), start=1):
        corners = [_text(item, f"bndbox/{name}") for name in _CORNERS]
        try:
            if None in corners:
                raise InputError("no bndbox with xmin, ymin, xmax and ymax")
            category = _text(item, "name")
            layout.add_region(image_id, corners, category=category or None)
        except InputError as error:
            layout.faults.add(UNREADABLE, f"{where}: object {number}: {error}")


def _text(element: ElementTree.Element, path: str) -> str | None:
    text = element.findtext(path)
    return None if text is None else text.strip()


class _WithoutDoctype(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: Any, system: Any) -> None:
        del name, pubid, system
        raise InputError("it declares a document type, which is not read; remove <!DOCTYPE ...>")
