"""What all models and tokenizers from Hugging Face share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn

from lavis_dynrefer.errors import DynReferError, InputError

IGNORED = -100  # label that cross-entropy ignores
# Spaced as tokens are -> as it is written, in this order.
_JOINED = (
    *((f" {mark}", mark) for mark in (".", "?", "!", ",")),
    (" ' ", "'"),
    *((f" {end}", end) for end in ("n't", "'m", "'s", "'ve", "'re")),
)
# What transformers raises about names, folders and files that it cannot load.
_UNLOADABLE = (OSError, ValueError, LookupError, SafetensorError)


@contextmanager
def loading(source: str, *, key: str) -> Iterator[None]:
    """Turn the errors of `from_pretrained` into an `InputError`.

    Args:
        source: the name or folder that is loaded.
        key: the setting that names it.
    """
    try:
        yield
    except DynReferError:
        raise
    except _UNLOADABLE as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{key}: cannot load {source!r}; expected a folder of Hugging Face files or a name on "
            f"huggingface.co ({reason:.200})"
        ) from error


def check_vocabulary(model: Any, tokenizer: Any) -> None:
    """Check that the model has an embedding for every token.

    Raises:
        InputError: it has fewer.
    """
    if model.config.vocab_size < len(tokenizer):
        raise InputError(
            f"captioning.llm_options.config.vocab_size: expected at least {len(tokenizer)}, the "
            f"tokens of the tokenizer, got {model.config.vocab_size}"
        )


def mean_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits (B, T, tokens) against labels (B, T), some `IGNORED`.

    In float32 whatever the logits are in: in bfloat16 it would move in steps of 1/16.
    """
    return nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED
    )


def losses_by_row(logits: Tensor, labels: Tensor) -> Tensor:
    """As `mean_loss`, for each row by itself: (B,)."""
    losses = nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return losses.unflatten(0, labels.shape).sum(dim=1) / (labels != IGNORED).sum(dim=1)


def decode(tokenizer: Any, tokens: Tensor) -> list[str]:
    """Sentences (B) of tokens (B, T), without special tokens."""
    texts = tokenizer.batch_decode(
        tokens.tolist(),  # all at once: the tokenizer would read a tensor row by row
        skip_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )
    return [_joined(text).strip() for text in texts]


def _joined(text: str) -> str:
    """The text without spaces before punctuation, as transformers 4.26 writes it.

    Newer ones leave them by default, and from 5 on always where the tokens are byte pairs.
    """
    for spaced, mark in _JOINED:
        text = text.replace(spaced, mark)
    return text
