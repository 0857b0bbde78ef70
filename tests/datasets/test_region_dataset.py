from __future__ import annotations

import pickle

import pytest
import torch
from PIL import Image, ImageFile

from lavis_dynrefer.datasets.region_dataset import (
    RegionDataset,
    RegionTags,
    SampleError,
    read_image,
)
from lavis_dynrefer.structures import ImageRecord, RegionRecord, RegionSet
from lavis_dynrefer.views.policies import FixedScales
from lavis_dynrefer.views.view_processor import ViewProcessor
from lavis_dynrefer.vocab.control_words import ControlSampler

VIEWS, SIDE = 2, 4
NAMES = ("pet", "a", "two", "dog", "cat")
PROCESSOR = ViewProcessor(FixedScales([0.0, 1.0]), image_size=SIDE)


@pytest.fixture
def region_set(tmp_path):
    """Image 1, red, with regions 10 and 11; image 2, blue, with region 20."""
    images = {}
    for number, colour in ((1, "red"), (2, "blue")):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (40, 30), colour).save(path)
        images[number] = ImageRecord(number, str(path), 40, 30)
    regions = [
        RegionRecord(10, 1, (0, 0, 10, 10), "A Dog!"),
        RegionRecord(20, 2, (5, 5, 20, 20), "a cat"),
        RegionRecord(11, 1, (10, 10, 40, 30), "two dogs", tags=("pet",)),
    ]
    return RegionSet("demo", "val", images, regions)


def first_word(caption):
    return caption.lower().split()[:1]


@pytest.fixture
def build(region_set):
    def _build(processor=PROCESSOR, **options):
        tags = RegionTags(NAMES, tagger=first_word)
        defaults = {"train": False, "tags": tags}
        return RegionDataset(region_set, processor, str.lower, **{**defaults, **options})

    return _build


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"train": False}, [2, 1]),
        ({"train": True}, [1, 1, 1]),
        ({"train": True, "regions_per_image": 2}, [2, 1]),
    ],
)
def test_sizes_of_samples_are_known_without_their_images(build, region_set, options, sizes):
    region_set.images.clear()
    assert build(**options).sample_sizes == sizes


def test_training_serves_one_region_per_sample(build):
    dataset = build(train=True)

    assert len(dataset) == 3
    assert dataset[1]["region_ids"] == [20]
    assert dataset[1]["views"].shape == (1, VIEWS, 3, SIDE, SIDE)


def test_training_may_serve_several_regions_of_an_image(build):
    dataset = build(train=True, regions_per_image=2)

    assert [dataset[row]["region_ids"] for row in range(len(dataset))] == [[10, 11], [20]]


def test_training_may_repeat_the_samples_of_a_small_dataset(build):
    dataset = build(train=True, regions_per_image=2, repeats=2)

    assert [sample["region_ids"] for sample in dataset] == [[10, 11], [20]] * 2
    assert dataset.sample_sizes == [2, 1] * 2
    assert len(build(train=False, repeats=2)) == 2  # evaluation has everything once


def test_evaluation_decodes_an_image_once_for_all_its_regions(build):
    seen = []
    dataset = build(lambda *parts: seen.append(parts) or PROCESSOR(*parts))

    assert [dataset[row]["region_ids"] for row in range(len(dataset))] == [[10, 11], [20]]
    assert [boxes.tolist() for _, boxes in seen] == [
        [[0, 0, 10, 10], [10, 10, 40, 30]],
        [[5, 5, 20, 20]],
    ]


class Mirrored(ViewProcessor):
    """A processor of the user, which does more than crop."""

    def __call__(self, image, boxes):
        sample = super().__call__(image, boxes)
        return {**sample, "views": sample["views"].flip(-1) + 1}


def test_an_overridden_call_of_a_view_processor_is_used(build):
    own = Mirrored(FixedScales([0.0, 1.0]), image_size=SIDE)

    assert torch.equal(build(own)[0]["views"], build()[0]["views"].flip(-1) + 1)


def test_captions_are_processed_in_training_only(build):
    assert build(train=True)[0]["captions"] == ["a dog!"]
    assert build()[0]["captions"] == ["A Dog!", "two dogs"]


def test_tags_come_from_the_region_or_else_from_its_caption(build):
    dataset = build(train=True)

    assert [dataset[row]["tags"] for row in range(3)] == [[[1]], [[1]], [[0]]]
    assert dataset.tag_names == NAMES
    assert "tags" not in build()[0]


def test_tags_found_ahead_of_time_are_taken_by_row(build):
    tags = RegionTags(NAMES, table=[[3], [4, 1], [2]])
    dataset = build(train=True, tags=tags, regions_per_image=2)

    assert [dataset[row]["tags"] for row in (0, 1)] == [[[3], [0]], [[4, 1]]]  # region 11 has "pet"


def test_tags_missing_in_the_list_are_refused(build):
    with pytest.raises(ValueError, match="'pet' is not in the list of 1 tags"):
        build(train=True, tags=RegionTags(["dog"]))[2]


def test_controls_are_sampled_from_the_tags_of_the_caption(build):
    dataset = build(
        train=True,
        tags=RegionTags(NAMES, table=[[3, 4], [], []]),
        controls=ControlSampler(None, 0, 0),
    )

    assert sorted(dataset[0]["controls"][0].strip("|").split(",")) == ["cat", "dog"]
    assert [dataset[row]["controls"] for row in (1, 2)] == [["|"], ["pet|"]]
    assert "controls" not in build()[0]


