"""Test images with what was said about them before and after training, side by side."""

from __future__ import annotations

from collections import defaultdict

from PIL import Image

from lavis_dynrefer.cli.quickstart.answers_before_after import SplitAnswers
from lavis_dynrefer.pages.region_drawing import contact_sheet, draw_regions, titled
from lavis_dynrefer.structures import RegionRecord

IMAGES = 4
REGIONS_PER_IMAGE = 4
TITLES = ("before training", "after training")


def draw_before_after(split: SplitAnswers, images: int = IMAGES) -> Image.Image:
    """A row for each image: its regions with the captions of both runs and the references.

    The images are those with most regions, whatever was said about them.
    """
    by_image: dict[int, dict[object, RegionRecord]] = defaultdict(dict)
    for region in split.captioned():  # the first of the descriptions that share a box
        by_image[region.image_id].setdefault(tuple(region.box), region)
    chosen = sorted(by_image, key=lambda image_id: -len(by_image[image_id]))[:images]
    sheets = []
    for row, image_id in enumerate(chosen):
        regions = list(by_image[image_id].values())[:REGIONS_PER_IMAGE]
        boxes = [region.box for region in regions]
        with Image.open(split.region_set.images[image_id].path) as image:
            for run, title in enumerate(TITLES):
                texts = [
                    f"{said}\nreference: {region.caption}"
                    for said, region in zip(split.captions(run, regions), regions)
                ]
                sheet = draw_regions(image, boxes, texts)
                sheets.append(sheet if row else titled(sheet, title))
    return contact_sheet(sheets, columns=len(TITLES))
