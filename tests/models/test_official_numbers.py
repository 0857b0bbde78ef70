"""The model against numbers of the released code, without any other file.

official_numbers.safetensors.xz holds random weights of a small DynRefer under the official names,
inputs, and what the unmodified released code (callsys/DynRefer, 2200c5b) made of them on a CPU in
float32. tests/golden compares every stage, on any folder of such numbers.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from lavis_dynrefer.config import DynReferConfig, GenerationConfig
from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.models.hugging_face import decode
from lavis_dynrefer.models.model_parts import build_parts
from lavis_dynrefer.models.weights.checkpoint import load_weights
from lavis_dynrefer.settings import from_mapping

SIZES = {
    "vision": {"width": 128, "depth": 2, "heads": 4},
    "qformer": {"num_queries": 8, "width": 96, "depth": 2, "heads": 4, "mlp_width": 192},
    "text": {
        "width": 32,
        "depth": 1,
        "heads": 2,
        "embed_dim": 48,
        "tokenizer": "assets/tiny/tokenizer.json",
    },
    "captioning": {
        "llm_options": {
            "tokenizer": "assets/tiny/tokenizer.json",
            "config": {
                "vocab_size": 185,
                "d_model": 64,
                "d_kv": 16,
                "d_ff": 128,
                "num_layers": 2,
                "num_heads": 4,
            },
        }
    },
}
TOKENS = [0, 1, 2, 17, 100, 137, 240, 256]


@pytest.fixture(scope="module")
def numbers():
    path = Path(__file__).with_name("official_numbers.safetensors.xz")
    return load(lzma.decompress(path.read_bytes()))


@pytest.fixture(scope="module")
def model(numbers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("official")
    tags = folder / "tags.txt"
    tags.write_text("\n".join(f"tag {row}" for row in range(40)), encoding="utf-8")
    sections = json.loads(json.dumps({**SIZES, "tagging": {"vocabulary": str(tags)}}))
    # The weights know 185 tokens, fewer than the bytes of the embedded tokenizer.
    special = {"<pad>": 0, "</s>": 1, "<unk>": 2, "<s>": 3}
    words = {**special, **{f"w{row}": row for row in range(4, 185)}}
    Tokenizer(WordLevel(words, unk_token="<unk>")).save(str(folder / "tokenizer.json"))
    sections["captioning"]["llm_options"]["tokenizer"] = str(folder / "tokenizer.json")
    model = DynRefer(**build_parts(from_mapping(DynReferConfig, sections))).eval()
    weights = {
        name[len("weights/") :]: value.float()
        for name, value in numbers.items()
        if name.startswith("weights/")
    }
    embedding = weights["t5_model.shared.weight"]
    weights["t5_model.encoder.embed_tokens.weight"] = embedding
    weights["t5_model.decoder.embed_tokens.weight"] = embedding
    load_weights(model, weights, may_miss=["text_encoder."])
    return model


@pytest.fixture(scope="module")
def views(numbers, model):
    """Blocks of 8 x 8 pixels plus a fixed pattern, normalised: (B, V, 3, 224, 224)."""
    pixels = numbers["inputs/cells"].long().repeat_interleave(8, -1).repeat_interleave(8, -2)
    row, column = torch.arange(224)[:, None], torch.arange(224)
    pattern = 3 * row + 5 * column + (row * column) % 23
    pattern = (pattern + 40 * torch.arange(3)[:, None, None]) % 64
    return ((pixels + pattern).float() / 255 - model.backbone.mean) / model.backbone.std


@pytest.fixture(scope="module")
def queries(numbers, model, views):
    with torch.no_grad():
        return model.region_queries(model.encode_views(views, numbers["inputs/boxes"]))


def test_tokens_of_the_vision_transformer(numbers, model, views):
    with torch.no_grad():
        tokens = model.backbone.vit(views[:1].flatten(0, 1))
    assert torch.allclose(tokens[:, TOKENS], numbers["eval/vit_tokens"][: len(tokens)], atol=2e-4)


def test_queries(numbers, queries):
    assert torch.allclose(queries, numbers["eval/qformer_out"], atol=2e-4)


@pytest.mark.parametrize(
    ("decoder", "embeddings", "logits"),
    [
        ("tagging", "clip_embeds", "tag_logits"),
        ("contrast", "att_embeds", "attr_logits_all_templates"),
        ("contrast", "ov_embeds", "cls_logits"),
    ],
)
def test_logits(numbers, model, queries, decoder, embeddings, logits):
    with torch.no_grad():
        ours = getattr(model, decoder)(numbers[f"weights/{embeddings}"], queries)
    assert torch.allclose(ours.double(), numbers[f"eval/{logits}"].double(), atol=1e-4)


def test_prefix_of_the_language_model(numbers, model, queries):
    ours = model.captioning.prefix.projection(queries)
    theirs = numbers["eval/beams2fc_inputs_embeds"][:, : queries.shape[1]]
    assert torch.allclose(ours, theirs, atol=2e-4)


def test_beam_search(numbers, model):
    prefix, mask = (
        numbers[f"eval/beams2fc_{name}"] for name in ("inputs_embeds", "attention_mask")
    )
    options = GenerationConfig(num_beams=2, max_new_tokens=20, repetition_penalty=1.5)
    llm = model.captioning.llm
    captions, scores = llm.generate(prefix, mask, options)
    theirs = decode(llm.tokenizer, numbers["eval/beams2fc_sequences"].long())
    # Older transformers leave the end and what follows it in the text.
    ours, theirs = ([text.split(" </s>")[0] for text in texts] for texts in (captions, theirs))
    assert ours == theirs
    assert scores == pytest.approx(numbers["eval/beams2fc_sequences_scores"].exp().tolist(), 1e-4)
