"""Text embeddings on disk: found again, never wrong, never in the way."""

from __future__ import annotations

import os
import threading

import pytest
import torch

from lavis_dynrefer.config import TextEncoderConfig
from lavis_dynrefer.models.texts import kept_embeddings, text_bank
from lavis_dynrefer.models.texts.kept_embeddings import checksum, kept
from lavis_dynrefer.models.texts.text_bank import TextBank
from lavis_dynrefer.models.texts.text_encoder import TextEncoder
from lavis_dynrefer.paths import CACHE_VARIABLE

TEXTS = ("a large red house left of a tree", "boat", "a boat")


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(text_bank, "WORTH_KEEPING", 0)
    return tmp_path / "texts"


def tower(**changes):
    torch.manual_seed(0)
    sizes = {"width": 16, "depth": 1, "heads": 2, "embed_dim": 8, "context_length": 12}
    config = TextEncoderConfig(**{**sizes, **changes}, tokenizer="assets/tiny/tokenizer.json")
    return TextEncoder(config).eval().requires_grad_(False)


def files(folder):
    return sorted(folder.glob("*.safetensors"))


def test_rows_cut_to_the_longest_text_are_those_of_the_whole_tower():
    encode = tower(depth=2)
    ids = encode.tokenizer(TEXTS)
    ids = torch.nn.functional.pad(ids, (0, 12 - ids.shape[1]))
    states = (encode.token_embedding(ids) + encode.positional_embedding).transpose(0, 1)
    mask = torch.full((12, 12), float("-inf")).triu(1)
    states = encode.ln_final(encode.transformer(states, mask).transpose(0, 1))
    expected = states[range(3), encode.lengths(ids) - 1] @ encode.text_projection
    assert torch.allclose(TextBank(encode)(TEXTS), expected, atol=1e-6)


def test_chunks_of_one_length_come_back_in_the_order_of_the_texts(monkeypatch):
    monkeypatch.setattr(text_bank, "CHUNK_ON_CPU", 2)
    encode = tower()
    alone = torch.cat([encode([text]) for text in TEXTS])
    assert torch.allclose(TextBank(encode)(TEXTS), alone, atol=1e-6)


def test_a_later_process_reads_what_an_earlier_one_has_computed(folder):
    first = TextBank(tower())(TEXTS)
    (path,) = files(folder)
    assert torch.equal(TextBank(tower())(TEXTS), first)
    kept_embeddings._write(path, first + 1)  # so that it shows where the numbers come from
    assert torch.equal(TextBank(tower())(TEXTS), first + 1)


@pytest.mark.parametrize(
    ("changes", "texts"), [({"heads": 4}, TEXTS), ({"depth": 2}, TEXTS), ({}, TEXTS[:2])]
)
def test_another_tower_or_list_has_a_file_of_its_own(folder, changes, texts):
    TextBank(tower())(TEXTS)
    encode = tower(**changes)
    expected = torch.cat([encode([text]) for text in texts])
    assert torch.allclose(TextBank(encode)(texts), expected, atol=1e-6)
    assert len(files(folder)) == 2


def test_weights_that_change_have_a_file_of_their_own(folder):
    encode = tower()
    bank = TextBank(encode)
    first = bank(TEXTS)
    encode.text_projection.mul_(2)
    assert torch.allclose(bank(TEXTS), 2 * first)
    assert len(files(folder)) == 2


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", "flip"])
def test_a_damaged_file_is_computed_again(folder, damage):
    first = TextBank(tower())(TEXTS)
    (path,) = files(folder)
    whole = path.read_bytes()
    flipped = whole[:-60] + bytes([whole[-60] ^ 1]) + whole[-59:]
    path.write_bytes(flipped if damage == "flip" else damage(whole))
    assert torch.equal(TextBank(tower())(TEXTS), first)
    assert path.read_bytes() == whole


def test_nothing_is_kept_of_a_tower_in_training_of_captions_or_of_small_lists(folder, monkeypatch):
    with torch.no_grad():
        TextBank(tower().requires_grad_(True))(TEXTS)
    TextBank(tower())(TEXTS, keep=False)
    monkeypatch.undo()
    monkeypatch.setenv(CACHE_VARIABLE, str(folder.parent))
    TextBank(tower())(TEXTS)
    assert not folder.exists()


def test_a_cache_that_cannot_be_written_is_no_fault(folder, monkeypatch):
    expected = tower()(TEXTS)
    folder.parent.joinpath("file").write_text("", encoding="utf-8")
    monkeypatch.setenv(CACHE_VARIABLE, str(folder.parent / "file"))
    assert torch.allclose(TextBank(tower())(TEXTS), expected, atol=1e-6)


def test_of_several_askers_one_computes():
    calls, results = [], []
    together = threading.Barrier(4)

    def compute():
        calls.append(1)
        return torch.ones(2, 3)

    def ask():
        together.wait()
        results.append(kept("key", compute))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert all(torch.equal(result, torch.ones(2, 3)) for result in results)


def test_the_files_read_longest_ago_make_room(folder, monkeypatch):
    for age, key in enumerate(("newer", "older", "read again")):
        kept(key, lambda: torch.zeros(100, 10))
        os.utime(folder / f"{key}.safetensors", (1000 - age, 1000 - age))
    kept("read again", lambda: torch.ones(1, 1))
    monkeypatch.setattr(kept_embeddings, "LIMIT", 10_000)  # two files
    kept("new", lambda: torch.zeros(100, 10))
    assert [path.stem for path in files(folder)] == ["new", "read again"]


def changed(tensor, index):
    other = tensor.clone()
    other.view(torch.int8)[index] ^= 1
    return other


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_checksum_sees_every_bit_name_and_format(dtype):
    size = 2**17 + 3  # more than one block, and an odd rest
    weight = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(dtype)
    swapped = weight.clone()
    swapped[[0, 8]] = weight[[8, 0]]
    seen = [
        checksum({"weight": weight}),
        checksum({"weight": weight}, 2),
        checksum({"other": weight}),
        checksum({"weight": weight[None]}),
        checksum({"weight": weight.view(torch.int16)}),
        checksum({"weight": swapped}),
        *(checksum({"weight": changed(weight, index)}) for index in (0, 7, 250_000, -1)),
    ]
    assert len(set(seen)) == len(seen)
    shifted = torch.cat([weight[:1], weight])[1:]  # where no 64-bit integer may lie
    assert checksum({"weight": shifted}) == seen[0]
