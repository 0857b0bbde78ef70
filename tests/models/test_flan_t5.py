"""The Flan-T5 adapter at toy size."""

from __future__ import annotations

import math

import pytest
import torch

from lavis_dynrefer.config import GenerationConfig
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.hugging_face import decode
from lavis_dynrefer.models.llms import build_llm

OPTIONS = {
    "tokenizer": "assets/tiny/tokenizer.json",
    "config": {
        "vocab_size": 768,
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 1,
        "num_heads": 2,
    },
}


@pytest.fixture
def llm():
    torch.manual_seed(0)
    return build_llm("flan_t5", OPTIONS).eval()


@pytest.fixture
def prefix():
    return torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0)), torch.ones(2, 5)


def test_the_activation_is_the_exact_gelu(llm):
    gate = llm.model.encoder.block[0].layer[1].DenseReluDense.act
    x = torch.linspace(-3, 3, 7)
    exact = 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
    assert torch.allclose(gate(x), exact, atol=1e-6)


def test_prompts_are_closed_and_padded_on_the_right(llm):
    embeddings, mask = llm.embed(["red,house|", "|"], max_length=8)
    assert embeddings.shape[:2] == mask.shape
    assert mask[0].all()
    assert mask[1].tolist() == sorted(mask[1].tolist(), reverse=True)
    assert mask[1].sum() == 3  # a space, the bar and </s>


def test_loss_is_the_mean_over_real_tokens(llm, prefix):
    short = llm.loss(*prefix, ["a boat", "a boat"], max_length=8)
    padded = llm.loss(*prefix, ["a boat", "a boat left of a tree"], max_length=16)
    first = llm.loss(prefix[0][:1], prefix[1][:1], ["a boat"], max_length=8)
    second = llm.loss(prefix[0][1:], prefix[1][1:], ["a boat left of a tree"], max_length=16)
    counts = [len(llm.tokenizer(text)["input_ids"]) for text in ("a boat", "a boat left of a tree")]
    expected = (first * counts[0] + second * counts[1]) / sum(counts)
    assert padded.item() == pytest.approx(expected.item(), rel=1e-5)
    assert short.isfinite()
    alone = llm.losses(*prefix, ["a boat", "a boat left of a tree"], max_length=16)
    assert alone.tolist() == pytest.approx([first.item(), second.item()], rel=1e-5)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_score_is_the_probability_of_the_sequence(llm, prefix, num_beams):
    options = GenerationConfig(num_beams=num_beams, max_new_tokens=6, repetition_penalty=1.0)
    words = llm.model.generate(
        inputs_embeds=prefix[0],
        attention_mask=prefix[1],
        num_beams=num_beams,
        max_new_tokens=6,
        length_penalty=0.0,
    )[:, 1:]

    _, scores = llm.generate(*prefix, options)

    labels = words.masked_fill(words == 0, -100)
    logits = llm.model(inputs_embeds=prefix[0], attention_mask=prefix[1], labels=labels).logits
    logp = logits.log_softmax(-1).gather(-1, words[..., None])[..., 0]
    expected = logp.masked_fill(words == 0, 0).sum(1).exp()
    assert scores == pytest.approx(expected.tolist(), rel=1e-4)


def test_a_change_of_mode_drops_copies_of_weights(llm, prefix):
    options = GenerationConfig(num_beams=2, max_new_tokens=4)
    before = llm.generate(*prefix, options)
    layer = llm.model.get_decoder().block[0].layer[0].SelfAttention
    layer.v.weight.data.mul_(30)  # torch does not count what is written to `.data`
    llm.eval()
    _, changed = llm.generate(*prefix, options)
    layer.v.weight.data.div_(30)
    llm.eval()
    assert changed != pytest.approx(before[1], rel=1e-2)
    assert llm.generate(*prefix, options)[1] == pytest.approx(before[1], rel=1e-4)


def test_an_unknown_language_model_lists_the_known_ones():
    with pytest.raises(
        ValueError, match=r"no language model 'gpt9'; there are \['causal_lm', 'flan_t5'\]"
    ):
        build_llm("gpt9", {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "float16"}, "dtype: expected 'float32', 'bfloat16' or 'int8', got"),
        ({"weights": "x"}, r"llm_options: unknown \['weights'\]"),
        ({"config": {"d_model": 0}}, r"config\.d_model: expected at least 1, got 0"),
        ({"config": {"d_modle": 16}}, r"config: unknown \['d_modle'\]; did you mean d_model\?"),
        (
            {"config": {**OPTIONS["config"], "vocab_size": 100}},
            r"config\.vocab_size: expected at least \d+.*got 100",
        ),
        ({"tokenizer": None}, "give `pretrained`, or `config` and `tokenizer`"),
        ({"tokenizer": "no/such/folder"}, r"llm_options\.tokenizer: cannot load 'no/such/folder'"),
        ({"pretrained": "tests/models"}, r"llm_options\.pretrained: cannot load 'tests/models'"),
    ],
)
def test_invalid_options_are_named(change, message, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    with pytest.raises(InputError, match=message):
        build_llm("flan_t5", {**OPTIONS, **change})


def test_sentences_have_no_spaces_before_punctuation():
    class Words:
        """A tokenizer that leaves spaces, as transformers 5 makes those of byte pairs do."""

        def batch_decode(self, rows, **_options):
            return [" a man 's hat , it is n't red . "] * len(rows)

    assert decode(Words(), torch.zeros(1, 2)) == ["a man's hat, it isn't red."]
