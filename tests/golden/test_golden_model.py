"""Same weights and views in, the official numbers out."""

from __future__ import annotations

import pytest
import torch
import torchvision
from golden_folder import build, read_json, read_tensors

from lavis_dynrefer.config import GenerationConfig
from lavis_dynrefer.models import region_encoder
from lavis_dynrefer.models.answering import Answerer
from lavis_dynrefer.models.weights.checkpoint import from_official
from lavis_dynrefer.questions import TASKS, Questions
from lavis_dynrefer.vocab.prompts import attribute_prompts

STAGE = 2e-4  # stage tensors; 1e-6 noise on the weights alone moves Q-Former outputs by 3e-5
SCORE = 1e-4  # logits, probabilities, and log-scores relative to their size
TOKENS = (0, 1, 2, 17, 100, 137, 240, 256)  # rows of a token sequence that were recorded


def tokens(x, _):
    return x[:, [row for row in TOKENS if row < x.shape[1]]]


RECORDED = {  # golden name -> stage, and the part of it that was recorded
    "vit_tokens": ("visual_encoder", tokens),
    "ln_vision_tokens": ("ln_vision", tokens),
    "roi_align_region1": ("_roi_align", lambda x, v: x[v : 2 * v, ::4]),
    "roi_align_sub": ("_roi_align", lambda x, _: x[:, ::8, ::5, ::5]),
    "align_out_first": ("cvem_align", lambda x, _: x[0, ::4]),
    "align_out_sub": ("cvem_align", lambda x, _: x[:, ::8, ::5, ::5]),
    "visual_embeds_region0": ("cvem_mlp", lambda x, _: x[0]),
    "visual_embeds_tokens": ("cvem_mlp", tokens),
    "qformer_out": ("Qformer.bert", lambda x, _: x),
    "tag_logits": ("tag_logits", lambda x, _: x),
    "tag_probs": ("tag_logits", lambda x, _: x.sigmoid()),
    "t5_proj_out": ("t5_proj", lambda x, _: x),
}
WHOLE = ("visual_encoder", "ln_vision", "_roi_align", "cvem_align", "cvem_mlp", "Qformer.bert")
GENERATION = ("num_beams", "max_new_tokens", "min_length", "length_penalty", "repetition_penalty")
FORCED = "_forced_controls"  # in outputs.json; the tensors of these runs are called "<run>fc"


def runs(folder):
    """Runs of the official beam search in outputs.json."""
    found = read_json(folder / "outputs.json").items()
    return [name for name, run in found if isinstance(run, dict) and "sequences_scores" in run]


def runs_with(suffix):
    """Of these, the ones that a tensor `eval/<run>_<suffix>` was recorded for."""

    def names(folder):
        tensors = read_tensors(folder / "outputs.safetensors.xz")
        return [run for run in runs(folder) if tensor_of(run, suffix) in tensors]

    return names


def tensor_of(run, suffix):
    return f"eval/{run.replace(FORCED, 'fc')}_{suffix}"


CASES = {
    "name": lambda folder: [
        name
        for name in RECORDED
        if f"eval/{name}" in read_tensors(folder / "outputs.safetensors.xz")
    ],
    "stage": lambda folder: [
        stage for stage in WHOLE if stage in read_json(folder / "outputs.json")["stats"]
    ],
    "run": runs,
    "prompt_run": runs_with("inputs_embeds"),
    "token_run": runs_with("sequences"),
}


def test_stage(name, stages, tensors, model, close):
    stage, part = RECORDED[name]
    ours = part(stages[stage], model.region_encoder.num_views)
    atol = SCORE if name in ("tag_logits", "tag_probs") else STAGE
    close(name, ours, tensors[f"eval/{name}"], atol=atol)


def test_whole_stage_by_its_statistics(stage, stages, numbers, close):
    x = stages[stage].double()
    ours = [x.mean(), x.std(), x.abs().max()]
    close(f"{stage} mean, std, max", ours, numbers["stats"][stage][:3], atol=STAGE)


def test_rois(model, inputs, tensors, monkeypatch, close):
    seen = []
    real = torchvision.ops.roi_align

    def spy(maps, rois, **options):
        seen.append(rois)
        return real(maps, rois, **options)

    monkeypatch.setattr(region_encoder.ops, "roi_align", spy)
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


