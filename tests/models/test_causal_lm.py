"""The adapter of decoder-only language models at toy size."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lavis_dynrefer.config import GenerationConfig
from lavis_dynrefer.models.llms import build_llm

TOKENIZER = "assets/tiny/tokenizer.json"
# Large random weights, so that the likeliest word depends on the prompt.
CONFIGS = {
    "opt": {
        "model_type": "opt",
        "vocab_size": 560,
        "hidden_size": 16,
        "word_embed_proj_dim": 12,
        "ffn_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "init_std": 0.5,
    },
    "llama": {
        "model_type": "llama",
        "vocab_size": 560,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "initializer_range": 0.5,
    },
    "gpt2": {  # the only one that would count padding as positions
        "model_type": "gpt2",
        "vocab_size": 560,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 64,
        "initializer_range": 0.5,
    },
}
KINDS = [kind for kind in CONFIGS if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES]  # Llama: >= 4.28
START, END = 3, 1  # <s> and </s> of the tokenizer
NO_PENALTY = {"repetition_penalty": 1.0, "max_new_tokens": 6}


@pytest.fixture(params=KINDS)
def options(request):
    return {"tokenizer": TOKENIZER, "config": CONFIGS[request.param]}


@pytest.fixture
def llm(options):
    torch.manual_seed(0)
    return build_llm("causal_lm", options).eval()


@pytest.fixture
def prefix(llm):
    return torch.randn(2, 5, llm.width, generator=torch.Generator().manual_seed(0))


MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


@pytest.fixture
def spoken(llm, monkeypatch):
    """Token ids (B, T) of every call of `generate`, as they go to the tokenizer."""
    seen = []
    decode = llm.tokenizer.batch_decode

    def record(words, **kwargs):
        seen.append(torch.tensor(words))
        return decode(words, **kwargs)

    monkeypatch.setattr(llm.tokenizer, "batch_decode", record)
    return seen


def ids_of(llm, text):
    return llm.tokenizer(text, add_special_tokens=False)["input_ids"]


@torch.no_grad()
def log_probabilities(llm, prompt, words):
    """Log-probabilities (T, vocabulary) after an unpadded prompt (P, W) and each word before."""
    words = torch.tensor(words)
    embeddings = torch.cat([prompt, llm.model.get_input_embeddings()(words)])
    logits = llm.model(inputs_embeds=embeddings[None]).logits[0]
    return logits.log_softmax(-1)[len(prompt) - 1 : -1]


def log_probability(llm, prompt, words):
    """Of each word (T,)."""
    return log_probabilities(llm, prompt, words).gather(1, torch.tensor(words)[:, None])[:, 0]


def test_prompt_has_a_start_token_and_no_end_token(llm):
    embeddings, mask = llm.embed(["red,house|", "|"], max_length=8)

    expected = llm.model.get_input_embeddings()(torch.tensor([START, *ids_of(llm, "|")]))
    assert torch.equal(embeddings[1, : len(expected)], expected)
    assert mask[1].tolist() == [1] * len(expected) + [0] * (mask.shape[1] - len(expected))
    assert mask[0].all()


def test_a_long_prompt_is_cut(llm):
    embeddings, _ = llm.embed(["red house left of a green tree|"], max_length=4)
    assert embeddings.shape == (1, 4, llm.width)


def test_loss_is_the_mean_over_the_words_and_the_end_token(llm, prefix):
    texts = ["a boat", "a boat left of a tree"]

    loss = llm.loss(prefix, MASK, texts, max_length=16)

    by_hand = [
        log_probability(llm, prefix[row, : MASK[row].sum()], [*ids_of(llm, text), END])
        for row, text in enumerate(texts)
    ]
    assert loss.item() == pytest.approx(-torch.cat(by_hand).mean().item(), rel=1e-5)
    alone = llm.losses(prefix, MASK, texts, max_length=16)
    assert alone.tolist() == pytest.approx([-one.mean().item() for one in by_hand], rel=1e-5)


def test_a_cut_target_still_ends(llm, prefix):
    loss = llm.loss(prefix[:1], MASK[:1], ["a boat left of a tree"], max_length=3)
    by_hand = log_probability(llm, prefix[0], [*ids_of(llm, "a boat"), END])
    assert loss.item() == pytest.approx(-by_hand.mean().item(), rel=1e-5)


def test_padding_gets_no_gradient(llm, prefix):
    prefix.requires_grad_(True)
    llm.loss(prefix, MASK, ["a boat", "a tree"], max_length=8).backward()
    assert (prefix.grad[1, 3:] == 0).all()
    assert (prefix.grad[MASK.bool()].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("num_beams", [1, 3])
def test_padding_of_the_prefix_changes_no_caption(llm, prefix, num_beams):
    options = GenerationConfig(num_beams=num_beams, max_new_tokens=6)

    texts, scores = llm.generate(prefix, MASK, options)

    alone, score = llm.generate(prefix[1:, :3], MASK[1:, :3], options)
    assert texts[1] == alone[0]
    assert scores[1] == pytest.approx(score[0], rel=1e-4)  # a sum of six logarithms in float32


def test_greedy_words_are_the_likeliest(llm, prefix, spoken):
    llm.generate(prefix, MASK, GenerationConfig(num_beams=1, **NO_PENALTY))
    words = spoken[0][1].tolist()
    assert log_probabilities(llm, prefix[1, :3], words).argmax(1).tolist() == words


@pytest.mark.parametrize("num_beams", [1, 3])
def test_score_is_the_probability_of_the_sequence(llm, prefix, spoken, num_beams):
    options = GenerationConfig(num_beams=num_beams, **NO_PENALTY)

    _, scores = llm.generate(prefix, MASK, options)

    words = spoken[0].tolist()
    expected = [
        log_probability(llm, prefix[row, : MASK[row].sum()], words[row]).sum().exp().item()
        for row in range(2)
    ]
    assert scores == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_score_stops_at_the_end_token(llm, prefix, spoken, num_beams):
    options = GenerationConfig(num_beams=num_beams, **NO_PENALTY)
    llm.generate(prefix, MASK, options)
    # From now on the second word of the first sentence is the end token.
    llm.tokenizer.eos_token = llm.tokenizer.convert_ids_to_tokens(spoken[0][0, 1].item())

    _, scores = llm.generate(prefix, MASK, options)

    end = llm.tokenizer.eos_token_id
    words = spoken[1][0].tolist()
    sentence = words[: words.index(end) + 1]
    assert len(sentence) < 6
    expected = log_probability(llm, prefix[0], sentence).sum().exp().item()
    assert scores[0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("num_beams", [1, 4])
@torch.no_grad()
def test_words_are_those_of_generate(llm, spoken, num_beams):
    ids = torch.randint(4, 500, (6, 5), generator=torch.Generator().manual_seed(2))
    llm.model.get_output_embeddings().weight[END] *= 2  # sentences then have different lengths
    mask = torch.ones_like(ids)
    prefix = llm.model.get_input_embeddings()(ids)
    options = GenerationConfig(num_beams, max_new_tokens=12, repetition_penalty=1.0)

    _, scores = llm.generate(prefix, mask, options)

    output = llm.model.generate(
        input_ids=ids,
        attention_mask=mask,
        num_beams=num_beams,
        max_new_tokens=12,
        length_penalty=0.0,
        eos_token_id=END,
        pad_token_id=END,
        output_scores=True,
        return_dict_in_generate=True,
    )
    expected = output.sequences[:, ids.shape[1] :]
    assert torch.equal(spoken[0][:, : expected.shape[1]], expected)
    assert (spoken[0][:, expected.shape[1] :] == END).all()
    if num_beams > 1:
        logs = torch.tensor(scores).log()
        assert torch.allclose(logs, output.sequences_scores, rtol=1e-4)


def test_repetition_penalty_forbids_repeated_words(llm, prefix, spoken):
    options = GenerationConfig(num_beams=1, max_new_tokens=8, repetition_penalty=1e6)
    llm.generate(prefix, MASK, options)
    words = spoken[0][0].tolist()
    assert len(set(words)) == len(words)


def test_repetition_penalty_does_not_touch_the_first_word(llm, prefix):
    free = llm.generate(prefix, MASK, GenerationConfig(1, 1, repetition_penalty=1.0))
    penalised = llm.generate(prefix, MASK, GenerationConfig(1, 1, repetition_penalty=1e6))
    assert penalised == free


def test_no_end_token_below_the_minimal_length(llm, prefix, spoken):
    options = GenerationConfig(num_beams=1, max_new_tokens=6, repetition_penalty=1.0)
    llm.generate(prefix, MASK, options)
    llm.tokenizer.eos_token = llm.tokenizer.convert_ids_to_tokens(spoken[0][0, 0].item())

    llm.generate(prefix, MASK, options)
    llm.generate(prefix, MASK, GenerationConfig(1, 6, min_length=3, repetition_penalty=1.0))

    end = llm.tokenizer.eos_token_id
    assert spoken[1][0, 0] == end
    assert (spoken[2][0, :2] != end).all()  # the third counts the start, as in T5


def test_the_config_has_the_special_tokens_of_the_tokenizer(llm):
    config = llm.model.config
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (START, END, 0)


def test_pretrained_folder_gives_the_same_model(llm, prefix, tmp_path):
    llm.model.save_pretrained(tmp_path)
    llm.tokenizer.save_pretrained(tmp_path)

    loaded = build_llm("causal_lm", {"pretrained": str(tmp_path)}).eval()

    texts = ["a boat", "a tree"]
    loss = llm.loss(prefix, MASK, texts, max_length=8)
    assert loaded.loss(prefix, MASK, texts, max_length=8).item() == pytest.approx(loss.item())


def test_bfloat16_weights_take_float32_prefixes(options):
    llm = build_llm("causal_lm", {**options, "dtype": "bfloat16"}).eval()
    prefix = torch.randn(2, 5, llm.width)
    assert llm.model.dtype == torch.bfloat16
    loss = llm.loss(prefix, MASK, ["a boat", "a tree"], max_length=8)
    assert loss.dtype == torch.float32  # in bfloat16 it would move in steps of 1/16
    assert loss.isfinite()
    assert len(llm.generate(prefix, MASK, GenerationConfig())[0]) == 2


def test_the_whole_model_trains_and_captions_with_it(smallest_config, options, region_batch):
    from lavis_dynrefer.models.dynrefer import DynRefer

    config = copy.deepcopy(smallest_config)
    config["captioning"] = {"llm": "causal_lm", "llm_options": options}
    model = DynRefer.from_config(config)

    model(region_batch)["loss_caption"].backward()
    predictions = model.eval().predict(region_batch, tasks=["caption"], controls=["red"])

    assert model.captioning.prefix.control_embedding.grad.abs().sum() > 0
    assert len(predictions) == 5


def test_a_kind_of_model_that_transformers_lacks_names_the_cure(monkeypatch, tmp_path):
    monkeypatch.delitem(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, "llama", raising=False)
    with pytest.raises(ImportError, match=r"type 'llama' in transformers .*transformers>=4\.28,<6"):
        build_llm("causal_lm", {"tokenizer": TOKENIZER, "config": {"model_type": "llama"}})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt9"}), encoding="utf-8")
    with pytest.raises(ImportError, match="no decoder-only model of type 'gpt9'"):
        build_llm("causal_lm", {"tokenizer": TOKENIZER, "pretrained": str(tmp_path)})


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"tokenizer": TOKENIZER}, "give `pretrained`, or `config` with a `model_type`"),
        (
            {"tokenizer": TOKENIZER, "config": {**CONFIGS["opt"], "vocab_size": 100}},
            r"config\.vocab_size: expected at least \d+.*got 100",
        ),
        ({"dtype": "float16"}, "expected 'float32' or 'bfloat16', got 'float16'"),
        (
            {"tokenizer": TOKENIZER, "pretrained": "tests/models"},
            r"llm_options\.pretrained: cannot load 'tests/models'",
        ),
    ],
)
def test_wrong_options_are_named(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        build_llm("causal_lm", options)
