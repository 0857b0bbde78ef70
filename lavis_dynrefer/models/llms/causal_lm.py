"""Decoder-only language models: OPT and, with newer transformers, Llama and Vicuna."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lavis_dynrefer.config import GenerationConfig
from lavis_dynrefer.errors import InputError, MissingPackageError
from lavis_dynrefer.models.hugging_face import (
    IGNORED,
    check_vocabulary,
    decode,
    loading,
    losses_by_row,
    mean_loss,
)
from lavis_dynrefer.models.llms.beam_search import beam_search
from lavis_dynrefer.models.llms.llm_options import CausalLMOptions
from lavis_dynrefer.models.llms.lora import add_lora
from lavis_dynrefer.models.precision import bf16_instead_of_fp16, without_gradients
from lavis_dynrefer.models.texts.tokenizers import load_llm_tokenizer
from lavis_dynrefer.models.weights.hugging_face_folder import (
    fill_from_folder,
    model_folder,
    read_folder,
)
from lavis_dynrefer.models.weights.lean_building import without_values
from lavis_dynrefer.settings import from_mapping

LORA_TARGETS = ("q_proj", "v_proj", "lm_head")  # what the released code adapts in its T5


class CausalLM(nn.Module):
    """Adapter from prefix embeddings to a decoder-only language model.

    A row is: region queries, start token, control words, "|", caption, end token. No end token
    follows the control words, because a decoder-only model would take it for the end of the text.
    Unlike in the released Vicuna variant, control tokens get the control embedding (there
    `cem_memory` is unused) and `max_new_tokens` applies (there it is ignored): both belong to the
    shared caption decoder.

    Args:
        model: any `AutoModelForCausalLM`.
        tokenizer: its tokenizer, with a start and an end token; they may be the same, as in OPT.
        pretrained: whether its weights come from a published checkpoint.
    """

    can_sample = True

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.pretrained = pretrained
        self.width = model.get_input_embeddings().weight.shape[1]

    def _tokens(self, texts: Sequence[str], max_length: int) -> list[list[int]]:
        """Ids without start and end tokens, cut so that one of them still fits."""
        tokens = self.tokenizer(
            list(texts), add_special_tokens=False, truncation=True, max_length=max_length - 1
        )
        return tokens["input_ids"]

    def _pad(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Ids (B, T) and mask (B, T), padded on the right."""
        length = max(len(row) for row in rows)
        padding = self.tokenizer.eos_token_id
        ids = [[*row, *[padding] * (length - len(row))] for row in rows]
        mask = [[1] * len(row) + [0] * (length - len(row)) for row in rows]
        both = torch.tensor([ids, mask], device=self.model.device)  # in one copy
        return both[0], both[1]

    def embed(self, texts: Sequence[str], *, max_length: int) -> tuple[Tensor, Tensor]:
        """See `LanguageModel.embed`; with a start token and without an end token."""
        start = self.tokenizer.bos_token_id
        ids, mask = self._pad([[start, *row] for row in self._tokens(texts, max_length)])
        return self.model.get_input_embeddings()(ids), mask

    def loss(
        self, prefix: Tensor, mask: Tensor, targets: Sequence[str], *, max_length: int
    ) -> Tensor:
        """See `LanguageModel.loss`; the end token is a target too."""
        return mean_loss(*self._score(prefix, mask, targets, max_length))

    def losses(
        self, prefix: Tensor, mask: Tensor, targets: Sequence[str], *, max_length: int
    ) -> Tensor:
        """See `LanguageModel.losses`."""
        return losses_by_row(*self._score(prefix, mask, targets, max_length))

    def _score(
        self, prefix: Tensor, mask: Tensor, targets: Sequence[str], max_length: int
    ) -> tuple[Tensor, Tensor]:
        """Logits (B, P + T - 1, tokens) of what follows each token, and its labels."""
        end = self.tokenizer.eos_token_id
        ids, target_mask = self._pad([[*row, end] for row in self._tokens(targets, max_length)])
        words = self.model.get_input_embeddings()(ids)
        embeddings = torch.cat([prefix.to(words.dtype), words], dim=1)
        mask = torch.cat([mask.long(), target_mask], dim=1)
        unlabelled = torch.full_like(mask[:, : prefix.shape[1]], IGNORED)
        labels = torch.cat([unlabelled, ids.masked_fill(target_mask == 0, IGNORED)], dim=1)
        # All real tokens of a row come first: no gap between prompt and target, correct positions
        # in every architecture, and causal attention never sees the padding.
        order = mask.argsort(dim=1, descending=True, stable=True)
        labels = labels.gather(1, order)
        with bf16_instead_of_fp16(prefix.device):
            logits = self.model(
                inputs_embeds=embeddings.take_along_dim(order[..., None], dim=1),
                attention_mask=mask.gather(1, order),
                use_cache=False,
                return_dict=True,
            ).logits
        return logits[:, :-1], labels[:, 1:]

    def generate(
        self, prefix: Tensor, mask: Tensor, options: GenerationConfig
    ) -> tuple[list[str], list[float]]:
        """See `LanguageModel.generate`; the score is exp of the summed token log-probabilities."""
        with without_gradients(prefix.device), bf16_instead_of_fp16(prefix.device):
            start = torch.full_like(mask[:, 0], self.tokenizer.bos_token_id, dtype=torch.long)
            tokens, scores = beam_search(
                _Steps(self.model, prefix, mask, options.num_beams),
                start,
                options,
                end=self.tokenizer.eos_token_id,
                penalise_start=False,
            )
        return decode(self.tokenizer, tokens[:, 1:]), scores.exp().tolist()


