"""Our beam search and T5's decoder step by step, compared with Hugging Face's `generate`."""

from __future__ import annotations

import random

import pytest
import torch
import transformers

from lavis_dynrefer.config import GenerationConfig
from lavis_dynrefer.models.llms import build_llm
from lavis_dynrefer.models.llms.beam_search import beam_search

NEWER, OLDER = "transformers-4.50", "transformers-4.26"
# That of the installed transformers.
RULE = NEWER if tuple(map(int, transformers.__version__.split(".")[:2])) >= (4, 50) else OLDER

START, END, A, B = range(4)
# After START comes A (.6) or B (.4); after A anything, after B nearly always the end.
TABLE = torch.tensor(
    [[0, 0, 0.6, 0.4], [0.25, 0.25, 0.25, 0.25], [0.4, 0.2, 0.2, 0.2], [0.05, 0.9, 0.03, 0.02]]
)


def search(*, table=TABLE, rows=1, **options):
    settings = {"max_new_tokens": 3, "repetition_penalty": 1.0, **options}
    start = torch.full((rows,), START)
    return beam_search(
        lambda tokens, parents: table.log()[tokens], start, GenerationConfig(**settings), end=END
    )


def test_one_beam_takes_the_best_token_each_time():
    tokens, scores = search(num_beams=1, max_new_tokens=2)

    assert tokens.tolist() == [[START, A, START]]
    assert scores.exp().tolist() == pytest.approx([0.6 * 0.4])


def test_two_beams_find_the_better_sequence():
    tokens, scores = search(num_beams=2)

    assert tokens[0, :3].tolist() == [START, B, END]
    assert scores.exp().tolist() == pytest.approx([0.4 * 0.9])


def test_the_end_token_also_fills_what_follows():
    tokens, _ = search(num_beams=2, min_length=1)

    assert set(tokens[0, 2:].tolist()) == {END}


def test_no_sequence_ends_before_the_minimal_length():
    tokens, scores = search(num_beams=2, min_length=3)

    assert END not in tokens[0, :3].tolist()
    assert scores.exp().item() < 0.36


def test_a_sequence_that_never_ends_is_cut():
    endless = TABLE.clone()
    endless[:, END] = 0

    tokens, _ = search(table=endless, num_beams=2, max_new_tokens=5)

    assert tokens.shape == (1, 6)
    assert END not in tokens


def test_the_start_of_a_sentence_that_was_cut_counts_by_the_older_rule_only():
    endless = TABLE.clone()
    endless[:, END] = 0
    options = {"table": endless, "num_beams": 2, "max_new_tokens": 2, "length_penalty": 1.0}

    older, newer = (search(**options, length_rule=rule)[1] for rule in (OLDER, NEWER))

    best = torch.tensor(0.6 * 0.5).log().item()  # without the end there is .8 of the row of A
    assert older.tolist() == pytest.approx([best / 3])
    assert newer.tolist() == pytest.approx([best / 2])


def test_rules_differ_in_what_else_a_cut_sentence_competes_with():
    # After two tokens START A START, of .24, has not ended and START B END, of .36, has.
    options = {"num_beams": 2, "max_new_tokens": 2, "length_penalty": 2.0}

    (older, by_three), (newer, by_two) = (search(**options, length_rule=r) for r in (OLDER, NEWER))

    ended = torch.tensor(0.4 * 0.9).log().item() / 4
    cut = torch.tensor(0.6 * 0.4).log().item() / 9
    assert by_three.tolist() == pytest.approx([max(ended, cut)])
    assert by_two.tolist() == pytest.approx([ended])
    assert older[0, 1].item() == A
    assert newer[0, 1].item() == B


def test_without_a_length_penalty_the_rules_agree():
    tokens, scores = zip(
        *(search(num_beams=2, max_new_tokens=4, length_rule=rule) for rule in (OLDER, NEWER))
    )
    assert torch.equal(*tokens)
    assert torch.equal(*scores)


def test_a_tie_is_decided_alike_whatever_else_is_in_the_batch():
    tie, longer, other = 0, 4, 2
    table = torch.full((5, 5), 1e-6)
    table[tie, other] = table[tie, 3] = 0.5
    table[other, END] = table[3, END] = 0.9
    table[longer, longer], table[longer, END] = 0.8, 0.2
    options = GenerationConfig(num_beams=2, max_new_tokens=9, repetition_penalty=1.0)

    def first_words(start):
        rows = torch.tensor(start)
        step = table.log()
        return beam_search(lambda tokens, _: step[tokens], rows, options, end=END)[0][0, :3]

    assert first_words([tie, longer]).tolist() == first_words([tie]).tolist()


