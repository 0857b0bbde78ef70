"""Images with some of their regions, chosen at random, for a person to look at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lavis_dynrefer.datasets.region_sets import rows_by_image
from lavis_dynrefer.images.boxes import box_area
from lavis_dynrefer.images.decoding import IMAGE_ERRORS
from lavis_dynrefer.images.opening import decode_image
from lavis_dynrefer.pages.region_drawing import contact_sheet, draw_regions, titled
from lavis_dynrefer.structures import Box, ImageRecord, RegionRecord, RegionSet, Rejection

REGIONS_PER_IMAGE = 8
SIDE = 560  # pixels, the longer side of an image as it is kept
SHEET_SIDE = 360  # and on the contact sheet
SHEET_COLUMNS = 4
_NO_IMAGE = "#c8ccd2"


@dataclass(frozen=True)
class Note:
    """What is written about one region."""

    box: Box  # in pixels of the image file
    title: str  # its caption, or what comes closest to one
    details: tuple[str, ...] = ()  # further facts, each a few words
    names: tuple[str, ...] = ()  # category, tags and attributes


@dataclass(frozen=True)
class SampleImage:
    """One image and what is said about some of its regions."""

    record: ImageRecord
    image: Image.Image  # at most `SIDE` pixels wide and high; gray if the file cannot be read
    size: tuple[int, int]  # of the file in pixels, which the boxes refer to
    problem: str  # why the boxes may not fit, or why there is no image; else empty
    notes: tuple[Note, ...]  # the regions shown
    regions: int  # of the image
    rejected: bool = False  # the regions were dropped


def choose_samples(
    region_set: RegionSet, count: int, rng: np.random.Generator
) -> list[SampleImage]:
    """Random images, each with some of its regions, the largest first."""
    groups = rows_by_image(region_set)
    chosen = rng.choice(len(groups), size=min(count, len(groups)), replace=False)
    samples = []
    for number in sorted(chosen.tolist()):
        rows = np.array(groups[number])
        some = rng.permutation(rows)[:REGIONS_PER_IMAGE]
        regions = [region_set.regions[row] for row in sorted(some.tolist())]
        regions.sort(
            key=lambda region: box_area(region.box), reverse=True
        )  # small ones are drawn over large ones
        notes = [_note(region, region_set) for region in regions]
        samples.append(_sample(region_set.images[regions[0].image_id], notes, len(rows)))
    return samples


def choose_rejected(
    region_set: RegionSet, count: int, rng: np.random.Generator
) -> list[SampleImage]:
    """Random images with dropped regions whose box and image are known.

    Rare reasons are shown as often as frequent ones.
    """
    by_image: dict[int, list[Rejection]] = {}
    by_reason: dict[str, list[int]] = {}
    for item in region_set.rejected:
        if item.region is not None and item.region.image_id in region_set.images:
            by_image.setdefault(item.region.image_id, []).append(item)
            by_reason.setdefault(item.reason, []).append(item.region.image_id)
    queues = [rng.permutation(ids).tolist() for ids in by_reason.values()]
    chosen: dict[int, None] = {}
    while any(queues) and len(chosen) < count:
        for queue in queues:
            if queue and len(chosen) < count:
                chosen[queue.pop()] = None
    return [
        _sample(region_set.images[image_id], _rejected_notes(items), len(items), rejected=True)
        for image_id in chosen
        for items in [by_image[image_id]]
    ]


def draw_sheet(parts: Iterable[tuple[str, Sequence[SampleImage]]]) -> Image.Image | None:
    """All samples on one contact sheet, those of each part below its title; None without any."""
    sheets = [
        titled(contact_sheet([_draw(item) for item in samples], columns=SHEET_COLUMNS), title)
        for title, samples in parts
        if samples
    ]
    return contact_sheet(sheets, columns=1) if sheets else None


def _sample(
    record: ImageRecord, notes: Sequence[Note], regions: int, *, rejected: bool = False
) -> SampleImage:
    size, problem = (record.width, record.height), ""
    try:
        image = decode_image(record.path)
    except IMAGE_ERRORS as error:
        factor = min(1.0, SIDE / max(*size, 1))
        image = Image.new("RGB", [max(round(side * factor), 1) for side in size], _NO_IMAGE)
        problem = f"the file cannot be read: {error}"
    else:
        if image.size != size:
            problem = (
                f"the file has {image.width} x {image.height} pixels, "
                f"the annotations say {record.width} x {record.height}"
            )
        size = image.size
        image.thumbnail((SIDE, SIDE))
    return SampleImage(record, image, size, problem, tuple(notes), regions, rejected)


def _note(region: RegionRecord, region_set: RegionSet) -> Note:
    title = region.caption or region.category
    if region.caption is not None and not region.caption.strip():
        title = "(empty caption)"
    names = [region.category] if region.category and title != region.category else []
    names += region.tags
    for attribute, label in zip(region_set.attributes, region.attributes or ()):
        if label == 1:
            names.append(attribute.name.split("/")[0].replace(":", " "))  # the first synonym
    details = ["crowd"] if region.iscrowd else []
    if region.score is not None:
        details.append(f"score {region.score:.2f}")
    x1, y1, x2, y2 = region.box
    details.append(f"{x2 - x1:.0f} x {y2 - y1:.0f} px")
    return Note(region.box, title or "(no caption)", tuple(details), tuple(names))


def _rejected_notes(items: Sequence[Rejection]) -> list[Note]:
    notes = []
    for item in items[:REGIONS_PER_IMAGE]:
        if item.region is not None:
            caption = item.region.caption
            details = (item.detail, f"caption: {caption}") if caption else (item.detail,)
            notes.append(Note(item.region.box, item.reason.replace("_", " "), details))
    return notes


def _draw(sample: SampleImage) -> Image.Image:
    small = sample.image.copy()
    small.thumbnail((SHEET_SIDE, SHEET_SIDE))
    across, down = small.width / sample.size[0], small.height / sample.size[1]
    boxes = []
    for note in sample.notes:
        x1, y1, x2, y2 = note.box
        boxes.append((x1 * across, y1 * down, x2 * across, y2 * down))
    lines = [
        "\n".join(filter(None, (note.title, ", ".join(note.names), *note.details)))
        for note in sample.notes
    ]
    return draw_regions(small, boxes, lines, rejected=sample.rejected, remark=sample.problem)
