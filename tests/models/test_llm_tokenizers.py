"""Token ids of language models, worked out by hand: the same under every transformers."""

from __future__ import annotations

import json

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.texts.tokenizers import load_llm_tokenizer
from lavis_dynrefer.models.weights.fetching import transfer

WORDS = ["<pad>", "</s>", "<unk>", "▁", "▁a", "▁fine", "▁cat", "▁café", "▁1", "\u2044", "2", "<x>"]
END, UNKNOWN, SPACE, A, FINE, CAT, CAFE, ONE, SLASH, TWO, MARK = range(1, 12)
T5 = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [
        {
            "id": number,
            "content": WORDS[number],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for number in (0, END, UNKNOWN, MARK)
    ],
    "normalizer": {
        "type": "Sequence",
        "normalizers": [
            {"type": "NFKC"},
            {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
        ],
    },
    "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True},
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "</s>", "type_id": 0}},
        ],
        "pair": [
            {"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 0}},
        ],
        "special_tokens": {"</s>": {"id": "</s>", "ids": [END], "tokens": ["</s>"]}},
    },
    "decoder": {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True},
    "model": {
        "type": "Unigram",
        "unk_id": UNKNOWN,
        "vocab": [[word, 0.0 if word[0] == "<" else -2.0] for word in WORDS],
    },
}
IDS = {
    "": [END],
    "a fine cat": [A, FINE, CAT, END],
    "a  fine\tcat\n": [A, FINE, CAT, SPACE, END],
    "\ufb01ne \uff43\uff41\uff54": [FINE, CAT, END],  # a ligature, full-width letters
    "cafe\u0301": [CAFE, END],  # e and an accent
    "½": [ONE, SLASH, TWO, END],
    "a\u3000cat\u00a0dog": [A, CAT, SPACE, UNKNOWN, END],
    "a<x> fine": [A, MARK, FINE, END],
}
OLDER_LLAMA = {  # without `legacy`, as Llama was first published
    **T5,
    "added_tokens": [],
    "normalizer": {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ],
    },
    "pre_tokenizer": None,
    "post_processor": None,
    "model": {
        "type": "BPE",
        "unk_token": "<unk>",
        "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, "a": 4, "▁a": 5},
        "merges": ["▁ a"],
    },
}


def write(folder, kind, words=None):
    """Files of a tokenizer, as the hub has them."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"tokenizer_class": f"{kind}Tokenizer", "extra_ids": 0}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": kind.lower()}), encoding="utf-8")
    if words is not None:
        (folder / "tokenizer.json").write_text(json.dumps(words), encoding="utf-8")
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A kept copy of a model of the hub, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv(transfer.OFFLINE_VARIABLES[0], "1")
    model, commit = tmp_path / "models--owner--t5", "0" * 40
    (model / "refs").mkdir(parents=True)
    (model / "refs/main").write_text(commit, encoding="utf-8")
    return write(model / "snapshots" / commit, "T5", T5)


@pytest.mark.parametrize("by", ["folder", "name"])
def test_t5_reads_hard_texts(hub, by):
    tokenizer = load_llm_tokenizer(str(hub) if by == "folder" else "owner/t5")

    assert {text: tokenizer(text)["input_ids"] for text in IDS} == IDS
    assert tokenizer.batch_decode([[CAT, END, 0]], skip_special_tokens=True) == ["cat"]
    found = [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id]
    assert found == [0, END, UNKNOWN]


@pytest.mark.skipif("llama" not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, reason="came with 4.28")
def test_an_older_llama_keeps_its_first_space(tmp_path):
    tokenizer = load_llm_tokenizer(str(write(tmp_path, "Llama", OLDER_LLAMA)))

    assert tokenizer(" a a", add_special_tokens=False)["input_ids"] == [3, 5, 5]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)


def test_a_folder_without_words_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no tokenizer\.json, and no words .*\*\.model, vocab"):
        load_llm_tokenizer(str(write(tmp_path, "T5")))


def test_words_of_sentencepiece_are_read_as_it_reads_them_or_refused(tmp_path):
    import sentencepiece

    stem = write(tmp_path, "T5") / "spiece"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a fine red cat left of a café", "a dog 1 2"] * 20),
        model_prefix=str(stem),
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=END,
        unk_id=UNKNOWN,
        bos_id=-1,
        normalization_rule_name="nmt_nfkc",
        minloglevel=2,
    )
    stem.with_suffix(".vocab").unlink()
    pieces = sentencepiece.SentencePieceProcessor(model_file=f"{stem}.model")
    texts = [text.strip() for text in IDS if "<" not in text]
    try:
        tokenizer = load_llm_tokenizer(str(tmp_path))
    except InputError as error:  # by what is installed
        found = str(error)
    else:
        found = [tokenizer(text)["input_ids"][:-1] for text in texts]
    refused = "none can be made from ['spiece.model']; put one there, or for a .model file pip inst"
    assert found == pieces.encode(texts) or refused in found


def test_a_broken_connection_names_the_key(monkeypatch):
    class ReadTimeoutError(Exception):  # as httpx's: no OSError
        pass

    def fetch(*_args, **_kwargs):
        raise ReadTimeoutError("timed out")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    with pytest.raises(InputError, match=r"llm_options\.tokenizer: .*'owner/no'.*\(timed out\)"):
        load_llm_tokenizer("owner/no")
