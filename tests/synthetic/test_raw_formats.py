from __future__ import annotations

import numpy as np
import pytest

from lavis_dynrefer.synthetic import raw_formats
from lavis_dynrefer.synthetic.scene_captions import full_caption
from lavis_dynrefer.synthetic.scene_layout import make_scene
from lavis_dynrefer.synthetic.scene_world import SPLIT_START, WORLDS, held_out_pairs

TRAIN = make_scene(0, 5)
SHORT = [
    "the borderless one",
    "large object",
    "large thing",
    "the fish is orange solid and matte",
    "a striped shiny one",
    "the heart is outlined and black",
    "a solid shiny one",
    "it is small",
    "the medium size of the umbrella",
    "the thing is medium",
    "a heart with black stripes",
    "the moon is tilted and shiny",
]
VAL2017 = make_scene(0, SPLIT_START["val2017"] + 3)


@pytest.mark.parametrize(
    ("dataset", "kind", "rows"),
    [
        ("visual_genome", "regions", raw_formats.region_descriptions(TRAIN)),
        ("visual_genome", "images", [raw_formats.image_data(TRAIN)]),
        ("coco", "images", [raw_formats.coco_image(VAL2017)]),
        ("coco", "annotations", raw_formats.coco_annotations(VAL2017)),
        ("ovad", "annotations", raw_formats.ovad_annotations(VAL2017)),
    ],
)
def test_rows_have_the_keys_of_the_published_files(dataset, kind, rows, published_keys):
    assert {frozenset(row) for row in rows} == {frozenset(published_keys[dataset][kind])}


def test_region_boxes_are_the_objects_boxes_in_whole_pixels():
    first = raw_formats.region_descriptions(TRAIN)[0]
    corners = (first["x"], first["y"], first["x"] + first["width"], first["y"] + first["height"])
    assert corners == TRAIN.objects[0].box
    assert {type(value) for value in corners} == {int}


def test_every_object_has_one_full_caption():
    rows = raw_formats.captions(TRAIN)
    full = [(number, phrase) for _, number, form, phrase in rows if form == "full"]
    assert full == [(n, full_caption(TRAIN, n)) for n in range(len(TRAIN.objects))]
    assert 2 * len(full) <= len(rows) <= 3 * len(full)


@pytest.mark.parametrize("split", ["val", "test", "val2017"])
def test_other_splits_have_only_full_captions(split):
    rows = raw_formats.captions(make_scene(0, SPLIT_START[split]))
    assert {form for _, _, form, _ in rows} == {"full"}


def test_phrases_are_the_same_on_every_machine():
    assert [
        phrase for _, _, form, phrase in raw_formats.captions(TRAIN) if form == "short"
    ] == SHORT


def test_full_captions_come_before_the_short_ones():
    forms = [form for _, _, form, _ in raw_formats.captions(TRAIN)]
    assert forms == sorted(forms)  # "full" before "short"


def test_region_ids_differ_and_fit_32_bits():
    ids = [row[0] for scene in (TRAIN, VAL2017) for row in raw_formats.captions(scene)]
    assert len(set(ids)) == len(ids)
    assert max(ids) < 2**31


def test_truth_belongs_to_the_regions_of_the_files():
    truth = {row["region_id"]: row["phrase"] for row in raw_formats.truth_rows(TRAIN)}
    assert truth == {
        row["region_id"]: row["phrase"] for row in raw_formats.region_descriptions(TRAIN)
    }
    val2017 = {row["region_id"] for row in raw_formats.truth_rows(VAL2017)}
    assert val2017 == {row["id"] for row in raw_formats.coco_annotations(VAL2017)}


def test_training_captions_never_name_a_held_out_pair():
    rows = [row for index in range(1, 40) for row in raw_formats.truth_rows(make_scene(0, index))]
    own = {(r["facts"]["colour"], r["facts"]["category"]) for r in rows}
    named = {(r["facts"]["reference_colour"], r["facts"]["reference_category"]) for r in rows}
    assert not (own | named) & held_out_pairs()
    assert not any(row["held_out"] for row in rows)


@pytest.mark.parametrize("world", WORLDS)
def test_polygons_span_the_box_and_cover_the_mask(world):
    scene = make_scene(0, SPLIT_START["val2017"], world)
    rows = raw_formats.coco_annotations(scene)
    points = [np.concatenate(row["segmentation"]).reshape(-1, 2) for row in rows]
    spans = [(*p.min(axis=0), *(p.max(axis=0) - p.min(axis=0))) for p in points]
    assert spans == [tuple(row["bbox"]) for row in rows]
    areas = [sum(shoelace(part) for part in row["segmentation"]) for row in rows]
    assert all(area >= row["area"] for area, row in zip(areas, rows))


def shoelace(polygon):
    x, y = np.array(polygon).reshape(-1, 2).T
    return abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def test_the_polygon_of_a_small_mask_by_hand():
    mask = np.zeros((4, 5), dtype=bool)
    mask[1, 1:3] = mask[2, 1:4] = True
    # down the right side with one step, then up the straight left side
    expected = [3, 1, 3, 2, 4, 2, 4, 3, 1, 3, 1, 1]
    assert raw_formats.mask_polygons(mask) == [expected]


def test_a_mask_in_two_pieces_gives_two_polygons():
    mask = np.zeros((5, 3), dtype=bool)
    mask[0, 0] = mask[3:, 1] = True
    assert raw_formats.mask_polygons(mask) == [
        [1, 0, 1, 1, 0, 1, 0, 0],
        [2, 3, 2, 5, 1, 5, 1, 3],
    ]
