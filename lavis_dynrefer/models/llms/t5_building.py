"""T5 from its config, the same under every transformers: what is tied, and what is scaled.

T5 1.0 shares one matrix between its input embeddings and its output layer, and scales what that
layer reads; T5 1.1, Flan-T5 and mT5 do neither. Up to 4.57 transformers kept both facts in
`tie_word_embeddings`. From 5 on its configs always say that the matrix is shared, whatever the
files say; a model built from them loses the output layer of Flan-T5 without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from torch import Tensor
from transformers import MT5Config, PretrainedConfig, T5Config

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.weights.checkpoint import same_values

HEAD, WORDS = "lm_head.weight", "shared.weight"
_STACKS = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# Type of model -> its config, and whether 4.x shares its matrix where its file does not say so.
_KINDS = {"t5": (T5Config, True), "mt5": (MT5Config, False)}


class T5ForConditionalGeneration(transformers.T5ForConditionalGeneration):
    """Hugging Face's T5, whose output layer is tied only if its config says so.

    Named as its parent, for `save_pretrained` writes the name of the class.
    """

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """What transformers 5 ties: without the output layer still the words of both stacks."""
        ties = super().get_expanded_tied_weights_keys(all_submodels)
        return ties if all_submodels else {**dict.fromkeys(_STACKS, WORDS), **ties}


def config_of_sizes(sizes: Mapping[str, Any]) -> T5Config:
    """The config of a T5 with random weights; arguments of `T5Config`."""
    tied = sizes["tie_word_embeddings"]
    return _completed(T5Config(**sizes), tied=tied, scaled=tied)


def config_of_folder(
    folder: Path, tensors: Mapping[str, Tensor], *, key: str
) -> T5Config | MT5Config:
    """The config of a folder as Hugging Face publishes it.

    Args:
        folder: has a config.json.
        tensors: of its files.
        key: config key that names the folder, for messages.

    Raises:
        InputError: it is no T5.
    """
    given, _ = PretrainedConfig.get_config_dict(folder)
    kind = given.get("model_type", "t5")
    if kind not in _KINDS:
        raise InputError(f"{key}: expected a model of type {sorted(_KINDS)}, {folder} has {kind!r}")
    config_class, usually_tied = _KINDS[kind]
    scaled = tied = given.get("tie_word_embeddings", usually_tied) is not False
    newer = int(str(given.get("transformers_version", "4")).split(".")[0]) >= 5
    if newer or "scale_decoder_outputs" in given:  # its "tied" says nothing
        tied = HEAD not in tensors or same_values(tensors[HEAD], tensors.get(WORDS))
        scaled = given.get("scale_decoder_outputs", tied and usually_tied)
    return _completed(config_class.from_pretrained(folder), tied=tied, scaled=scaled)


def _completed(config: Any, *, tied: bool, scaled: bool) -> Any:
    config.tie_word_embeddings = tied
    config.scale_decoder_outputs = scaled
    # The exact GELU, not Flan-T5's tanh approximation: BLIP-2 and DynRefer were trained that way.
    config.dense_act_fn = "gelu"
    return config


def head_scale(config: Any) -> float | None:
    """Factor of the states before the output layer; None for 1."""
    scaled = getattr(config, "scale_decoder_outputs", config.tie_word_embeddings)
    return config.d_model**-0.5 if scaled else None
