"""SA-1B's json: an image and its masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lavis_dynrefer.formats.annotation_tools.layout import Layout

TOOL = "SA-1B"


def is_sa1b(document: Any) -> bool:
    """Whether a json document is a file of SA-1B."""
    return (
        isinstance(document, Mapping)
        and isinstance(document.get("image"), Mapping)
        and isinstance(document.get("annotations"), list)
    )


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
