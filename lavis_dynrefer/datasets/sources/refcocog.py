"""RefCOCOg (umd split): one expression, one region, from refs(umd).p and instances.json."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lavis_dynrefer.datasets.sources.annotation_rows import rows_by_id
from lavis_dynrefer.datasets.sources.coco_layout import ImageRows, list_of_rows
from lavis_dynrefer.datasets.sources.raw_files import ImageFolder, RawFile, read_json
from lavis_dynrefer.datasets.sources.region_collector import RegionCollector, Stores, in_memory
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.reading.strict_values import (
    ROW_ERRORS,
    Row,
    shown,
    text_of,
    whole_number,
    xyxy,
)
from lavis_dynrefer.structures import RegionRecord, RegionSet

_SITE = "https://github.com/lichengunc/refer (refcocog.zip)"
REFS = RawFile("refs", "refcocog/refs(umd).p", _SITE)
INSTANCES = RawFile("instances", "refcocog/instances.json", _SITE)
IMAGES = RawFile("images.storage", "train2014", "https://cocodataset.org/#download (train2014.zip)")
SPLITS = ("train", "val", "test")
_KEYS = ("images", "annotations")
# What a damaged pickle raises, or a folder instead of it.
_PICKLE_ERRORS = (
    pickle.UnpicklingError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    OverflowError,
    MemoryError,
    RecursionError,
)


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, dictionaries, strings and numbers only; a pickle could run any program."""

    def find_class(self, module_name: str, global_name: str) -> NoReturn:
        raise pickle.UnpicklingError(
            f"it asks for {module_name}.{global_name}; a list of references needs no class"
        )


def read_refcocog(
    refs: str | Path,
    instances: str | Path,
    images: str | Path,
    *,
    splits: Sequence[str] = SPLITS,
    name: str = "refcocog-umd",
    stores: Stores = in_memory,
) -> dict[str, RegionSet]:
    """Split name -> regions; every sentence is one region, with `sent_id` as region id.

    Args:
        refs: pickle of the references; refused if it holds more than plain data.
        instances: json with the boxes, in COCO's layout.
        name: the split is appended.
    """
    collectors = {split: RegionCollector(f"{name}-{split}", split, stores) for split in splits}
    references = _read_refs(refs)
    document = read_json(instances, INSTANCES)
    every = list(collectors.values())
    listed, annotations = (list_of_rows(document, key, INSTANCES) for key in _KEYS)
    image_rows = ImageRows(
        rows_by_id(listed, "entry of 'images'", INSTANCES, every), ImageFolder(images, IMAGES)
    )
    boxes = rows_by_id(annotations, "entry of 'annotations'", INSTANCES, every)
    found: set[str] = set()
    for split, reference in _with_splits(references, every):
        found.add(split)
        if split in collectors:
            _add_sentences(collectors[split], reference, boxes, image_rows)
    absent = [split for split in splits if split not in found]
    if absent:
        raise REFS.error(
            f"{refs} has references of {sorted(found)}, none of {absent}; the umd partition, "
            "refs(umd).p, has all three"
        )
    return {split: collector.finish() for split, collector in collectors.items()}


def _with_splits(
    references: Sequence[Any], collectors: Sequence[RegionCollector]
) -> Iterator[tuple[str, Row]]:
    """Each reference and its split; one without a split is counted in all, as any may miss it."""
    for reference in references:
        split = reference.get("split") if isinstance(reference, dict) else None
        if isinstance(split, str):
            yield split, reference
            continue
        for collector in collectors:
            collector.leave_out("unreadable_entry", f"reference {shown(reference)}", None)


def _read_refs(path: str | Path) -> list[Any]:
    REFS.require(path)
    try:
        # Written by Python 2, whose strings are bytes.
        content = io.BytesIO(Path(path).read_bytes())
        references = _PlainUnpickler(content, encoding="utf-8").load()
    except _PICKLE_ERRORS as error:
        raise REFS.error(f"{path} is not a list of references: {error}") from error
    if not isinstance(references, list):
        raise REFS.error(f"{path}: expected a list of references, got {shown(references)}")
    return references


def _add_sentences(
    collector: RegionCollector, reference: Row, boxes: Mapping[int, Row], images: ImageRows
) -> None:
    sentences = reference.get("sentences")
    if not isinstance(sentences, (list, tuple)) or not sentences:
        detail = f"reference {shown(reference)} has no list of sentences"
        collector.leave_out("unreadable_record", detail, None)
        return
    for row in sentences:
        try:
            region = _region(reference, row, boxes)
        except ROW_ERRORS as error:
            detail = f"sentence {shown(row)} of reference {shown(reference)}: {error!r}"
            collector.leave_out("unreadable_record", detail, None)
            continue
        collector.add(region, images.get(region.image_id))


def _region(reference: Row, sentence: Row, boxes: Mapping[int, Row]) -> RegionRecord:
    """One sentence with the box of its reference; raises `ROW_ERRORS`."""
    image_id, ann_id = whole_number(reference["image_id"]), whole_number(reference["ann_id"])
    if ann_id not in boxes:
        raise InputError(f"annotation {ann_id} is not in instances.json")
    marked = whole_number(boxes[ann_id].get("image_id", image_id))
    if marked != image_id:
        raise InputError(f"annotation {ann_id} is on image {marked}, not {image_id}")
    region_id, text = whole_number(sentence["sent_id"]), text_of(sentence["sent"])
    return RegionRecord(region_id, image_id, xyxy(boxes[ann_id]["bbox"]), text)
