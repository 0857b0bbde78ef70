"""Views encoded once at every scale, and the table of view policies."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from lavis_dynrefer.lab.benchmarks.encoded_scenes import (
    SCALES,
    answers_from,
    encode_scenes,
    train_on_encoded,
)
from lavis_dynrefer.lab.benchmarks.policy_table import (
    SHOWN,
    SINGLE,
    TRAININGS,
    measure_policies,
    phases,
)
from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.questions import TASKS
from lavis_dynrefer.synthetic.dataset import described_objects, write_dataset
from lavis_dynrefer.views.policies import FixedScales, ImagePrior
from lavis_dynrefer.views.view_processor import ViewProcessor


@pytest.fixture(scope="module")
def model():
    return DynRefer.from_pretrained("tiny").eval()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes") / "data"
    write_dataset(folder, scenes=4, seed=0)
    return folder


def test_answers_from_encoded_views_are_those_of_the_model(model, root):
    encoded = encode_scenes(model, root, "test", images=1)
    ((path, rows),) = described_objects(root, "test", 1).items()
    processor = ViewProcessor(FixedScales([0, 0.5]), image_size=model.backbone.image_size)
    asked = model.predict(processor(Image.open(path), [row["box"] for row in rows]))

    columns = torch.tensor([[0, SCALES.index(0.5)]]).repeat(len(rows), 1)
    answers = answers_from(model, encoded, dict.fromkeys(TASKS, columns))

    assert [one.caption for one in answers] == [one.caption for one in asked]
    assert [one.box for one in answers] == [one.box for one in asked]
    assert {one.scales["caption"] for one in answers} == {(0.0, 0.5)}


def test_choices_of_a_policy_are_recorded(model, root):
    prior = ImagePrior(2)
    encoded = encode_scenes(model, root, "test", images=1, policies={"prior": prior})
    ((path, rows),) = described_objects(root, "test", 1).items()
    boxes = torch.tensor([row["box"] for row in rows], dtype=torch.float32)
    taken = prior.plan(Image.open(path).convert("RGB"), boxes).scales[:, 1]
    assert torch.tensor(SCALES)[encoded.chosen["prior"]].tolist() == pytest.approx(taken.tolist())


@pytest.mark.parametrize("parts", [parts for parts, _ in phases()])
def test_training_on_encoded_views_changes_only_the_given_parts(model, root, parts):
    encoded = encode_scenes(model, root, "train", images=1)
    trained = DynRefer.from_pretrained("tiny")
    columns = lambda count, rng: torch.zeros(count, 2, dtype=torch.long)  # noqa: E731
    train_on_encoded(
        trained, encoded, columns, parts=parts, steps=2, seed=0, learning_rate=1e-3, batch=4
    )

    old, new = model.state_dict(), trained.state_dict()
    changed = {name.split(".")[0] for name in old if not torch.equal(old[name], new[name])}
    assert changed == set(parts)


def test_models_are_trained_like_the_embedded_one():
    everything = {*("region_encoder", "qformer", "text_encoder"), "tagging", "contrast"}
    (first, high), (second, low) = phases()
    assert (set(first), high) == ({"tagging", "captioning"}, 3e-3)
    assert (set(second), low) == ({*everything, "captioning"}, 5e-4)


def test_every_training_is_asked_with_every_policy():
    found = measure_policies(
        scenes=4,
        train_images=1,
        images=1,
        steps=1,
        tuning_steps=1,
        seeds=1,
        world="landmark",
        rounds=1,
    )
    rows = found["rows"]
    assert {row["training"] for row in rows} == {*TRAININGS, "embedded model"}
    assert len(rows) == len(SINGLE) + 3 * 5
    assert all(set(row["numbers"]) == set(SHOWN) for row in rows)
    assert set(found["task_scales"]) == {"attributes", "categories", "caption"}
    assert set(found["validation"]) == {str(scale) for scale in SCALES[1:]}
    single = [row for row in rows if row["views"] == 1]
    assert [row["training"] for row in single] == [f"t = {scale} alone" for scale in SINGLE]
