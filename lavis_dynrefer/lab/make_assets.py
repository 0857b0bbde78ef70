"""Write the tokenizer and the vocabularies that are shipped for the synthetic world.

python -m lavis_dynrefer.lab.make_assets FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from lavis_dynrefer.synthetic import make_scene, raw_formats
from lavis_dynrefer.synthetic.scene_vocabulary import attribute_rows, tags, truth_labels
from lavis_dynrefer.synthetic.scene_world import CATEGORIES

_SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>", "<s>")  # ids 0..3; T5 pads with 0 and ends with 1
_SCENES = 500  # enough for every word to occur often
_VOCAB_SIZE = 768  # 256 bytes, the words after a space and after a comma, and their parts


def write_vocabulary(folder: Path) -> None:
    """Write synthetic_{tags,truth,categories}.txt and synthetic_attributes.json (vocab/data)."""
    lists = {"tags": tags(), "truth": truth_labels(), "categories": CATEGORIES}
    for name, words in lists.items():
        text = "".join(f"{word}\n" for word in words)
        (folder / f"synthetic_{name}.txt").write_text(text, encoding="utf-8")
    rows = ",\n".join("  " + json.dumps(row) for row in attribute_rows())
    (folder / "synthetic_attributes.json").write_text(f"[\n{rows}\n]\n", encoding="utf-8")


def build_tokenizer() -> Tokenizer:
    """Byte-level BPE that ends every text with </s>: assets/tiny/tokenizer.json."""
    phrases = [
        phrase
        for index in range(1, _SCENES + 1)
        for _, _, _, phrase in raw_formats.captions(make_scene(0, index))
    ]
    # Attribute prompts, and control prompts, in which a comma is not followed by a space.
    prompts = [prompt for tag in tags() for prompt in (f"the  is {tag}", f",{tag},{tag}|")]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCAB_SIZE,
        special_tokens=list(_SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*phrases, *prompts], trainer=trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", _SPECIAL_TOKENS.index("</s>"))]
    )
    return tokenizer


if __name__ == "__main__":
    write_vocabulary(Path(sys.argv[1]))
    build_tokenizer().save(str(Path(sys.argv[1], "tokenizer.json")))
