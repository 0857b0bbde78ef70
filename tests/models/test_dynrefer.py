"""The whole model at its smallest size."""

from __future__ import annotations

import pytest
import torch

from lavis_dynrefer.models.dynrefer import DynRefer

FROZEN_BY_DEFAULT = ("backbone.", "text_encoder.", "captioning.llm.", "qformer.query_tokens")


def strip(prediction):
    return {**prediction.to_dict(), "caption_score": None}


def test_only_the_named_modules_get_gradients(smallest_model, region_batch):
    smallest_model.train()(region_batch)["loss"].backward()
    with_gradient = {
        name for name, weight in smallest_model.named_parameters() if weight.grad is not None
    }
    expected = {
        name
        for name, _ in smallest_model.named_parameters()
        if not name.startswith(FROZEN_BY_DEFAULT)
    }
    assert with_gradient == expected


def test_the_frozen_backbone_stays_in_eval_mode(smallest_model):
    smallest_model.train()
    assert not smallest_model.backbone.training
    assert smallest_model.qformer.training


def test_an_unfrozen_backbone_is_trained(smallest_config, region_batch):
    model = DynRefer.from_config({**smallest_config, "trainable": ["backbone", "tagging"]}).train()
    assert model.backbone.training
    model(region_batch)["loss"].backward()
    assert model.backbone.vit.cls_token.grad is not None


def test_loss_is_the_sum_of_its_parts(smallest_model, region_batch):
    losses = smallest_model(region_batch)
    parts = [losses[name] for name in ("loss_caption", "loss_tag", "loss_contrast")]
    assert losses["loss"].item() == pytest.approx(sum(part.item() for part in parts), rel=1e-6)


def test_training_on_one_batch_learns_it(smallest_config, region_batch):
    torch.manual_seed(0)
    everything = ["backbone", "region_encoder", "qformer", "text_encoder", "tagging", "contrast"]
    model = DynRefer.from_config({**smallest_config, "trainable": [*everything, "captioning"]})
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    first = model.train()(region_batch)["loss"].item()
    for _ in range(25):
        optimizer.zero_grad()
        loss = model(region_batch)["loss"]
        loss.backward()
        optimizer.step()
    assert loss.item() < first / 2


def test_predictions_follow_their_regions(smallest_model, region_batch):
    smallest_model.eval()
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = {
        key: region_batch[key][order] for key in ("views", "boxes", "scales", "image_boxes")
    }
    expected = smallest_model.predict(region_batch)
    answers = smallest_model.predict(shuffled)
    assert [strip(answer)["caption"] for answer in answers] == [
        strip(expected[row])["caption"] for row in order
    ]
    assert [answer.box for answer in answers] == [expected[row].box for row in order]


def test_chunks_change_nothing(smallest_model, region_batch):
    smallest_model.eval()
    whole = smallest_model.predict(region_batch)
    chunked = smallest_model.predict(region_batch, chunk=2)
    assert [answer.caption for answer in whole] == [answer.caption for answer in chunked]
    assert [dict(answer.categories) for answer in chunked] == [
        pytest.approx(dict(answer.categories), abs=1e-5) for answer in whole
    ]


def test_vocabularies_are_arguments(smallest_model, region_batch):
    answers = smallest_model.eval().predict(
        region_batch,
        attributes=["wet", "dry"],
        categories=["cat"],
        tasks=("attributes", "categories"),
    )
    assert {name for name, _ in answers[0].attributes} == {"wet", "dry"}
    assert [name for name, _ in answers[0].categories] == ["cat"]
    assert answers[0].caption is None
    assert answers[0].tags == ()


def test_scores_come_best_first(smallest_model, region_batch):
    answers = smallest_model.eval().predict(region_batch, tasks=("categories",))
    scores = [score for _, score in answers[0].categories]
    assert scores == sorted(scores, reverse=True)


