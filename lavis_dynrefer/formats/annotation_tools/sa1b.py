"""SA-1B's json, one file per image: its masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.annotation_tools.layout import UNREADABLE, Layout, LayoutBuilder
from lavis_dynrefer.formats.reading.records import size_of
from lavis_dynrefer.formats.reading.strict_values import text_of

TOOL = "SA-1B"


def is_sa1b(document: Any) -> bool:
    """Whether a json document is a file of SA-1B."""
    return (
        isinstance(document, Mapping)
        and isinstance(document.get("image"), Mapping)
        and isinstance(document.get("annotations"), list)
    )


def image_of(document: Mapping[str, Any]) -> str | None:
    """The name of the image; None if the file does not give it."""
    return text_of(document["image"].get("file_name") or "") or None


def add_sa1b(
    document: Mapping[str, Any], name: str, where: str, layout: LayoutBuilder, folder: str = ""
) -> None:
    """Add the masks of a file.

    Args:
        document: the file.
        name: of the image.
        where: name of the file, for messages.
        layout: gets the image and its regions.
        folder: of the image, as far as that of the file tells it.

    Raises:
        InputError: the size of the image is none.
    """
    image = document["image"]
    size = size_of(image.get("width"), image.get("height"))
    image_id = layout.add_image(name, size, folder=folder, given_name=image_of(document) or "")
    for number, row in enumerate(document["annotations"]):
        try:
            layout.add_row(image_id, row)
        except InputError as error:
            layout.faults.add(UNREADABLE, f"{where}: annotations[{number}]: {error}")


def read_sa1b(document: Mapping[str, Any]) -> Layout:
    """The image and its annotations, which are COCO's without the number of their image."""
    image_id = document["image"].get("image_id", 1)
    return Layout(
        TOOL,
        {
            "images": [{**document["image"], "id": image_id}],
            "annotations": [
                {**row, "image_id": image_id} if isinstance(row, Mapping) else row
                for row in document["annotations"]
            ],
        },
        units="pixels",
    )
