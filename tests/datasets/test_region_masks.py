"""Masks of regions: from the files to the processor."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from lavis_dynrefer.datasets.dataset_catalog import Synthetic
from lavis_dynrefer.datasets.region_dataset import RegionDataset
from lavis_dynrefer.datasets.sources.coco_layout import read_coco_instances
from lavis_dynrefer.datasets.sources.custom_json import read_custom
from lavis_dynrefer.images.mask_encoding import decode_mask
from lavis_dynrefer.images.masks import box_from_rle
from lavis_dynrefer.structures import ImageRecord, RegionRecord, RegionSet
from lavis_dynrefer.synthetic.scene_dataset import read_truth
from lavis_dynrefer.views.policies import FixedScales
from lavis_dynrefer.views.view_processor import ViewProcessor

WIDTH, HEIGHT = 6, 4
TRIANGLE = [[1.0, 1.0, 4.0, 1.0, 4.0, 3.5]]
RUNS = {"size": [HEIGHT, WIDTH], "counts": [5, 2, 17]}  # rows 1 and 2 of column 1
COMPRESSED = {**RUNS, "counts": "52a0"}


@pytest.fixture
def read(tmp_path):
    """Writes annotations of one image with these segmentations, and reads them as a dataset."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images/1.png")

    def _read(*segmentations, kind="custom"):
        rows = [
            {
                **{"id": number, "image_id": 1, "bbox": [1, 1, 3, 2], "caption": "a dog"},
                **{"category_id": 1, "segmentation": segmentation},
            }
            for number, segmentation in enumerate(segmentations)
        ]
        document = {
            "images": [{"id": 1, "file_name": "1.png", "width": WIDTH, "height": HEIGHT}],
            "annotations": rows,
            "categories": [{"id": 1, "name": "dog"}],
        }
        path = tmp_path / "own.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        if kind == "coco":
            return read_coco_instances(path, tmp_path / "images")
        return read_custom(path, tmp_path / "images", name="own", split="train")

    return _read


@pytest.mark.parametrize("kind", ["custom", "coco"])
def test_segmentations_become_masks(read, kind):
    found = read(TRIANGLE, RUNS, COMPRESSED, [], None, kind=kind)
    assert [one.mask for one in found.regions] == [TRIANGLE, COMPRESSED, COMPRESSED, None, None]
    assert {one.box for one in found.regions} == {(1, 1, 4, 3)}  # the bbox, whatever the mask is
    assert found.noted == {}


@pytest.mark.parametrize(
    "damaged",
    [
        {**RUNS, "counts": [5, 2]},  # do not fill the image
        {"size": [WIDTH, HEIGHT], "counts": [5, 2, 17]},  # of an image on its side
        {"size": [HEIGHT, WIDTH]},
        [[1.0, 1.0, 4.0]],
        "somewhere",
    ],
)
@pytest.mark.parametrize("kind", ["custom", "coco"])
def test_a_damaged_mask_is_noted_and_its_box_used(read, damaged, kind):
    found = read(damaged, kind=kind)
    assert [(one.mask, one.box) for one in found.regions] == [(None, (1, 1, 4, 3))]
    assert found.noted == {"unusable_mask": 1}


WORLDS = ["landmark", "crowded"]


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """Nine scenes of two worlds in turn, and the folder they are in."""
    root = tmp_path_factory.mktemp("masks") / "scenes"
    values = {"root": str(root), "scenes": 5, "seed": 3, "world": WORLDS, "labels": "truth"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DYNREFER_CACHE", str(root.with_name("cache")))
        source = Synthetic(OmegaConf.create({"type": "default", "build_info": values}))
        source.make_raw_files(source.info())
        yield root, source.read_splits()


@pytest.mark.parametrize("split", ["train", "val", "test", "attributes", "categories"])
def test_every_synthetic_region_has_the_mask_of_its_box(synthetic, split):
    regions = synthetic[1][split].regions
    assert len(regions) > 5
    assert [one.box for one in regions] == [box_from_rle(one.mask) for one in regions]


def test_masks_of_a_scene_share_no_pixel(synthetic):
    root, splits = synthetic
    masks = [decode_mask(one.mask) for one in splits["attributes"].regions]
    shared = np.sum(masks, axis=0)
    scenes = len(list((root / "coco/val2017").iterdir()))
    assert shared.max() <= scenes  # one object of each scene at most
    assert sum(mask.sum() for mask in masks) == shared.sum() > 0


def test_worlds_take_turns_within_a_split(synthetic):
    rows = read_truth(synthetic[0], "train").values()
    worlds = {row["image_id"]: row["world"] for row in rows}
    assert worlds == {1: "landmark", 2: "crowded", 3: "landmark"}


class Recorder(ViewProcessor):
    """Keeps the masks that it is given."""

    asks_for_masks = True

    def crop(self, image, boxes, masks=None):
        self.masks = masks
        return super().crop(image, boxes)


@pytest.mark.parametrize("asks", [True, False])
def test_masks_go_to_a_processor_that_asks_for_them(tmp_path, asks):
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "1.png")
    regions = [
        RegionRecord(1, 1, (1.0, 1.0, 2.0, 3.0), mask=COMPRESSED),
        RegionRecord(2, 1, (0.0, 0.0, 4.0, 4.0)),
    ]
    images = {1: ImageRecord(1, str(tmp_path / "1.png"), WIDTH, HEIGHT)}
    processor = Recorder(FixedScales([0.0]), image_size=4)
    processor.masks = None
    processor.asks_for_masks = asks
    dataset = RegionDataset(RegionSet("demo", "val", images, regions), processor, train=False)
    assert torch.equal(dataset[0]["image_boxes"][0], torch.tensor(regions[0].box))
    assert processor.masks == ([COMPRESSED, None] if asks else None)
