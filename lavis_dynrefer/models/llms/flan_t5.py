"""Flan-T5 of any size, from Hugging Face's class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, T5Config, T5ForConditionalGeneration

from lavis_dynrefer.config import GenerationConfig
from lavis_dynrefer.models.hugging_face import (
    IGNORED,
    check_vocabulary,
    decode,
    loading,
    losses_by_row,
)
from lavis_dynrefer.models.llms.beam_search import beam_search
from lavis_dynrefer.models.llms.llm_options import FlanT5Options
from lavis_dynrefer.models.llms.lora import add_lora
from lavis_dynrefer.models.llms.t5_steps import T5Steps
from lavis_dynrefer.models.precision import bf16_instead_of_fp16
from lavis_dynrefer.models.texts.tokenizers import load_t5_tokenizer
from lavis_dynrefer.settings import from_mapping

LORA_TARGETS = ("q", "v", "lm_head")  # official; it also names embed_tokens, which peft skips


class FlanT5(nn.Module):
    """Adapter from prefix embeddings to T5.

    Args:
        model: encoder-decoder with untied lm_head.
        tokenizer: its tokenizer; pads on the right and appends </s>.
        pretrained: whether its weights come from a published checkpoint.
    """

    def __init__(
        self,
        model: T5ForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        *,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.pretrained = pretrained
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

    def embed(self, texts: Sequence[str], *, max_length: int) -> tuple[Tensor, Tensor]:
        """See `LanguageModel.embed`."""
        ids, mask = self._tokens(texts, max_length)
        return self.model.get_input_embeddings()(ids), mask

    def loss(
        self, prefix: Tensor, mask: Tensor, targets: Sequence[str], *, max_length: int
    ) -> Tensor:
        """See `LanguageModel.loss`."""
        return self._score(prefix, mask, targets, max_length)[0].loss

    def losses(
        self, prefix: Tensor, mask: Tensor, targets: Sequence[str], *, max_length: int
    ) -> Tensor:
        """See `LanguageModel.losses`."""
        output, labels = self._score(prefix, mask, targets, max_length)
        return losses_by_row(output.logits, labels)

    def _score(
        self, prefix: Tensor, mask: Tensor, targets: Sequence[str], max_length: int
    ) -> tuple[Any, Tensor]:
        """What the model returns for the targets, and their labels (B, T)."""
        ids, target_mask = self._tokens(targets, max_length)
        labels = ids.masked_fill(ids == self.tokenizer.pad_token_id, IGNORED)
        with bf16_instead_of_fp16(prefix.device):
            output = self.model(
                inputs_embeds=prefix,
                attention_mask=mask,
                decoder_attention_mask=target_mask,
                labels=labels,
                return_dict=True,
            )
        return output, labels

    @torch.no_grad()
    def generate(
        self, prefix: Tensor, mask: Tensor, options: GenerationConfig
    ) -> tuple[list[str], list[float]]:
        """See `LanguageModel.generate`; the score is exp of the summed token log-probabilities."""
        with bf16_instead_of_fp16(prefix.device):
            encoded = self.model.get_encoder()(inputs_embeds=prefix, attention_mask=mask)[0]
            steps = T5Steps(
                self.model, encoded, mask, beams=options.num_beams, steps=options.max_new_tokens
            )
            config = self.model.config
            start = torch.full_like(mask[:, 0], config.decoder_start_token_id, dtype=torch.long)
            tokens, scores = beam_search(steps, start, options, end=config.eos_token_id)
        return decode(self.tokenizer, tokens), scores.exp().tolist()


def build(options: Mapping[str, Any]) -> FlanT5:
    """Flan-T5 with pretrained or random weights.

    The gated feed-forward uses the exact GELU, not Flan-T5's tanh approximation, because BLIP-2 and
    DynRefer were trained that way.

    Raises:
        InputError: an unknown option, or one that is missing or invalid, or no weights or tokenizer
            of that name.
    """
    choice = from_mapping(FlanT5Options, options, where="captioning.llm_options")
    tokenizer = load_t5_tokenizer(str(choice.tokenizer or choice.pretrained))
    dtype = getattr(torch, choice.dtype)
    if choice.pretrained:
        with loading(choice.pretrained, key="captioning.llm_options.pretrained"):
            config = T5Config.from_pretrained(choice.pretrained)
            config.dense_act_fn = "gelu"
            model = T5ForConditionalGeneration.from_pretrained(
                choice.pretrained, config=config, torch_dtype=dtype
            )
    else:
        sizes = {name: value for name, value in asdict(choice.config).items() if value is not None}
        config = T5Config(**{"feed_forward_proj": "gated-gelu", **sizes})
        config.dense_act_fn = "gelu"
        model = T5ForConditionalGeneration(config).to(dtype)
    check_vocabulary(model, tokenizer)
    if choice.lora is not None:
        model = add_lora(model, choice.lora, targets=LORA_TARGETS)
    return FlanT5(model, tokenizer, pretrained=bool(choice.pretrained))
