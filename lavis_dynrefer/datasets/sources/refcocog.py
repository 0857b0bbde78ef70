"""RefCOCOg (umd split): one expression, one region, from refs(umd).p and instances.json."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lavis_dynrefer.datasets.sources.coco import find_picture, xyxy
from lavis_dynrefer.datasets.sources.collector import RegionCollector, Stores, in_memory
from lavis_dynrefer.datasets.sources.raw_files import PictureFolder, RawFile, read_json
from lavis_dynrefer.structures import ImageRecord, RegionRecord, RegionSet

_SITE = "https://github.com/lichengunc/refer (refcocog.zip)"
REFS = RawFile("refs", "refcocog/refs(umd).p", _SITE)
INSTANCES = RawFile("instances", "refcocog/instances.json", _SITE)
IMAGES = RawFile("images.storage", "train2014", "https://cocodataset.org/#download (train2014.zip)")
SPLITS = ("train", "val", "test")
# What a damaged pickle raises, beside UnpicklingError.
_PICKLE_ERRORS = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
)


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, dictionaries, texts and numbers; a pickle can otherwise run any program."""

    def find_class(self, module_name: str, global_name: str) -> NoReturn:
        raise pickle.UnpicklingError(
            f"it asks for {module_name}.{global_name}, and a list of references needs no class"
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
    """Read the splits; every sentence is a region of its own, with `sent_id` as region id.

    Args:
        refs: pickle of the references; it may hold plain data only.
        instances: json with the boxes, in COCO's layout.
        images: folder of the COCO train2014 pictures.
        splits: which of "train", "val", "test".
        name: protocol id, to which the split is added.
        stores: where the regions of each split go.

    Returns:
        Split name -> regions.

    Raises:
        DatasetError: a file is missing, of another kind or unsafe, or a split has no usable region.
    """
    collectors = {split: RegionCollector(f"{name}-{split}", split, stores) for split in splits}
    references = _read_refs(refs)
    document = read_json(instances, INSTANCES)
    folder = PictureFolder(images, IMAGES)
    try:
        pictures = {row["id"]: find_picture(row, folder) for row in document["images"]}
        boxes = {row["id"]: row["bbox"] for row in document["annotations"]}
    except (KeyError, TypeError) as error:
        raise INSTANCES.error(f"{instances} is not in COCO's layout: {error!r}") from error
    for reference in references:
        collector = collectors.get(reference.get("split", ""))
        if collector is not None:
            _add_sentences(collector, reference, boxes, pictures)
    return {split: collector.finish() for split, collector in collectors.items()}


def _read_refs(path: str | Path) -> list[Mapping[str, Any]]:
    content = REFS.require(path).read_bytes()
    try:
        # Written by Python 2, whose texts are bytes.
        references = _PlainUnpickler(io.BytesIO(content), encoding="utf-8").load()
    except _PICKLE_ERRORS as error:
        raise REFS.error(f"{path} is no list of references: {error}") from error
    if not isinstance(references, list) or not all(isinstance(row, dict) for row in references):
        raise REFS.error(f"{path}: expected a list of references")
    return references


def _add_sentences(
    collector: RegionCollector,
    reference: Mapping[str, Any],
    boxes: Mapping[int, Any],
    pictures: Mapping[int, ImageRecord],
) -> None:
    try:
        box, image = xyxy(boxes[reference["ann_id"]]), pictures[reference["image_id"]]
        sentences = [(int(row["sent_id"]), str(row["sent"])) for row in reference["sentences"]]
    except (KeyError, TypeError, ValueError) as error:
        detail = f"reference {reference.get('ref_id')} does not fit instances.json: {error!r}"
        collector.leave_out("unreadable_record", detail, reference.get("image_id"))
        return
    for region_id, sentence in sentences:
        collector.add(RegionRecord(region_id, image.image_id, box, sentence), image)
