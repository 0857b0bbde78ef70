"""The tokenizer of the embedded model: each word of the synthetic world is one token."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from lavis_dynrefer.synthetic import make_scene, raw_formats
from lavis_dynrefer.synthetic.vocabulary import tags

SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>", "<s>")  # ids 0..3; T5 pads with 0 and ends with 1
_SCENES = 500  # enough for every word to occur often
_VOCAB_SIZE = 768  # 256 bytes, the words after a space and after a comma, and their parts


def build_tokenizer() -> Tokenizer:
    """Train the tokenizer that is shipped as assets/tiny/tokenizer.json."""
    phrases = [
        phrase
        for index in range(1, _SCENES + 1)
        for _, _, _, phrase in raw_formats.captions(make_scene(0, index))
    ]
    # Attribute prompts, and control prompts, in which a comma is not followed by a space.
    prompts = [prompt for tag in tags() for prompt in (f"the  is {tag}", f",{tag},{tag}|")]
    return train_tokenizer([*phrases, *prompts], vocab_size=_VOCAB_SIZE)


def train_tokenizer(texts: Iterable[str], *, vocab_size: int) -> Tokenizer:
    """Byte-level BPE that ends every text with </s>; depends only on its arguments.

    Args:
        texts: words that are frequent here become one token each.
        vocab_size: at most this many tokens, including 256 bytes and the special tokens.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", SPECIAL_TOKENS.index("</s>"))]
    )
    return tokenizer