class _Steps:
    """Scores the next token of K beams of each sentence; the first beam starts the others.

    Args:
        model: any `AutoModelForCausalLM`, with or without LoRA.
        prefix: (B, P, W) embeddings.
        mask: (B, P) 1 for tokens, 0 for padding.
        beams: K.
    """

    def __init__(self, model: PreTrainedModel, prefix: Tensor, mask: Tensor, beams: int) -> None:
        mask = mask.long()
        # Padding goes to the left: words continue the prompt.
        order = mask.argsort(dim=1, stable=True)
        self._prefix = prefix.take_along_dim(order[..., None], dim=1)
        self._mask = mask.gather(1, order)
        self._model, self._beams = model, beams
        plain = model.get_base_model() if hasattr(model, "peft_config") else model
        self._reorder = getattr(plain, "_reorder_cache", None)
        # Some models find the positions of padded rows by the mask, the others are told.
        self._told = "position_ids" in inspect.signature(plain.forward).parameters
        self._past: Any = None

    def __call__(self, tokens: Tensor, parents: Tensor) -> Tensor:
        """Logits (B * K, tokens), see `beam_search`."""
        first = torch.arange(len(parents), device=tokens.device)[:, None]
        if self._past is None:
            words = self._model.get_input_embeddings()
            logits = self._forward(inputs_embeds=self._prefix.to(words.weight.dtype))
            self._keep(first.expand_as(parents).flatten())
            return logits.repeat_interleave(self._beams, dim=0)
        if self._beams > 1:
            self._keep((first * self._beams + parents).flatten())
        self._mask = F.pad(self._mask, (0, 1), value=1)
        return self._forward(input_ids=tokens[:, None])

    def _forward(self, **inputs: Tensor) -> Tensor:
        if self._told:
            new = next(iter(inputs.values())).shape[1]
            positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)
            inputs["position_ids"] = positions[:, -new:]
        output = self._model(
            **inputs,
            attention_mask=self._mask,
            past_key_values=self._past,
            use_cache=True,
            return_dict=True,
        )
        self._past = output.past_key_values
        return output.logits[:, -1]

    def _keep(self, rows: Tensor) -> None:
        """Continue these rows of the previous step."""
        self._mask = self._mask[rows]
        if hasattr(self._past, "reorder_cache"):  # newer transformers
            self._past.reorder_cache(rows)
        else:
            self._past = self._reorder(self._past, rows)


def build(options: Mapping[str, Any]) -> CausalLM:
    """A decoder-only model with pretrained or random weights.

    Raises:
        InputError: an unknown option, or one that is missing or wrong.
        MissingPackageError: the installed transformers does not know this kind of model.
    """
    choice = from_mapping(CausalLMOptions, options, where="captioning.llm_options")
    key = "captioning.llm_options.pretrained"
    folder = model_folder(choice.pretrained, key=key) if choice.pretrained else None
    tokenizer = load_llm_tokenizer(str(choice.tokenizer or folder))
    if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
        raise InputError(
            "captioning.llm_options.tokenizer: it lacks a start or an end token (bos_token, "
            "eos_token); add them to its tokenizer_config.json"
        )
    model = _random(choice, tokenizer) if folder is None else _load(folder, choice, key)
    if choice.lora is not None:
        model = add_lora(model, choice.lora, targets=LORA_TARGETS)
    return CausalLM(model, tokenizer, pretrained=bool(choice.pretrained))


def _load(folder: Path, choice: CausalLMOptions, key: str) -> PreTrainedModel:
    with loading(str(choice.pretrained), key=key):
        settings, _ = PretrainedConfig.get_config_dict(folder)
        _check_known(settings.get("model_type"))
        with without_values():
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
        if (folder / "generation_config.json").is_file():
            model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    fill_from_folder(model, folder, read_folder(folder), getattr(torch, choice.dtype), key=key)
    return model.eval()


def _random(choice: CausalLMOptions, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    settings = dict(choice.config)
    model_type = settings.pop("model_type")
    _check_known(model_type)
    # The embedding of the config's padding token is zero and stays zero; the default id belongs to
    # another tokenizer.
    for token in ("bos_token_id", "eos_token_id", "pad_token_id"):
        settings.setdefault(token, getattr(tokenizer, token))
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **settings))
    check_vocabulary(model, tokenizer)
    return model.to(getattr(torch, choice.dtype))


def _check_known(model_type: str | None) -> None:
    if model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return
    versions = ">=4.28,<6" if model_type == "llama" else "<6"  # Llama, and Vicuna, came with 4.28
    raise MissingPackageError(
        f"captioning.llm_options: no decoder-only model of type {model_type!r} in transformers "
        f"{transformers.__version__}; pip install -U 'transformers{versions}', or use one it has, "
        "such as OPT"
    )