class ManyWords(torch.utils.data.Dataset):
    """Twelve times the first region of a dataset, and which worker served it."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return self.dataset[0]["controls"][0], torch.utils.data.get_worker_info().id


def test_one_seed_governs_the_controls_of_all_workers_and_epochs(build):
    many = RegionTags([f"tag {number}" for number in range(20)], table=[list(range(20))] * 3)
    dataset = ManyWords(build(train=True, tags=many, controls=ControlSampler(None, 0)))

    def epochs(seed):
        loader = torch.utils.data.DataLoader(
            dataset, num_workers=2, batch_size=None, generator=torch.Generator().manual_seed(seed)
        )
        return [list(loader) for _ in range(2)]

    first, second = epochs(3)

    assert epochs(3) == [first, second]
    prompts = [prompt for prompt, _ in [*first, *second, *epochs(4)[0]]]
    assert {worker for _, worker in first} == {0, 1}
    assert len(set(prompts)) == len(prompts) == 36  # no worker, epoch or seed repeats another


def test_a_batch_joins_images_along_the_regions(build):
    dataset = build()

    batch = dataset.collater([dataset[0], dataset[1]])

    assert batch["views"].shape == (3, VIEWS, 3, SIDE, SIDE)
    assert batch["views"].dtype == torch.uint8
    assert batch["views"][:, 0, :, 0, 0].tolist() == [[255, 0, 0], [255, 0, 0], [0, 0, 255]]
    assert batch["boxes"].shape == (3, VIEWS, 4)
    assert batch["scales"].shape == (3, VIEWS)
    assert batch["image_boxes"].tolist() == [[0, 0, 10, 10], [10, 10, 40, 30], [5, 5, 20, 20]]
    assert batch["regions_per_image"] == [2, 1]
    assert batch["region_ids"] == [10, 11, 20]
    assert batch["image_ids"] == [1, 1, 2]
    assert batch["failed"] == []


def test_boxes_checked_when_read_are_not_checked_again_by_the_processor(build, monkeypatch):
    monkeypatch.setattr(ViewProcessor, "__call__", None)  # it checks

    assert build()[0]["views"].shape == (2, VIEWS, 3, SIDE, SIDE)


def test_a_loader_with_workers_serves_every_region(build):
    dataset = build(train=True)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=2, num_workers=1, collate_fn=dataset.collater
    )

    assert [number for batch in loader for number in batch["region_ids"]] == [10, 20, 11]


def damage_first_image(region_set, content):
    with open(region_set.images[1].path, "wb") as file:
        file.write(content)


def test_an_unreadable_image_stops_by_default(build, region_set):
    damage_first_image(region_set, b"<html>")

    with pytest.raises(SampleError, match=r"image 1, .*1\.png.*set on_error: skip") as caught:
        _ = build()[0]

    assert caught.value.reason == "unreadable_image"


def test_a_skipped_image_is_named_and_never_replaced(build, region_set):
    damage_first_image(region_set, b"")
    dataset = build(on_error="skip")

    batch = dataset.collater([dataset[0], dataset[1]])

    assert batch["region_ids"] == [20]
    assert batch["regions_per_image"] == [0, 1]
    assert [(row["region_id"], row["reason"]) for row in batch["failed"]] == [
        (10, "unreadable_image"),
        (11, "unreadable_image"),
    ]


def test_a_training_batch_without_any_region_stops(build, region_set):
    damage_first_image(region_set, b"")
    dataset = build(train=True, on_error="skip")

    with pytest.raises(SampleError, match="no sample of a batch is usable"):
        dataset.collater([dataset[0], dataset[2]])


def test_a_region_outside_of_the_actual_image_fails_alone(build, region_set):
    Image.new("RGB", (9, 9), "red").save(region_set.images[1].path)

    sample = build(on_error="skip")[0]

    assert sample["region_ids"] == [10]
    assert [(row["region_id"], row["reason"]) for row in sample["failed"]] == [
        (11, "outside_image")
    ]
    with pytest.raises(SampleError, match=r"has \(9, 9\) pixels, annotated \(40, 30\)"):
        _ = build()[0]


def test_an_image_that_the_processor_refuses_is_a_failed_image(build):
    def refuse(image, boxes):
        if len(boxes):
            raise ValueError("too small")
        return PROCESSOR(image, boxes)

    sample = build(refuse, on_error="skip")[0]

    assert [row["reason"] for row in sample["failed"]] == ["unusable_view", "unusable_view"]


def test_sample_errors_can_be_pickled():
    error = pickle.loads(pickle.dumps(SampleError("missing_image", "image 1")))

    assert (error.reason, error.detail) == ("missing_image", "image 1")


ODD_IMAGES = {  # name -> size, of the other files 160 x 115
    "one_pixel.jpg": (1, 1),
    "width1.jpg": (1, 115),
    "panorama_600x4.jpg": (600, 4),
    "gray16.png": (64, 48),
    **dict.fromkeys(["gray.jpg", "cmyk.jpg", "palette.png", "bilevel.png"]),
    **dict.fromkeys(["progressive.jpg", "png_rgba_named.jpg", "exif_orient6.jpg"]),
}


@pytest.mark.parametrize("name", ODD_IMAGES)
def test_odd_images_are_read_as_stored(tricky_images, name):
    image = read_image(ImageRecord(1, str(tricky_images / name), 1, 1))

    assert image.mode == "RGB"
    assert image.size == (ODD_IMAGES[name] or (160, 115))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("truncated.jpg", "unreadable_image"),
        ("zero_bytes.jpg", "unreadable_image"),
        ("not_an_image.jpg", "unreadable_image"),
        ("vanished.jpg", "missing_image"),
    ],
)
def test_damaged_and_missing_images_are_named(tricky_images, name, reason, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as importing LAVIS leaves it

    with pytest.raises(SampleError, match=name) as caught:
        read_image(ImageRecord(1, str(tricky_images / name), 160, 115))

    assert caught.value.reason == reason
    assert ImageFile.LOAD_TRUNCATED_IMAGES
