"""Points through SAM, with a tiny SAM of random weights."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from lavis_dynrefer.detectors.sam import PointSegmenter

HAS_SAM = hasattr(transformers, "SamModel")
needs_sam = pytest.mark.skipif(
    not HAS_SAM, reason=f"transformers {transformers.__version__} has no SamModel; 4.29 has"
)
POINTS = [[10, 10], [40, 20.5], [49.9, 0], *([x, 15] for x in range(1, 48, 3))]  # more than a chunk


@pytest.fixture(scope="module")
def image():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sam")
    sizes = {"hidden_size": 16, "image_size": 64, "patch_size": 8}
    small = {"num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 16}
    config = transformers.SamConfig(
        vision_config={
            **sizes,
            **small,
            "output_channels": 16,
            "window_size": 4,
            "num_pos_feats": 8,
            "global_attn_indexes": [0],
        },
        prompt_encoder_config={**sizes, "mask_input_channels": 4},
        mask_decoder_config={**small, "hidden_size": 16, "iou_head_hidden_dim": 16},
    )
    model = transformers.SamModel(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.state_dict().items():  # where a point lies must matter most
            std = 8 if name.endswith("positional_embedding") else 0.7
            weight.normal_(std=std, generator=generator)
    model.save_pretrained(folder)
    images = transformers.SamImageProcessor(
        size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}
    )
    transformers.SamProcessor(images).save_pretrained(folder)
    return folder


@pytest.fixture
def segmenter(folder):
    return PointSegmenter(folder)


@needs_sam
@torch.no_grad()
def test_a_point_becomes_the_tight_box_of_the_best_mask(segmenter, folder, image):
    processor = transformers.SamProcessor.from_pretrained(folder)
    inputs = processor(image, input_points=[[[x] for x in POINTS]], return_tensors="pt")
    inputs["input_points"] = inputs["input_points"].float()
    sizes = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
    output = transformers.SamModel.from_pretrained(folder).eval()(**inputs)
    masks = processor.image_processor.post_process_masks(output.pred_masks, *sizes)[0]
    expected = []
    for three, scores in zip(masks, output.iou_scores[0]):
        ys, xs = three[scores.argmax()].nonzero().unbind(dim=1)
        expected.append([int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1])

    boxes = segmenter(image, POINTS)

    assert boxes.tolist() == expected
    assert len({tuple(box) for box in expected}) > 1


@needs_sam
def test_no_points_are_no_boxes(segmenter, image):
    assert segmenter(image, []).shape == (0, 4)


@needs_sam
@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([3, 4], r"expected shape \(R, 2\), got \(2,\); one point is a list of one row"),
        ([[1, 2, 3, 4]], r"expected shape \(R, 2\), got \(1, 4\)"),
        ([[1, 2], [50, 3]], r"row 1 \[50\.0, 3\.0\] is not inside the 50 x 30 image"),
        ([[1, -1]], "is not inside"),
        ([[1, float("nan")]], "is not inside"),
        ([["left", 2]], "expected rows of two numbers"),
    ],
)
def test_points_that_are_none_are_named(segmenter, image, points, message):
    with pytest.raises(ValueError, match=message):
        segmenter(image, points)


@needs_sam
def test_a_point_on_nothing_is_named(segmenter, image):
    with torch.no_grad():
        for weight in segmenter._model.mask_decoder.parameters():
            weight.zero_()  # every mask is 0 everywhere, and masks begin above

    with pytest.raises(ValueError, match=r"SAM finds nothing at \[4\.0, 5\.0\]"):
        segmenter(image, [[4, 5]])


@needs_sam
def test_a_folder_without_weights_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights of SAM in"):
        PointSegmenter(tmp_path)


@pytest.mark.skipif(HAS_SAM, reason="this transformers has SamModel")
def test_an_older_transformers_is_named_with_the_cure():
    with pytest.raises(ImportError, match=r"4\.29 or newer, found .*requirements-modern\.txt"):
        PointSegmenter("sam")


@needs_sam
def test_points_on_the_command_line_are_answered_once(folder, image, tmp_path, capsys):
    from lavis_dynrefer.cli import main

    image.save(tmp_path / "image.png")
    command = ["predict", str(tmp_path / "image.png"), "--point", "10,10", "--point", "40,20.5"]
    command += ["--sam", str(folder), "--tasks", "caption", "--output", str(tmp_path / "out")]

    assert main([*command, "--device", "cpu"]) == 0

    (row,) = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    found = [region["box"] for region in json.loads(row)["regions"]]
    assert found == PointSegmenter(folder)(image, POINTS[:2]).tolist()
    capsys.readouterr()
    assert main([*command, "--device", "cpu"]) == 0
    assert (tmp_path / "out" / "results.jsonl").read_text().splitlines() == [row]


@needs_sam
def test_the_predictor_takes_points(folder):
    from lavis_dynrefer import RegionPredictor
    from lavis_dynrefer.synthetic import make_scene, render

    image = render(make_scene(0, 2_000_001))
    predictor = RegionPredictor(device="cpu")
    (box,) = PointSegmenter(folder)(image, [[60, 70]]).tolist()

    (answer,) = predictor.predict(image, points=[[60, 70]], sam=folder)

    assert answer == predictor.predict(image, [box])[0]


@needs_sam
def test_the_page_on_points_does_as_it_says(folder, tmp_path, monkeypatch, capsys):
    from lavis_dynrefer.cli import main
    from lavis_dynrefer.synthetic import make_scene, render

    render(make_scene(0, 2_000_001)).save(tmp_path / "photo.jpg")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/sam-vit-base").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs/predict.md").read_text(encoding="utf-8")
    program, command = re.findall(r"```(?:python|bash)\n(.*?)```", page, re.DOTALL)
    names: dict[str, object] = {}

    exec(program, names)
    code = main([*shlex.split(command)[1:], "--format", "json"])

    assert code == 0
    (row,) = json.loads(capsys.readouterr().out)
    answers = names["predictor"].predict("photo.jpg", points=[[60, 120], [200, 80]], sam=folder)
    assert [region["caption"] for region in row["regions"]] == [one.caption for one in answers]
