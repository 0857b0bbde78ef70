"""Flan-T5 of any size, from Hugging Face's class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from lavis_dynrefer.config import GenerationConfig
from lavis_dynrefer.models.hugging_face import (
    IGNORED,
    check_vocabulary,
    decode,
    loading,
    losses_by_row,
    mean_loss,
)
from lavis_dynrefer.models.llms.llm_options import FlanT5Options
from lavis_dynrefer.models.llms.lora import add_lora, lora_parameters
from lavis_dynrefer.models.llms.recorded_step import capture_graph
from lavis_dynrefer.models.llms.stored_weights import to_int8
from lavis_dynrefer.models.llms.t5_building import (
    T5ForConditionalGeneration,
    config_of_folder,
    config_of_sizes,
)
from lavis_dynrefer.models.llms.t5_search import T5Search
from lavis_dynrefer.models.llms.t5_stacks import encode, teacher_forced
from lavis_dynrefer.models.precision import (
    bf16_instead_of_fp16,
    product_format,
    without_autocast,
    without_gradients,
)
from lavis_dynrefer.models.texts.tokenizers import load_llm_tokenizer
from lavis_dynrefer.models.weights.hugging_face_folder import (
    fill_from_folder,
    model_folder,
    read_folder,
)
from lavis_dynrefer.models.weights.lean_building import without_values
from lavis_dynrefer.settings import from_mapping

LORA_TARGETS = ("q", "v", "lm_head")  # official; it also names embed_tokens, which peft skips


class FlanT5(nn.Module):
    """Adapter from prefix embeddings to T5.

    Args:
        model: encoder-decoder with untied lm_head.
        tokenizer: its tokenizer; pads on the right and appends </s>.
        pretrained: whether its weights come from a published checkpoint.
        recompute: as in `llm_options`.
        cuda_graphs: as in `llm_options`.
    """

    can_sample = True

    def __init__(
        self,
        model: T5ForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        *,
        pretrained: bool = False,
        recompute: bool = False,
        cuda_graphs: bool = True,
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.pretrained = pretrained
        self.recompute = recompute
        self._adapted = bool(lora_parameters(model))
        self._search = T5Search(capture_graph if cuda_graphs else None)
        self.width = model.config.d_model

    def _tokens(self, texts: Sequence[str], max_length: int) -> tuple[Tensor, Tensor]:
        """Ids (B, T) and mask (B, T), padded on the right."""
        tokens = self.tokenizer(
            list(texts),
            padding="longest",
            truncation=True,
            max_length=max_length,
            return_tensors="pt",
        )
        both = torch.stack([tokens["input_ids"], tokens["attention_mask"]])
        ids, mask = both.to(self.model.device)  # in one copy
        return ids, mask

    def _apply(self, function: Any, *args: Any, **kwargs: Any) -> FlanT5:
        """As any module; weights that move leave no copies on the device where they were."""
        self._search.clear()
        return super()._apply(function, *args, **kwargs)

    def train(self, mode: bool = True) -> FlanT5:
        """As any module; with it go copies of weights that were written to uncounted (`.data`)."""
        self._search.clear()
        return super().train(mode)

    def forget(self) -> None:
        """Let go of what was derived from the weights to find sentences."""
        # Records nothing: weights that come anew each time would be recorded for one use.
        self._search = T5Search()

    def embed(self, texts: Sequence[str], *, max_length: int) -> tuple[Tensor, Tensor]:
        """See `LanguageModel.embed`."""
        ids, mask = self._tokens(texts, max_length)
        return self.model.get_input_embeddings()(ids), mask

    def loss(
        self, prefix: Tensor, mask: Tensor, targets: Sequence[str], *, max_length: int
    ) -> Tensor:
        """See `LanguageModel.loss`."""
        return mean_loss(*self._score(prefix, mask, targets, max_length))

    def losses(
        self, prefix: Tensor, mask: Tensor, targets: Sequence[str], *, max_length: int
    ) -> Tensor:
        """See `LanguageModel.losses`."""
        return losses_by_row(*self._score(prefix, mask, targets, max_length))

    def _score(
        self, prefix: Tensor, mask: Tensor, targets: Sequence[str], max_length: int
    ) -> tuple[Tensor, Tensor]:
        """Logits (B, T, tokens) of the targets, and their labels (B, T)."""
        ids, target_mask = self._tokens(targets, max_length)
        with self.products() as dtype:
            encoded = encode(self.model, prefix, mask, dtype, recompute=self.recompute)
            logits = teacher_forced(self.model, encoded, mask, ids, recompute=self.recompute)
        return logits, ids.masked_fill(target_mask == 0, IGNORED)

    @contextmanager
    def products(self) -> Iterator[torch.dtype]:
        """The number format of products, decided once: no autocast looks at every layer again."""
        device = self.model.device
        with bf16_instead_of_fp16(device):
            dtype = product_format(self.model.get_input_embeddings().weight.dtype, device)
            # LoRA's added products are left to the autocast.
            with nullcontext() if self._adapted else without_autocast(device):
                yield dtype

    def generate(
        self, prefix: Tensor, mask: Tensor, options: GenerationConfig
    ) -> tuple[list[str], list[float]]:
        """See `LanguageModel.generate`; the score is exp of the summed token log-probabilities."""
        with without_gradients(prefix.device), self.products() as dtype:
            encoded = encode(self.model, prefix, mask, dtype)
            tokens, scores = self._search(self.model, encoded, mask, options, dtype)
        return decode(self.tokenizer, tokens), scores.exp().tolist()


def build(options: Mapping[str, Any]) -> FlanT5:
    """Flan-T5 with pretrained or random weights.

    Raises:
        InputError: an unknown option, or one that is missing or invalid, or no weights or tokenizer
            of that name.
    """
    choice = from_mapping(FlanT5Options, options, where="captioning.llm_options")
    int8 = choice.dtype == "int8"
    dtype = torch.bfloat16 if int8 else getattr(torch, choice.dtype)
    key = "captioning.llm_options.pretrained"
    folder = model_folder(choice.pretrained, key=key) if choice.pretrained else None
    tokenizer = load_llm_tokenizer(str(choice.tokenizer or folder))
    if folder is not None:
        with loading(str(choice.pretrained), key=key):
            tensors = read_folder(folder)
            config = config_of_folder(folder, tensors, key=key)
            with without_values():
                model = T5ForConditionalGeneration(config)
        fill_from_folder(model, folder, tensors, dtype, key=key)
        model.eval()
    else:
        sizes = {name: value for name, value in asdict(choice.config).items() if value is not None}
        config = config_of_sizes({"feed_forward_proj": "gated-gelu", **sizes})
        model = T5ForConditionalGeneration(config).to(dtype)
    check_vocabulary(model, tokenizer)
    if choice.lora is not None:
        model = add_lora(model, choice.lora, targets=LORA_TARGETS)
    if int8:
        to_int8(model)
    return FlanT5(
        model,
        tokenizer,
        pretrained=bool(choice.pretrained),
        recompute=choice.recompute,
        cuda_graphs=choice.cuda_graphs,
    )
