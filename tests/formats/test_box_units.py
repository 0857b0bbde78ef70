"""Boxes in percent or thousandths, taken for pixels."""

from __future__ import annotations

import pytest

from lavis_dynrefer.formats.reading.box_units import UnitEvidence

PERCENT = [(12.5, 16.7, 33.3, 44.4), (52.0, 27.8, 83.3, 69.4), (37.5, 55.6, 62.5, 83.3)]
THOUSANDTHS = [tuple(10 * number for number in box) for box in PERCENT]


@pytest.mark.parametrize(
    ("boxes", "size", "doubt"),
    [
        (PERCENT, (480, 360), "percent"),
        (PERCENT[:2], (480, 360), "percent"),  # a chance of 0.0033
        (PERCENT[:1], (480, 360), None),  # of 0.058
        (PERCENT[:1], (4000, 3000), "percent"),  # of 0.0008
        (PERCENT, (100, 80), None),
        (PERCENT, (150, 120), None),  # of 0.17
        ([*PERCENT, (10.0, 20.0, 101.0, 60.0)], (480, 360), None),
        ([(0.1, 0.2, 0.5, 0.9)] * 9, (480, 360), None),  # fractions, which are told elsewhere
        (THOUSANDTHS, (4000, 3000), "thousandths"),
        (THOUSANDTHS, (1280, 720), None),  # a chance of 0.48, and all inside
        (THOUSANDTHS, (300, 200), "thousandths"),  # all leave the image
        ([(700, 10, 1001, 90)] * 9, (640, 480), None),
        ([], (480, 360), None),
        ([(float("nan"), 1, 2, 3)] * 9, (480, 360), None),
        ([(10**400, 1, 2, 3), *PERCENT], (480, 360), None),
    ],
)
@pytest.mark.parametrize("format", ["xyxy", "xywh"])
def test_the_chance_of_pixels_decides(boxes, size, doubt, format):
    evidence = UnitEvidence()
    for x1, y1, x2, y2 in boxes:
        box = (x1, y1, x2, y2) if format == "xyxy" else (x1, y1, x2 - x1, y2 - y1)
        evidence.add(box, size, format)

    assert evidence.doubt() == doubt


def test_corners_read_as_sizes_are_no_reason_to_ask():
    evidence = UnitEvidence()
    for box in [(300, 200, 400, 300), (250, 150, 470, 350)]:  # x, y, x2, y2
        evidence.add(box, (480, 360), "xywh")

    assert evidence.doubt() is None
