"""Same weights and views in, the official code's numbers out."""

from __future__ import annotations

import pytest
import torch
import torchvision
from golden_folder import build

from lavis_dynrefer.config import GenerationConfig
from lavis_dynrefer.models import region_encoder
from lavis_dynrefer.models.answering import Questions, answer
from lavis_dynrefer.models.weights.checkpoint import from_official

STAGE = 2e-4  # stage tensors; 1e-6 noise on the weights alone moves Q-Former outputs by 3e-5
SCORE = 1e-4  # logits, probabilities, and log-scores relative to their size
TOKENS = [0, 1, 2, 17, 100, 137, 240, 256]  # rows of a token sequence that were kept
KEPT = {  # golden name -> stage, and the part of it that was kept
    "vit_tokens": ("visual_encoder", lambda x, _: x[:, TOKENS]),
    "ln_vision_tokens": ("ln_vision", lambda x, _: x[:, TOKENS]),
    "roi_align_region1": ("_roi_align", lambda x, v: x[v : 2 * v, ::4]),
    "roi_align_sub": ("_roi_align", lambda x, _: x[:, ::8, ::5, ::5]),
    "align_out_first": ("cvem_align", lambda x, _: x[0, ::4]),
    "align_out_sub": ("cvem_align", lambda x, _: x[:, ::8, ::5, ::5]),
    "visual_embeds_region0": ("cvem_mlp", lambda x, _: x[0]),
    "visual_embeds_tokens": ("cvem_mlp", lambda x, _: x[:, TOKENS]),
    "qformer_out": ("Qformer.bert", lambda x, _: x),
    "tag_logits": ("tag_logits", lambda x, _: x),
    "tag_probs": ("tag_logits", lambda x, _: x.sigmoid()),
    "t5_proj_out": ("t5_proj", lambda x, _: x),
}
RUNS = (
    "beams2",
    "beams5",
    "beams5_user_controls",
    "beams2_forced_controls",
    "beams5_forced_controls",
)


@pytest.mark.parametrize("name", KEPT)
def test_stage(name, stages, tensors, model, close):
    stage, part = KEPT[name]
    ours = part(stages[stage], model.region_encoder.num_views)
    atol = SCORE if name in ("tag_logits", "tag_probs") else STAGE
    close(name, ours, tensors[f"eval/{name}"], atol=atol)


@pytest.mark.parametrize(
    "stage", ["visual_encoder", "ln_vision", "_roi_align", "cvem_align", "cvem_mlp", "Qformer.bert"]
)
def test_whole_stage_by_its_statistics(stage, stages, numbers, close):
    x = stages[stage].double()
    mean, std, largest, _ = numbers["stats"][stage]
    close(
        f"{stage} mean, std, max",
        [x.mean(), x.std(), x.abs().max()],
        [mean, std, largest],
        atol=STAGE,
    )


def test_rois(model, inputs, tensors, monkeypatch, close):
    seen = []
    real = torchvision.ops.roi_align

    def spy(maps, rois, **options):
        seen.append(rois)
        return real(maps, rois, **options)

    monkeypatch.setattr(region_encoder, "roi_align", spy)
    with torch.no_grad():
        model.encode_views(*inputs)
    close("rois_in", seen[0], tensors["eval/rois_in"], atol=0)


def test_token_ids_of_the_text_tower(model, numbers, tensors):
    assert torch.equal(
        model.text_encoder.tokenizer(numbers["texts"]).int(), tensors["text/ids"].int()
    )


def test_text_embeddings(model, numbers, tensors, close):
    ours = model.embed_texts(numbers["texts"])
    close("encode_text", ours, tensors["text/encode_text"], atol=SCORE)


def ask(model, stages, **changes):
    questions = Questions(
        tasks=changes.pop("tasks"),
        attributes=model.attributes,
        categories=changes.pop("categories", ()),
        generation=GenerationConfig(),
    )
    queries = stages["Qformer.bert"]
    routes = dict.fromkeys(("caption", "tags", "attributes", "categories"), queries)
    with torch.no_grad():
        return answer(model, routes, questions, [()] * len(queries))


def test_attribute_scores(model, stages, tensors, close):
    answers = ask(model, stages, tasks=("attributes",))["attributes"]
    names = [attribute.name for attribute in model.attributes]
    ours = torch.tensor([[dict(row)[name] for name in names] for row in answers])
    close("attr_scores", ours, tensors["eval/attr_scores"], atol=SCORE)


def test_logits_of_all_attribute_prompts(model, stages, tensors, close):
    from lavis_dynrefer.vocab.prompts import attribute_prompts

    texts = [text for attribute in model.attributes for text in attribute_prompts(attribute)]
    with torch.no_grad():
        ours = model.contrast(model.embed_texts(texts), stages["Qformer.bert"])
    close("attr_logits_all_templates", ours, tensors["eval/attr_logits_all_templates"], atol=SCORE)


