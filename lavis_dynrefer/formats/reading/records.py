"""Records of unknown programs: under which keys they name their image, its size and their box."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.reading.strict_values import (
    finite_number,
    refuse_turned,
    shown,
    side_length,
)

Size = tuple[int, int]

# Keys and columns as `plain_key` writes them; the first one present counts.
_IMAGE_KEYS = (
    *("image", "picture", "filename", "imagefilename", "imgfilename", "imagefile", "imgfile"),
    *("imagename", "imgname", "imagepath", "imgpath", "img", "photo", "filepath", "file", "path"),
    "imageid",  # a number in COCO's files; these come here only if it is a name
)
_WIDTH_KEYS = ("imagewidth", "imgwidth", "imgw", "width")
_HEIGHT_KEYS = ("imageheight", "imgheight", "imgh", "height")
_ID_KEYS = ("id", "region", "regionid", "boxid")
_BOX_KEYS = ("box", "bbox", "bbox2d", "bndbox", "boundingbox")
_MANY_KEYS = ("boxes", "bboxes")

CORNERS = ("x1", "y1", "x2", "y2")
BOX_COLUMNS: Mapping[tuple[str, ...], str] = {
    CORNERS: "xyxy",
    ("xmin", "ymin", "xmax", "ymax"): "xyxy",
    ("left", "top", "right", "bottom"): "xyxy",
    ("x", "y", "w", "h"): "xywh",
    ("x", "y", "width", "height"): "xywh",
    ("left", "top", "width", "height"): "xywh",
    ("xcenter", "ycenter", "width", "height"): "xywh",
    ("xcenter", "ycenter", "w", "h"): "xywh",
    ("cx", "cy", "w", "h"): "xywh",
    ("cx", "cy", "width", "height"): "xywh",
}
_SAYING_KEYS = ("bboxmode", "bboxformat", "boxmode", "boxformat")
_SAID = {
    **{"0": "xyxy", "xyxy": "xyxy", "xyxyabs": "xyxy", "pascalvoc": "xyxy", "voc": "xyxy"},
    **{"1": "xywh", "xywh": "xywh", "xywhabs": "xywh", "coco": "xywh"},
}
_SAM = {"predictediou", "stabilityscore"}  # beside x, y, width, height of SAM's masks
_TURN_KEYS = ("angle", "rotation", "theta")
_CENTRES = ("xcenter", "cx")
_ROBOFLOW = ("confidence", "class", "classid")  # beside x and y of the centre
_NO_LETTER = re.compile(r"[^a-z0-9]")


def plain_key(key: object) -> str:
    """A key without case and separators.

    >>> plain_key("Img_Filename "), plain_key("bbox-2d")
    ('imgfilename', 'bbox2d')
    """
    return _NO_LETTER.sub("", str(key).lower())


class KeyedRow:
    """A record or the header of a table: its keys by meaning.

    Args:
        keys: as the file spells them.

    Attributes:
        corners: keys of a box that is spread over four of them.
        format: of these, "xyxy" or "xywh"; None without them.
        is_centred: whether x and y are the centre of the box, as Roboflow's predictions have them.
    """

    def __init__(self, keys: Iterable[Any]) -> None:
        plain: dict[str, Any] = {}
        for key in keys:
            plain.setdefault(plain_key(key), key)
        self._plain = plain
        names = next((names for names in BOX_COLUMNS if set(names) <= set(plain)), ())
        self.corners = tuple(plain[name] for name in names)
        self.format = BOX_COLUMNS[names] if names else None
        is_roboflow = names == ("x", "y", "width", "height") and set(_ROBOFLOW) <= set(plain)
        self.is_centred = is_roboflow or names[:1] in [(name,) for name in _CENTRES]
        sides = [name for name in (*_WIDTH_KEYS, *_HEIGHT_KEYS) if name not in names]
        self.image = self._first(_IMAGE_KEYS)
        self.id = self._first(_ID_KEYS)
        self.width = self._first(name for name in _WIDTH_KEYS if name in sides)
        self.height = self._first(name for name in _HEIGHT_KEYS if name in sides)
        self.box = self._first(_BOX_KEYS)
        self.boxes = self._first(_MANY_KEYS)

    def said(self, row: Mapping[Any, Any]) -> str | None:
        """The format of a `box` that is a list, "xyxy" or "xywh"; None if nothing says it.

        Raises:
            InputError: a key for it has another value.
        """
        key = self._first(_SAYING_KEYS)
        if key is None:
            plain = plain_key(row[self._plain["format"]]) if "format" in self._plain else ""
            return "xywh" if set(self._plain) >= _SAM else _SAID.get(plain)
        plain = plain_key(row[key])
        found = _SAID.get(plain[len("boxmode") :] if plain.startswith("boxmode") else plain)
        if found is None:
            raise InputError(f"{key}: expected xyxy or xywh, got {shown(row[key])}")
        return found

    def check_turn(self, row: Mapping[Any, Any]) -> None:
        """Refuse a box that is rotated.

        Raises:
            InputError: the record has an angle that is not 0.
        """
        key = self._first(_TURN_KEYS)
        if key is not None:
            refuse_turned(row.get(key))

    def box_of(self, values: Sequence[Any]) -> list[Any]:
        """A box from the values under `corners`, in `format`.

        Raises:
            InputError: values that are no numbers, of a box around its centre.
        """
        if not self.is_centred:
            return list(values)
        x, y, width, height = map(finite_number, values)
        return [x - width / 2, y - height / 2, width, height]

    def _first(self, names: Iterable[str]) -> Any:
        return next((self._plain[name] for name in names if name in self._plain), None)


def image_name(row: Mapping[Any, Any], keys: KeyedRow) -> str | None:
    """The image that a record names; None if it names none.

    Raises:
        InputError: there is a key for it, with something else than a name.
    """
    value = row.get(keys.image) if keys.image is not None else None
    if isinstance(value, Mapping):  # of Hugging Face's datasets: {"bytes": ..., "path": ...}
        value = value.get("path")
    if value is None or (plain_key(keys.image) == "imageid" and not isinstance(value, str)):
        return None
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{keys.image}: expected the name of an image, got {shown(value)}")
    return value


def image_size(
    row: Mapping[Any, Any], keys: KeyedRow, corners: Sequence[float] | None = None
) -> Size | None:
    """Width and height of the image, if the record gives both.

    Args:
        row: the record.
        keys: its keys.
        corners: the box of the record, x1, y1, x2, y2; a width and height that are those of the
            box say nothing about the image.

    Raises:
        InputError: they are no numbers of pixels.
    """
    sides = [row.get(key) if key is not None else None for key in (keys.width, keys.height)]
    if corners is not None and keys.format == "xyxy":
        try:
            width, height = map(finite_number, sides)
        except InputError:
            return size_of(*sides)
        x1, y1, x2, y2 = corners
        if abs(x2 - x1 - width) <= 1 and abs(y2 - y1 - height) <= 1:
            return None
    return size_of(*sides)


def size_of(width: Any, height: Any) -> Size | None:
    """A size as a file gives it; None if it gives none or, as some tools do, zeros.

    Raises:
        InputError: not numbers of pixels.

    >>> size_of("640", 480), size_of(0, 0), size_of(None, 480)
    ((640, 480), None, None)
    """
    unsaid = (None, "", 0, "0")
    if width in unsaid or height in unsaid:
        return None
    try:
        return side_length(width), side_length(height)
    except InputError as error:
        raise InputError(f"width and height: {error}") from error