def scores_of(model, stages, task, names, **asked):
    """(B, K) scores of one task in the order of `names`."""
    queries = dict.fromkeys(TASKS, stages["Qformer.bert"])
    with torch.no_grad():
        answers = Answerer(model).decode(queries, Questions(tasks=(task,), **asked))[task]
    return torch.tensor([[dict(row)[name] for name in names] for row in answers])


def test_attribute_scores(model, stages, tensors, close):
    names = [attribute.name for attribute in model.attributes]
    ours = scores_of(model, stages, "attributes", names)
    close("attr_scores", ours, tensors["eval/attr_scores"], atol=SCORE)


def test_logits_of_all_attribute_prompts(model, stages, tensors, close):
    texts = [text for attribute in model.attributes for text in attribute_prompts(attribute)]
    with torch.no_grad():
        ours = model.contrast(model.embed_texts(texts), stages["Qformer.bert"])
    close("attr_logits_all_templates", ours, tensors["eval/attr_logits_all_templates"], atol=SCORE)


def test_category_logits(model, stages, numbers, tensors, close):
    names = numbers["ov_classes"]
    ours = scores_of(model, stages, "categories", names, categories=names)
    close("cls_logits", ours, tensors["eval/cls_logits"], atol=SCORE)


def test_kept_tags(run, model, stages, numbers):
    kept = [
        sorted(name for name, _ in row)
        for row in model.tagging.names(stages["tag_logits"], model.tagging.tags)
    ]
    assert kept == [sorted(names) for names in numbers[run]["tags"]]


def test_captions_and_scores(run, model, stages, numbers, close):
    record = numbers[run]
    settings = {name: record["generate_kwargs"][name] for name in GENERATION}
    settings["length_penalty"] = float(settings["length_penalty"])
    captions, scores = model.captioning.generate(
        stages["Qformer.bert"], record["control_words"], GenerationConfig(**settings)
    )
    assert captions == record["captions"]
    theirs = torch.tensor(record["sequences_scores"]).double()
    relative = (torch.tensor(scores).double().log() - theirs) / theirs
    close(f"{run} log-score, relative", relative, torch.zeros_like(relative), atol=SCORE)


def test_prompt_of_the_language_model(prompt_run, model, stages, numbers, tensors, close):
    controls = numbers[prompt_run]["control_words"]
    with torch.no_grad():
        embeddings, mask = model.captioning.prompt(stages["Qformer.bert"], controls)
    recorded = tensors[tensor_of(prompt_run, "inputs_embeds")]
    close(f"{prompt_run} inputs_embeds", embeddings, recorded, atol=STAGE)
    assert torch.equal(mask.long(), tensors[tensor_of(prompt_run, "attention_mask")].long())


def test_generated_tokens(token_run, model, stages, numbers, tensors):
    record = numbers[token_run]
    settings = {name: record["generate_kwargs"][name] for name in GENERATION}
    with torch.no_grad():
        embeddings, mask = model.captioning.prompt(stages["Qformer.bert"], record["control_words"])
        tokens = model.captioning.llm.model.generate(
            inputs_embeds=embeddings, attention_mask=mask, **settings
        )
    end = model.captioning.llm.model.config.eos_token_id
    recorded = tensors[tensor_of(token_run, "sequences")]
    assert torch.equal(up_to_end(tokens, end), up_to_end(recorded, end))


def up_to_end(tokens, end):
    """Tokens (B, T) with the end in place of what follows it: newer transformers fill with it."""
    after = (tokens == end).cumsum(dim=1) > 0
    return tokens.long().masked_fill(after, end)


def test_encoder_of_the_language_model(golden_dir, model, stages, numbers, tensors, close):
    natural = next(run for run in runs_with("inputs_embeds")(golden_dir) if FORCED not in run)
    with torch.no_grad():
        embeddings, mask = model.captioning.prompt(
            stages["Qformer.bert"], numbers[natural]["control_words"]
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
    first, second = tensors["train/tags"].split(len(model.tagging.tags), dim=1)  # the two tag sets
    record = numbers["train"]
    losses = model(
        {
            "views": inputs[0],
            "boxes": inputs[1],
            "captions": record["caps"],
            "tags": [row.nonzero().flatten().tolist() for row in first + second],
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