def test_each_task_reads_its_own_views(smallest_model, region_batch):
    smallest_model.eval()
    three = {
        **region_batch,
        "views": torch.cat([region_batch["views"], region_batch["views"][:, 1:].flip(-1)], dim=1),
        "boxes": torch.cat([region_batch["boxes"], region_batch["boxes"][:, 1:]], dim=1),
        "scales": torch.tensor([[0.0, 0.5, 1.0]]).repeat(5, 1),
        "routes": {
            task: torch.tensor(route).repeat(5, 1)
            for task, route in {
                "caption": [0, 2],
                "tags": [0, 1],
                "attributes": [0, 1],
                "categories": [0, 1],
            }.items()
        },
    }
    routed = smallest_model.predict(three, tasks=("caption", "categories"))
    plain = smallest_model.predict(region_batch, tasks=("categories",))
    assert dict(routed[0].categories) == pytest.approx(dict(plain[0].categories), abs=1e-5)
    assert routed[0].scales == {"caption": (0.0, 1.0), "categories": (0.0, 0.5)}


def test_no_regions_give_no_predictions(smallest_model, region_batch):
    none = {key: region_batch[key][:0] for key in ("views", "boxes", "scales", "image_boxes")}
    assert smallest_model.predict(none) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"visoin": {}}, r"model: unknown \['visoin'\]"),
        ({"vision": {"depht": 2}}, r"model\.vision: unknown \['depht'\]"),
        ({"trainable": ["qformr"]}, "no module 'qformr'; there are"),
        (
            {"vision": {"image_size": 30, "patch_size": 8}},
            "expected a multiple of patch_size 8, got 30",
        ),
        ({"load_finetuned": True}, "name a checkpoint"),
    ],
)
def test_wrong_configs_are_named(smallest_config, change, message):
    with pytest.raises(ValueError, match=message):
        DynRefer.from_config({**smallest_config, **change})


def test_predictions_in_training_mode_have_no_dropout(smallest_model, region_batch):
    expected = [strip(answer) for answer in smallest_model.eval().predict(region_batch)]
    smallest_model.train()
    answers = [strip(answer) for answer in smallest_model.predict(region_batch)]
    assert answers == expected
    assert smallest_model.training


def test_answers_leave_nothing_that_training_cannot_use(smallest_config, region_batch):
    model = DynRefer.from_config(smallest_config).train()
    model(region_batch)

    model.predict(region_batch)
    model(region_batch)["loss"].backward()

    for name, weight in model.named_parameters():
        assert weight.grad is not None or not weight.requires_grad, name


def test_a_policy_need_only_name_the_tasks_that_are_asked(smallest_model, region_batch):
    three = {
        **region_batch,
        "views": torch.cat([region_batch["views"], region_batch["views"][:, 1:]], dim=1),
        "boxes": torch.cat([region_batch["boxes"], region_batch["boxes"][:, 1:]], dim=1),
        "scales": torch.tensor([[0.0, 0.5, 1.0]]).repeat(5, 1),
        "routes": {"categories": torch.tensor([[0, 2]]).repeat(5, 1)},
    }
    answers = smallest_model.eval().predict(three, tasks=("categories",))
    assert answers[0].scales == {"categories": (0.0, 1.0)}


def test_one_view_needs_no_alignment(smallest_config, region_batch):
    model = DynRefer.from_config({**smallest_config, "region": {"num_views": 1, "roi_size": 4}})
    one = {
        **region_batch,
        "views": region_batch["views"][:, :1],
        "boxes": region_batch["boxes"][:, :1],
    }
    model.train()(one)["loss"].backward()
    without = [
        name
        for name, weight in model.named_parameters()
        if weight.requires_grad and weight.grad is None
    ]
    assert without == []


def test_masks_count_in_losses_and_answers_of_a_model_that_uses_them(smallest_config, region_batch):
    config = {**smallest_config, "region": {**smallest_config["region"], "masks": "cells"}}
    torch.manual_seed(0)
    model = DynRefer.from_config(config).eval()
    masks = torch.full((len(region_batch["views"]), 28, 28), 255, dtype=torch.uint8)
    whole = {**region_batch, "masks": masks}
    masked = {**region_batch, "masks": masks.clone()}
    masked["masks"][1, :, :20] = 0

    plain, unmasked, other = (
        [dict(answer.categories) for answer in model.predict(batch, chunk=3)]
        for batch in (region_batch, whole, masked)
    )

    assert plain == unmasked
    assert [row for row in range(len(plain)) if other[row] != plain[row]] == [1]
    assert model(whole)["loss"] == model(region_batch)["loss"] != model(masked)["loss"]
    model.region_encoder.masks = "ignore"
    assert model(masked)["loss"] == model(region_batch)["loss"]
    assert [dict(answer.categories) for answer in model.predict(masked, chunk=3)] == plain
