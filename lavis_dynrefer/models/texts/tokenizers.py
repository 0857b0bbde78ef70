"""Tokenizers of the language model and of the text tower."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.hugging_face import loading
from lavis_dynrefer.models.texts.lost_text import LostText, count_lost, lost_of_rows
from lavis_dynrefer.models.weights.hugging_face_folder import hub_folder
from lavis_dynrefer.paths import find_resource, resource_path

SPECIAL_TOKENS = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
START_TOKEN = "<s>"
_KEY = "captioning.llm_options.tokenizer"
_WORDS = ("*.model", "vocab.*")
_FILES = ("*.json", "*.model", "*.txt")  # what a tokenizer is fetched for


def _read_tokenizer_file(path: Path) -> PreTrainedTokenizerFast:
    try:
        return PreTrainedTokenizerFast(
            tokenizer_file=str(path),
            bos_token=START_TOKEN,
            add_prefix_space=True,  # transformers >= 4.48 would turn it off
            **SPECIAL_TOKENS,
        )
    except Exception as error:  # the tokenizers library raises nothing more specific
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: expected a tokenizer.json of the tokenizers library ({reason:.150}); "
            "is the file complete?"
        ) from error


def load_llm_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Tokenizer of a language model from a Hugging Face name, a folder, or our tokenizer.json.

    Raises:
        InputError: nothing of that name, or the file is not a tokenizer.json, or the folder has no
            words, or words that the installed packages cannot read.
    """
    path = find_resource(source)
    if path is not None and path.is_file():
        return _read_tokenizer_file(path)
    folder = hub_folder(source, _FILES, key=_KEY) if path is None else path
    if not (folder / "tokenizer.json").is_file():
        return _from_words(folder)
    with loading(source, key=_KEY):
        found = AutoTokenizer.from_pretrained(os.fspath(folder))
        if int(transformers.__version__.split(".")[0]) < 5:
            return found
        # transformers 5 takes the words alone from the file. The rest, such as how a text is
        # normalized, is what it thinks right for this kind of model.
        tokens = {name: getattr(found, name) for name in ("bos_token", *SPECIAL_TOKENS)}
        return PreTrainedTokenizerFast.from_pretrained(os.fspath(folder), **tokens)


def _from_words(folder: Path) -> PreTrainedTokenizerBase:
    """Tokenizer of a folder without tokenizer.json, as spiece.model or vocab.json."""
    words = sorted(path.name for pattern in _WORDS for path in folder.glob(pattern))
    if not words:  # transformers 5 would make up a tokenizer without words
        raise InputError(
            f"{_KEY}: {folder} has no tokenizer.json, and no words to make a tokenizer from "
            f"({', '.join(_WORDS)})"
        )
    try:
        return AutoTokenizer.from_pretrained(os.fspath(folder))
    except Exception as error:  # by version an ImportError, TypeError or ValueError
        reason = " ".join(str(error).split())
        raise InputError(
            f"{_KEY}: {folder} has no tokenizer.json, and none can be made from {words}; "
            "put one there, or for a .model file pip install protobuf ('protobuf<3.21' with "
            f"transformers 4.26) ({reason:.150})"
        ) from error


class FileTokenizer:
    """A tokenizer.json: <s> text </s>, padded with 0.

    Args:
        path: file of the `tokenizers` library with <pad> as id 0, </s>, <unk> and <s>; its
            post-processor ends every text with </s>.
        context_length: maximum tokens of a row, including special ones.
    """

    def __init__(self, path: Path, *, context_length: int) -> None:
        self._tokenizer = _read_tokenizer_file(path)
        self._context_length = context_length
        self.vocab_size = len(self._tokenizer)
        self.end_id = self._tokenizer.eos_token_id

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Token ids (K, T) of K texts, cut to the context length, padded with 0."""
        ids = self._tokenizer(
            list(texts),
            padding="longest",
            truncation=True,
            max_length=self._context_length - 1,
            return_tensors="pt",
        )["input_ids"]
        start = torch.full((len(ids), 1), self._tokenizer.bos_token_id)
        return torch.cat([start, ids], dim=1)

    def lost(self, texts: Sequence[str]) -> LostText:
        """What `__call__` loses of texts."""
        return count_lost(texts, self._tokenizer, self._context_length - 2)  # start and end


class ClipTokenizer:
    """CLIP's byte-pair encoding, from LAVIS.

    Args:
        context_length: tokens of every row.
    """

    def __init__(self, *, context_length: int) -> None:
        # Imported here: needs ftfy, unlike a model with its own tokenizer file.
        from lavis.models.clip_models.tokenizer import SimpleTokenizer

        tokenizer = SimpleTokenizer()
        self._encode = tokenizer.encode
        self._context_length = context_length
        self._start_id = tokenizer.encoder["<start_of_text>"]
        self.end_id = tokenizer.encoder["<end_of_text>"]
        self.vocab_size = len(tokenizer.encoder)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """As `FileTokenizer`."""
        rows = torch.zeros(len(texts), self._context_length, dtype=torch.long)
        for row, text in zip(rows, texts):
            ids = self._encode(text)[: self._context_length - 2]
            ids = [self._start_id, *ids, self.end_id]
            row[: len(ids)] = torch.tensor(ids)
        return rows

    def lost(self, texts: Sequence[str]) -> LostText:
        """As `FileTokenizer`; every byte is known."""
        return lost_of_rows(texts, list(map(self._encode, texts)), self._context_length - 2)


def build_text_tokenizer(name: str, *, context_length: int) -> FileTokenizer | ClipTokenizer:
    """The tokenizer of the text tower: "clip", or the path of a tokenizer.json.

    Raises:
        MissingFileError: there is no such file.
        InputError: the file is not a tokenizer.json.
    """
    if name == "clip":
        return ClipTokenizer(context_length=context_length)
    path = resource_path(name, key="text.tokenizer")
    return FileTokenizer(path, context_length=context_length)
