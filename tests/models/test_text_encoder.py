"""The text tower, its tokenizers and the cache of embeddings."""

from __future__ import annotations

import pytest
import torch

from lavis_dynrefer.config import TextEncoderConfig
from lavis_dynrefer.models.texts.text_bank import TextBank
from lavis_dynrefer.models.texts.text_encoder import TextEncoder
from lavis_dynrefer.models.texts.tokenizers import build_text_tokenizer

TINY = "assets/tiny/tokenizer.json"


def tower():
    torch.manual_seed(0)
    config = TextEncoderConfig(
        width=16, depth=1, heads=2, embed_dim=8, context_length=12, tokenizer=TINY
    )
    return TextEncoder(config).eval()


@pytest.mark.parametrize("name", ["clip", TINY])
def test_a_row_is_start_text_end_and_padding(name):
    tokenizer = build_text_tokenizer(name, context_length=12)
    rows = tokenizer(["a red house", "boat"])
    assert rows.shape[0] == 2
    assert (rows == tokenizer.end_id).sum(dim=1).tolist() == [1, 1]
    after_end = rows[1][(rows[1] == tokenizer.end_id).nonzero().item() + 1 :]
    assert not after_end.any()


@pytest.mark.parametrize("name", ["clip", TINY])
def test_long_texts_are_cut_but_still_end(name):
    tokenizer = build_text_tokenizer(name, context_length=12)
    rows = tokenizer(["red house " * 40])
    assert rows.shape == (1, 12)
    assert rows[0, -1] == tokenizer.end_id


def test_clip_ids_are_those_of_clip():
    rows = build_text_tokenizer("clip", context_length=77)(["a dog"])
    assert rows[0, :5].tolist() == [49406, 320, 1929, 49407, 0]  # OpenAI's tokenizer


def test_missing_tokenizer_file_names_its_key():
    with pytest.raises(FileNotFoundError, match=r"text\.tokenizer: no file 'nowhere\.json'"):
        build_text_tokenizer("nowhere.json", context_length=12)


def test_embedding_does_not_depend_on_the_batch():
    encode = tower()
    alone = encode(["a boat"])
    together = encode(["a boat", "a large red house left of a tree"])
    assert torch.allclose(alone[0], together[0], atol=1e-6)


def test_a_vocabulary_is_embedded_once():
    encode = tower().requires_grad_(False)
    bank = TextBank(encode)
    assert bank(["red", "green"]) is bank(["red", "green"])
    assert bank(["red"]) is not bank(["red", "green"])


def test_new_weights_renew_the_embeddings():
    encode = tower().requires_grad_(False)
    bank = TextBank(encode)
    before = bank(["red"]).clone()
    with torch.no_grad():
        encode.text_projection.mul_(2)
    assert not torch.allclose(before, bank(["red"]))


def test_a_trained_tower_gets_gradients():
    assert TextBank(tower())(["red"]).requires_grad


def test_embeddings_made_in_inference_mode_can_be_trained_on():
    bank = TextBank(tower().requires_grad_(False))
    with torch.inference_mode():
        bank(["red"])
    weight = torch.ones(8, requires_grad=True)
    (bank(["red"]) * weight).sum().backward()
    assert weight.grad is not None


def test_embeddings_do_not_depend_on_the_callers_precision():
    bank = TextBank(tower().requires_grad_(False))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = bank(["red"])
    assert inside.dtype == torch.float32
    assert torch.equal(inside, bank(["red"]))


def test_the_least_recently_used_vocabulary_is_dropped():
    bank = TextBank(tower().requires_grad_(False), capacity=2)
    first = bank(["red"])
    bank(["green"])
    bank(["red"])
    bank(["blue"])  # drops "green"
    assert bank(["red"]) is first


def test_captions_are_not_cached():
    bank = TextBank(tower().requires_grad_(False))
    assert bank(["red"], keep=False) is not bank(["red"], keep=False)


def test_no_texts_give_no_embeddings():
    assert TextBank(tower().requires_grad_(False))([]).shape == (0, 8)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"version": "1.0", "model": {"ty', b"\xff\xfe"])
def test_a_damaged_tokenizer_file_is_named(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json: expected a tokenizer\.json of the"):
        build_text_tokenizer(str(tmp_path / "tokenizer.json"), context_length=12)


def test_a_folder_is_not_a_tokenizer_file(tmp_path):
    with pytest.raises(ValueError, match=r"expected a tokenizer\.json.*is the file complete"):
        build_text_tokenizer(str(tmp_path), context_length=12)
