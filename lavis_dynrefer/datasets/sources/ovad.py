"""OVAD: boxes on COCO val2017 images with 117 attributes: present, absent or unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lavis_dynrefer.datasets.sources.coco_layout import (
    category_of,
    collect_regions,
    read_categories,
)
from lavis_dynrefer.datasets.sources.raw_files import RawFile, read_json
from lavis_dynrefer.datasets.sources.region_collector import RegionCollector, Stores, in_memory
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.reading.strict_values import Row, shown, text_of, whole_number
from lavis_dynrefer.structures import AttributeInfo, ImageRecord, RegionSet
from lavis_dynrefer.vocab.prompts import parse_attributes

ANNOTATIONS = RawFile("annotations", "ovad2000.json", "https://ovad-benchmark.github.io")
IMAGES = RawFile("images.storage", "val2017", "https://cocodataset.org/#download (val2017.zip)")
LABELS = frozenset({1, 0, -1})


def read_ovad(
    annotations: str | Path,
    images: str | Path,
    *,
    name: str = "ovad-14300",
    split: str = "val",
    stores: Stores = in_memory,
) -> RegionSet:
    """Every box with its attribute labels and its category."""
    document = read_json(annotations, ANNOTATIONS)
    try:
        attributes = _attributes(document.get("attributes"))
    except ValueError as error:
        raise ANNOTATIONS.error(f"{annotations} is not an OVAD file: {error}") from error
    categories = read_categories(document, ANNOTATIONS)

    def describe(row: Row, image: ImageRecord | None) -> dict[str, Any]:
        del image
        return {
            "attributes": _labels(row["att_vec"], len(attributes)),
            "category": category_of(row, categories),
        }

    collector = RegionCollector(name, split, stores)
    collect_regions(document, images, collector, describe, ANNOTATIONS)
    return collector.finish(attributes=attributes, category_names=tuple(categories.values()))


def _attributes(rows: Any) -> tuple[AttributeInfo, ...]:
    """The vocabulary.

    Raises:
        ValueError: it is empty, an entry is of another kind, or two have the same name.
    """
    attributes = parse_attributes(rows)
    names = [text_of(item.name) for item in attributes]
    for item in attributes:
        for value in vars(item).values():
            text_of(value)
    if not names or len(set(names)) < len(names):
        raise InputError(f"attributes: expected different names, got {shown(names)}")
    return attributes


def _labels(vector: Any, size: int) -> tuple[int, ...]:
    if not isinstance(vector, list) or len(vector) != size:
        raise InputError(f"att_vec: expected {size} labels, got {shown(vector)}")
    labels = tuple(map(whole_number, vector))
    if not LABELS.issuperset(labels):
        raise InputError(f"att_vec: expected labels of 1, 0 or -1, got {shown(labels)}")
    return labels
