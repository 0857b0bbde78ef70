"""The tokenizer of the embedded model: the words of the synthetic world are one token each."""

from __future__ import annotations

from tokenizers import Tokenizer

from lavis_dynrefer.lab.tokenizer_training import train_tokenizer
from lavis_dynrefer.synthetic import raw_formats
from lavis_dynrefer.synthetic.layout import make_scene
from lavis_dynrefer.synthetic.vocabulary import tags

SCENES = 500  # enough for every word of the captions to occur often
VOCAB_SIZE = 768  # 256 bytes, the words after a space and after a comma, and their parts


def build_tokenizer() -> Tokenizer:
    """Train the tokenizer that is shipped as assets/tiny/tokenizer.json."""
    phrases = [
        phrase
        for index in range(1, SCENES + 1)
        for _, _, _, phrase in raw_formats.captions(make_scene(0, index))
    ]
    # Attribute prompts, and control prompts, where a word follows a comma without a space.
    prompts = [prompt for tag in tags() for prompt in (f"the  is {tag}", f",{tag},{tag}|")]
    return train_tokenizer([*phrases, *prompts], vocab_size=VOCAB_SIZE)