def test_category_logits(model, stages, numbers, tensors, close):
    names = numbers["ov_classes"]
    answers = ask(model, stages, tasks=("categories",), categories=tuple(names))["categories"]
    ours = torch.tensor([[dict(row)[name] for name in names] for row in answers])
    close("cls_logits", ours, tensors["eval/cls_logits"], atol=SCORE)


def test_kept_tags(model, stages, numbers):
    kept = [sorted(name for name, _ in row) for row in model.tagging.names(stages["tag_logits"])]
    assert kept == [sorted(names) for names in numbers["beams2"]["tags"]]


@pytest.mark.parametrize("run", RUNS)
def test_captions_and_scores(run, model, stages, numbers, close):
    record = numbers[run]
    settings = record["generate_kwargs"]
    options = GenerationConfig(
        num_beams=settings["num_beams"],
        max_new_tokens=settings["max_new_tokens"],
        min_length=settings["min_length"],
        length_penalty=float(settings["length_penalty"]),
        repetition_penalty=settings["repetition_penalty"],
    )
    captions, scores = model.captioning.generate(
        stages["Qformer.bert"], record["control_words"], options
    )
    assert captions == record["captions"]
    theirs = torch.tensor(record["sequences_scores"]).double()
    relative = (torch.tensor(scores).double().log() - theirs) / theirs
    close(f"{run} log-score, relative", relative, torch.zeros_like(relative), atol=SCORE)


@pytest.mark.parametrize("run", ["beams2", "beams2fc"])
def test_prompt_of_the_language_model(run, model, stages, numbers, tensors, close):
    record = numbers["beams2_forced_controls" if run.endswith("fc") else run]
    with torch.no_grad():
        embeddings, mask = model.captioning.prompt(stages["Qformer.bert"], record["control_words"])
    close(f"{run} inputs_embeds", embeddings, tensors[f"eval/{run}_inputs_embeds"], atol=STAGE)
    assert torch.equal(mask.long(), tensors[f"eval/{run}_attention_mask"].long())


@pytest.mark.parametrize("run", ["beams2", "beams5", "beams2fc"])
def test_generated_tokens(run, model, stages, numbers, tensors):
    record = numbers["beams2_forced_controls" if run.endswith("fc") else run]
    settings = record["generate_kwargs"]
    keys = ("num_beams", "max_new_tokens", "min_length", "length_penalty", "repetition_penalty")
    with torch.no_grad():
        embeddings, mask = model.captioning.prompt(stages["Qformer.bert"], record["control_words"])
        tokens = model.captioning.llm.model.generate(
            inputs_embeds=embeddings, attention_mask=mask, **{key: settings[key] for key in keys}
        )
    assert torch.equal(tokens.long(), tensors[f"eval/{run}_sequences"].long())


def test_encoder_of_the_language_model(model, stages, numbers, tensors, close):
    with torch.no_grad():
        embeddings, mask = model.captioning.prompt(
            stages["Qformer.bert"], numbers["beams2"]["control_words"]
        )
        ours = model.captioning.llm.model.encoder(inputs_embeds=embeddings, attention_mask=mask)
    close("t5_encoder_out", ours.last_hidden_state, tensors["eval/t5_encoder_out"], atol=STAGE)


def test_token_ids_of_the_language_model(model, numbers):
    ours = {
        text: model.captioning.llm.tokenizer(text)["input_ids"]
        for text in numbers["tokenizer_examples"]
    }
    assert ours == numbers["tokenizer_examples"]


@pytest.fixture(scope="module")
def training(golden_dir, weights, inputs, numbers, tensors):
    """Losses of one training step and the gradient norm of every parameter."""
    model = build(golden_dir, weights).train()
    names = model.tagging.tags
    both = tensors["train/tags"]
    hot = (both[:, : len(names)] + both[:, len(names) :]).clamp(max=1)
    record = numbers["train"]
    losses = model(
        {
            "views": inputs[0],
            "boxes": inputs[1],
            "captions": record["caps"],
            "tags": [[names[column] for column in row.nonzero().flatten()] for row in hot],
            "controls": record["cap_control_words"],
        }
    )
    losses["loss"].backward()
    norms = {
        name: weight.grad.norm().item()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }
    return losses, norms


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("loss", "loss"),
        ("loss_caption", "loss_llm"),
        ("loss_tag", "loss_tag"),
        ("loss_contrast", "loss_att"),
    ],
)
def test_training_losses(ours, theirs, training, numbers, close):
    close(f"training {ours}", training[0][ours].detach(), numbers["train"][theirs], atol=SCORE)


def test_gradient_norms(training, numbers, close):
    recorded = numbers["train"]["grad_norms"]
    norms = {
        next(iter(from_official({name: torch.zeros(())}))): value
        for name, value in recorded.items()
    }
    assert set(training[1]) == set(norms)
    # A key's bias cannot change a softmax: its gradient is rounding, so small ones are absolute.
    relative = [(training[1][name] - norm) / max(abs(norm), 1e-2) for name, norm in norms.items()]
    close("gradient norms, relative", relative, [0.0] * len(relative), atol=1e-3)