@pytest.fixture(scope="module")
def llm():
    generator = torch.Generator().manual_seed(0)
    config = {"vocab_size": 768, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2}
    llm = build_llm(
        "flan_t5",
        {"tokenizer": "assets/tiny/tokenizer.json", "config": {**config, "num_heads": 2}},
    ).eval()
    with torch.no_grad():
        for weight in llm.parameters():
            weight.normal_(std=0.35, generator=generator)
        llm.model.lm_head.weight[1] *= 2.5  # sentences then have different lengths
    return llm


@pytest.fixture(scope="module")
def prompt():
    mask = torch.ones(12, 7, dtype=torch.long)
    mask[::3, 5:] = 0
    return torch.randn(12, 7, 16, generator=torch.Generator().manual_seed(1)), mask


def hugging_face(llm, prompt, options):
    """Sentences and scores of `generate`, which reports none for a single beam."""
    output = llm.model.generate(
        inputs_embeds=prompt[0],
        attention_mask=prompt[1],
        do_sample=False,
        num_beams=options.num_beams,
        max_new_tokens=options.max_new_tokens,
        min_length=options.min_length,
        length_penalty=options.length_penalty,
        repetition_penalty=options.repetition_penalty,
        output_scores=True,
        return_dict_in_generate=True,
    )
    texts = llm.tokenizer.batch_decode(
        output.sequences, skip_special_tokens=True, clean_up_tokenization_spaces=True
    )
    if options.num_beams > 1:
        return [text.strip() for text in texts], output.sequences_scores.exp().tolist()
    steps = llm.model.compute_transition_scores(
        output.sequences, output.scores, normalize_logits=True
    )
    padding = output.sequences[:, 1:] == llm.model.config.pad_token_id
    scores = steps.masked_fill(padding[:, : steps.shape[1]], 0).sum(dim=1)
    return [text.strip() for text in texts], scores.exp().tolist()


@pytest.mark.parametrize(
    "options",
    [
        GenerationConfig(num_beams=1, repetition_penalty=1.0),
        GenerationConfig(num_beams=1, max_new_tokens=8, min_length=5),
        GenerationConfig(num_beams=2, repetition_penalty=1.0),
        GenerationConfig(num_beams=2),
        GenerationConfig(num_beams=5, max_new_tokens=30),
        GenerationConfig(num_beams=3, max_new_tokens=4, min_length=4),
        GenerationConfig(num_beams=4, length_penalty=1.0, max_new_tokens=40, length_rule=RULE),
        GenerationConfig(num_beams=3, length_penalty=-1.0, repetition_penalty=1.2),
    ],
    ids=str,
)
@torch.no_grad()
def test_sentences_and_scores_are_those_of_generate(llm, prompt, options):
    texts, scores = llm.generate(*prompt, options)

    expected, expected_scores = hugging_face(llm, prompt, options)
    assert texts == expected
    assert scores == pytest.approx(expected_scores, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(120))
@torch.no_grad()
def test_random_searches_are_those_of_generate(llm, seed):
    drawn, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    tokens = drawn.choice([1, 2, 4, 8, 13, 20, 30])
    options = GenerationConfig(
        num_beams=drawn.choice([2, 2, 3, 4, 5, 7]),
        max_new_tokens=tokens,
        min_length=min(tokens, drawn.choice([0, 1, 3, 5])),
        length_penalty=drawn.choice([0.0, 1.0, -1.0, 0.5, 2.0, -0.5, 1.7]),
        repetition_penalty=drawn.choice([1.0, 1.5, 1.2, 0.8]),
        length_rule=RULE,
    )
    rows, places = drawn.choice([1, 3, 6]), drawn.choice([1, 4, 9])
    mask = torch.ones(rows, places, dtype=torch.long)
    mask[::2, places // 2 + 1 :] = 0
    prompt = torch.randn(rows, places, 16, generator=generator), mask

    texts, scores = llm.generate(*prompt, options)

    expected, expected_scores = hugging_face(llm, prompt, options)
    assert texts == expected
    assert scores == pytest.approx(expected_scores, rel=2e-3)


@torch.no_grad()
def test_sentences_of_the_comparison_have_different_lengths(llm, prompt):
    texts, _ = llm.generate(*prompt, GenerationConfig(num_beams=2))

    assert len({len(text.split()) for text in texts}) > 3


@torch.no_grad()
def test_the_head_of_a_tied_model_is_scaled(llm, prompt, monkeypatch):
    for name in ("tie_word_embeddings", "scale_decoder_outputs"):  # of old and new transformers
        monkeypatch.setattr(llm.model.config, name, True)
    options = GenerationConfig(num_beams=2)

    assert llm.generate(*prompt, options)[1] == pytest.approx(
        hugging_face(llm, prompt, options)[1], rel=1e-4
    )
