"""Regions for which two view policies choose other views, drawn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from PIL import Image

from lavis_dynrefer.pages.region_drawing import contact_sheet, draw_regions
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.structures import Box
from lavis_dynrefer.views.nesting import nest_boxes


def draw_differing(
    predictor: RegionPredictor,
    pairs: Iterable[tuple[Image.Image, list[Any]]],
    policies: tuple[str, str],
    *,
    count: int = 6,
    share: float = 2 / 3,
) -> Image.Image:
    """One region of each image, the first with other scales: its box, both views, both captions.

    Args:
        predictor: of a model that fuses two views.
        pairs: images with their boxes.
        policies: names, as in `parse_policy`.
        count: images at most.
        share: of their size.

    Raises:
        InputError: the policies agree everywhere.
    """
    drawn: list[Image.Image] = []
    for image, boxes in pairs:
        answers = [
            predictor.predict(image, boxes, tasks=["caption"], views=name) for name in policies
        ]
        rows = (one for one in zip(*answers) if one[0].scales != one[1].scales)
        chosen = next(rows, None)
        if chosen is not None and len(drawn) < count:
            drawn.append(_drawn(image, policies, chosen, share))
    return contact_sheet(drawn, columns=3)


def _drawn(
    image: Image.Image, policies: tuple[str, str], answers: tuple[Any, ...], share: float
) -> Image.Image:
    """An image with a region and its views."""
    scales = [answer.scales["caption"][1] for answer in answers]
    box = torch.tensor([answers[0].box])
    size = torch.tensor([image.size], dtype=torch.float32)
    frames = nest_boxes(box, size, torch.tensor([scales]))[0]
    shown: list[Box] = [tuple((share * frame).tolist()) for frame in (box[0], *frames)]
    lines = ["the region"]
    lines += [
        f"{name}, t = {scale:g}\n{answer.caption}"
        for name, scale, answer in zip(policies, scales, answers)
    ]
    small = image.resize((round(image.width * share), round(image.height * share)))
    return draw_regions(small, shown, lines)
