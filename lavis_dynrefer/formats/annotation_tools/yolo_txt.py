"""YOLO's txt, one file per image, in fractions of it; class names from a yaml or a list."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.annotation_tools.layout import UNREADABLE, LayoutBuilder
from lavis_dynrefer.formats.reading.strict_values import finite_number, shown, whole_number
from lavis_dynrefer.formats.reading.text_file import read_text
from lavis_dynrefer.images.boxes import SLACK
from lavis_dynrefer.structures import Box

logger = logging.getLogger(__name__)

TOOL = "YOLO"
_LISTS = ("classes.txt", "obj.names", "labels.txt", "predefined_classes.txt")
YAML_SUFFIXES = (".yaml", ".yml")


def is_yolo(text: str) -> bool:
    """Whether the first line has a class and at least four numbers, separated by blanks."""
    first = next((line.split() for line in text.splitlines() if line.strip()), [])
    return bool(first) and _is_row(first)


def is_list_of_classes(path: Path) -> bool:
    """Whether a file has the names of the classes rather than boxes."""
    return path.name.lower() in _LISTS


class Classes:
    """The names of the classes.

    Args:
        folder: of the boxes; the names are looked for there and in two folders above.
    """

    def __init__(self, folder: Path) -> None:
        self.names: dict[int, str] = {}
        self.has_keypoints = False
        for place in (folder, *list(folder.absolute().parents)[:2]):
            paths = sorted(place.glob("*")) if place.is_dir() else []
            for path in paths:
                if path.suffix.lower() in YAML_SUFFIXES and not self.names:
                    self._read_yaml(path)
                    source = path
            for path in filter(is_list_of_classes, paths):
                if not self.names:
                    lines = read_text(path, "a list of classes").splitlines()
                    self.names = dict(enumerate(line.strip() for line in lines))
                    source = path
            if self.names:
                logger.info("names of %d classes: %s", len(self.names), source)
                return
        logger.warning(
            "%s: no names of classes (data.yaml, classes.txt) here or in two folders above; they "
            "are called 'class 0', 'class 1', ...",
            folder,
        )

    def __getitem__(self, number: int) -> str:
        return self.names.get(number) or f"class {number}"

    def _read_yaml(self, path: Path) -> None:
        try:
            content = yaml.safe_load(read_text(path, "yaml"))
        except (InputError, RecursionError, ValueError, yaml.YAMLError):
            return  # not the yaml of this dataset
        names = content.get("names") if isinstance(content, Mapping) else None
        if isinstance(names, list):
            names = dict(enumerate(names))
        if isinstance(names, Mapping):
            self.names = {key: str(name) for key, name in names.items() if type(key) is int}
            self.has_keypoints = "kpt_shape" in content


def add_yolo(
    text: str, name: str, where: str, classes: Classes, layout: LayoutBuilder, folder: str = ""
) -> None:
    """Add the boxes of a file: class, centre, width and height; or class and corners of a polygon.

    A box may be followed by its confidence, the number of its track or both. Keypoints after it are
    known by the yaml (`kpt_shape`), or by their visibilities 0, 1 and 2.

    Args:
        text: the file; without a line it is an image without regions.
        name: of the image.
        where: name of the file, for messages.
        classes: names of the classes.
        layout: gets the image and its regions, and the lines that cannot be read as faults.
        folder: of the image, as far as that of the file tells it.
    """
    image_id = layout.add_image(name, folder=folder)
    for number, line in enumerate(text.splitlines(), start=1):
        cells = line.split()
        if not cells:
            continue
        try:
            numbers = [finite_number(cell) for cell in cells[1:]]
            is_box = _is_box(numbers, classes.has_keypoints)
            places = numbers[:4] if is_box else numbers
            if places and not -SLACK <= min(places) <= max(places) <= 1 + SLACK:
                raise InputError(f"expected fractions of the image, got {shown(line)}")
            corners = _box(places) if is_box else _extent(places)
            category = classes[whole_number(cells[0])]
            layout.add_region(image_id, corners, category=category)
        except InputError as error:
            layout.faults.add(UNREADABLE, f"{where}: line {number}: {error}")


def _is_box(numbers: Sequence[float], has_keypoints: bool) -> bool:
    """Whether a row begins with a box, rather than being a polygon.

    Raises:
        InputError: it may be either.
    """
    count = len(numbers)
    if count in (4, 5) or (count > 5 and has_keypoints):
        return True
    if count == 6 and numbers[5].is_integer():
        if numbers[5] in (0, 1):
            raise InputError(
                "a triangle, or a box with a confidence and a track id? Remove the track id"
            )
        return numbers[5] > 1
    if count < 7 or (count - 4) % 3 or not set(numbers[6::3]) <= {0, 1, 2}:
        return False
    x1, y1, x2, y2 = _box(numbers[:4])
    points = zip(numbers[4::3], numbers[5::3], numbers[6::3])
    return all(x1 <= x <= x2 and y1 <= y <= y2 for x, y, is_seen in points if is_seen)


def _box(numbers: Sequence[float]) -> Box:
    x, y, width, height = numbers
    if width < 0 or height < 0:
        raise InputError(f"expected a width and a height, got {width} and {height}")
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _extent(numbers: Sequence[float]) -> Box:
    count = len(numbers)
    if count < 6 or count % 2:
        cure = "; a polygon has no confidence" if count > 6 else ""
        raise InputError(
            f"expected a class and 4 numbers, or x and y of corners, got {count} numbers{cure}"
        )
    return min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])


def _is_row(cells: Sequence[Any]) -> bool:
    try:
        whole_number(cells[0])
        return len([finite_number(cell) for cell in cells[1:]]) >= 4
    except InputError:
        return False
