"""A sample can be handled like the image tensor of LAVIS's other processors."""

from __future__ import annotations

import pickle

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, default_collate

from lavis_dynrefer.views.policies import FixedScales
from lavis_dynrefer.views.samples import Sample, concat_samples, regions_of
from lavis_dynrefer.views.view_processor import ViewProcessor

PROCESSOR = ViewProcessor(FixedScales([0, 0.5]), image_size=8)
IMAGE = Image.linear_gradient("L").resize((40, 30)).convert("RGB")
WHOLE = PROCESSOR(IMAGE)
TWO = PROCESSOR(IMAGE, [[0, 0, 10, 10], [5, 5, 20, 20]])
THREE_BOXES = [[0, 0, 40, 30], [0, 0, 10, 10], [5, 5, 20, 20]]


def test_without_boxes_the_region_is_the_whole_image():
    assert WHOLE["image_boxes"].tolist() == [[0, 0, 40, 30]]
    assert WHOLE.shape == (1, 2, 3, 8, 8)
    assert torch.equal(WHOLE["views"], PROCESSOR(IMAGE, [[0, 0, 40, 30]])["views"])


def test_rows_are_the_batch_axis():
    assert TWO.unsqueeze(0) is TWO
    assert TWO[None] is TWO
    assert "captions" not in TWO
    with pytest.raises(KeyError, match="captions"):
        TWO["captions"]
    assert TWO.unsqueeze(0).to(torch.device("cpu")).shape == (2, 2, 3, 8, 8)
    assert (TWO.size(0), TWO.size()) == (2, TWO.shape)


@pytest.mark.parametrize(
    "join",
    [
        lambda samples: torch.stack(samples),
        lambda samples: torch.cat([sample.unsqueeze(0) for sample in samples], dim=0),
        lambda samples: default_collate([{"image": sample} for sample in samples])["image"],
        lambda samples: next(iter(DataLoader(samples, batch_size=2))),
        lambda samples: concat_samples([dict(sample) for sample in samples]),
    ],
    ids=["stack", "cat", "collate", "loader", "dicts"],
)
def test_samples_of_several_images_are_one_batch(join):
    batch = join([WHOLE, TWO])

    assert type(batch) is Sample
    assert batch["image_boxes"].tolist() == THREE_BOXES
    assert batch["views"].dtype == torch.uint8


def test_lists_are_joined_region_by_region():
    first, second = Sample(WHOLE, captions=["a"]), Sample(TWO, captions=["b", "c"])

    assert torch.stack([first, second])["captions"] == ["a", "b", "c"]


def test_a_sample_survives_a_worker():
    again = pickle.loads(pickle.dumps(TWO))

    assert type(again) is Sample
    assert torch.equal(again["views"], TWO["views"])


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: TWO.unsqueeze(1), "one batch axis, 0; got 1"),
        (lambda: TWO.to(torch.float16), r"expected a device, got torch\.float16"),
        (lambda: torch.stack([TWO, TWO], dim=1), r"torch\.stack: samples can only be stacked"),
        (lambda: torch.stack([TWO, torch.zeros(3)]), r"torch\.stack: samples can only"),
        (lambda: torch.mean(TWO), r"torch\.mean: samples can only"),
        (lambda: PROCESSOR(torch.zeros(3, 8, 8)), "expected a path, PIL image or array"),
        (lambda: PROCESSOR([IMAGE, IMAGE]), "expected a path, PIL image or array"),
    ],
)
def test_what_cannot_work_is_said(action, message):
    with pytest.raises(ValueError, match=message):
        action()


@pytest.mark.parametrize(
    "given", [TWO, dict(TWO), {"image": TWO}, {"image": dict(TWO)}, {"image": [TWO]}]
)
def test_a_model_takes_a_sample_by_itself_or_as_the_image(given):
    assert regions_of(given)["image_boxes"] is TWO["image_boxes"]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"image": torch.zeros(1, 3, 8, 8)}, r"got Tensor \(1, 3, 8, 8\)"),
        ({"image": IMAGE}, "got Image"),
        ({"image": []}, "got list"),
        ({"text_input": ["a"]}, r"got the keys \['text_input'\]"),
        (torch.zeros(1, 3, 8, 8), r"got Tensor \(1, 3, 8, 8\)"),
    ],
)
def test_anything_else_is_refused(given, found):
    with pytest.raises(ValueError, match=f"vis_processors.*{found}"):
        regions_of(given)
