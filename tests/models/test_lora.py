"""LoRA on frozen language models."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from torch import nn

from lavis_dynrefer.config import GenerationConfig
from lavis_dynrefer.models.decoders.captioning import CaptionDecoder
from lavis_dynrefer.models.llms import build_llm
from lavis_dynrefer.models.llms.lora import LoraOptions, add_lora, lora_parameters
from lavis_dynrefer.models.weights.checkpoint import from_official, to_official

TOKENIZER = "assets/tiny/tokenizer.json"
CONFIGS = {
    "flan_t5": {
        "vocab_size": 560,
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 1,
        "num_heads": 2,
        "dropout_rate": 0.0,
    },
    "causal_lm": {
        "model_type": "opt",
        "vocab_size": 560,
        "hidden_size": 16,
        "word_embed_proj_dim": 16,
        "ffn_dim": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "dropout": 0.0,
    },
}
LORA = {"rank": 2, "alpha": 4}
CONTROLS = ["red|", "|"]
CAPTIONS = ["a red boat", "a tree"]


@pytest.fixture
def peft():
    """Skips the test if peft is missing or does not fit the installed transformers."""
    try:
        import peft
    except ImportError as error:
        pytest.skip(f"peft cannot be imported: {error}")
    return peft


@pytest.fixture(params=list(CONFIGS))
def name(request):
    return request.param


def build(name, **options):
    torch.manual_seed(0)
    return build_llm(name, {"tokenizer": TOKENIZER, "config": CONFIGS[name], **options})


@pytest.fixture
def llm(peft, name):
    return build(name, lora=LORA)


@pytest.fixture
def queries():
    return torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def decoder(llm):
    """A caption decoder in which only LoRA is trained."""
    decoder = CaptionDecoder(llm, region_dim=8, max_text_length=8).requires_grad_(False)
    for parameter in lora_parameters(decoder):
        parameter.requires_grad_(True)
    return decoder


def test_the_added_product_is_scaled_by_alpha_over_rank(peft):
    model = nn.Sequential()
    model.add_module("head", nn.Linear(2, 1, bias=False))
    model.head.weight.data = torch.tensor([[1.0, 1.0]])

    adapted = add_lora(model, LoraOptions(rank=1, alpha=3), targets=["head"])

    down, up = lora_parameters(adapted)
    down.data = torch.tensor([[1.0, 2.0]])
    up.data = torch.tensor([[10.0]])
    # 3 + 4, plus 3 / 1 * 10 * (3 + 2 * 4)
    assert adapted(torch.tensor([[3.0, 4.0]])).item() == 337.0


def test_untrained_lora_changes_nothing(name, llm, queries):
    plain = CaptionDecoder(build(name), region_dim=8, max_text_length=8)
    adapted = CaptionDecoder(llm, region_dim=8, max_text_length=8)
    adapted.prefix.load_state_dict(plain.prefix.state_dict())

    expected = plain.loss(queries, CONTROLS, CAPTIONS)
    assert torch.equal(adapted.loss(queries, CONTROLS, CAPTIONS), expected)
    options = GenerationConfig()
    assert adapted.eval().generate(queries, CONTROLS, options) == plain.eval().generate(
        queries, CONTROLS, options
    )


def test_weights_have_the_official_names(peft):
    state = {
        f"captioning.llm.{name}": weight
        for name, weight in build("flan_t5", lora=LORA).state_dict().items()
    }

    official = to_official(state)

    attention = "t5_model.base_model.model.encoder.block.0.layer.0.SelfAttention"
    assert {key for key in official if key.startswith(f"{attention}.q.")} == {
        f"{attention}.q.base_layer.weight",
        f"{attention}.q.lora_A.default.weight",
        f"{attention}.q.lora_B.default.weight",
    }
    assert f"{attention}.k.weight" in official
    assert set(from_official(official)) == set(state)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("flan_t5", 7),  # q and v of 3 attentions, lm_head
        ("causal_lm", 3),  # q and v of 1 attention, lm_head
    ],
)
def test_official_layers_are_adapted_by_default(peft, name, layers):
    assert len(lora_parameters(build(name, lora={}))) == 2 * layers


def test_targets_choose_the_layers(peft):
    llm = build("flan_t5", lora={**LORA, "targets": ["SelfAttention.k"]})
    adapted = {key for key, _ in llm.named_parameters() if "lora_" in key}
    assert len(adapted) == 2 * 2  # one layer each in the encoder and the decoder
    assert all("SelfAttention.k." in key for key in adapted)


def test_one_step_on_lora_lowers_the_loss_and_leaves_the_rest(decoder, queries):
    before = {key: value.clone() for key, value in decoder.state_dict().items()}
    optimizer = torch.optim.SGD(lora_parameters(decoder), lr=0.1)

    loss = decoder.loss(queries, CONTROLS, CAPTIONS)
    loss.backward()
    optimizer.step()

    assert decoder.loss(queries, CONTROLS, CAPTIONS) < loss
    after = decoder.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    # The first factor does not change yet, because the second one starts at zero.
    assert changed == {key for key in before if "lora_B" in key}


@pytest.mark.parametrize("amp", [False, True])
def test_recomputed_blocks_give_lora_the_same_gradients(peft, amp):
    gradients = []
    for recompute in (False, True):
        llm = build("flan_t5", lora=LORA, recompute=recompute, dtype="bfloat16").train()
        for parameter in lora_parameters(llm):
            nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
        prefix = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(2))
        prefix.requires_grad_(True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
            loss = llm.loss(prefix, torch.ones(2, 3), CAPTIONS, max_length=8)
        loss.backward()
        gradients.append([prefix.grad, *(p.grad for p in lora_parameters(llm))])
    torch.testing.assert_close(*gradients)
    assert all(gradient.abs().max() > 0 for gradient in gradients[0])


def test_trained_lora_changes_the_captions(decoder, queries):
    options = GenerationConfig()
    before = decoder.eval().generate(queries, CONTROLS, options)
    for parameter in lora_parameters(decoder):
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    assert decoder.generate(queries, CONTROLS, options) != before


def test_lora_is_float32_beside_bfloat16_weights(peft, name):
    llm = build(name, lora=LORA, dtype="bfloat16")
    prefix = torch.randn(2, 3, llm.width)
    assert {parameter.dtype for parameter in lora_parameters(llm)} == {torch.float32}
    assert llm.model.dtype == torch.bfloat16
    assert llm.loss(prefix, torch.ones(2, 3), CAPTIONS, max_length=8).isfinite()


def test_missing_peft_names_the_cure(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"pip install 'lavis_dynrefer\[lora\]'"):
        build(name, lora={})


def test_invalid_options_are_named(name):
    with pytest.raises(ValueError, match=r"llm_options\.lora: unknown \['r'\]"):
        build(name, lora={"r": 8})


@pytest.mark.parametrize(
    ("targets", "named"),
    [(["lm_head", "query"], "'query'"), ([], ""), (["attention.v"], r"'attention\.v'")],
)
def test_a_target_that_matches_no_layer_is_named(name, targets, named):
    with pytest.raises(
        ValueError, match=rf"targets: expected some of .*'lm_head'.*, got \[{named}\]"
    ):
        build(name, lora={"targets": targets})


def test_a_checkpoint_without_lora_fills_a_model_with_it(peft, smallest_config):
    from lavis_dynrefer.models.dynrefer import DynRefer
    from lavis_dynrefer.models.weights.checkpoint import load_weights

    plain = DynRefer.from_config(smallest_config)
    config = copy.deepcopy(smallest_config)
    config["captioning"]["llm_options"]["lora"] = {"rank": 2, "alpha": 4}
    adapted = DynRefer.from_config(config)

    report = load_weights(adapted, plain.state_dict())

    assert report.missing
    assert all(".lora_" in name for name in report.missing)
    trained = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert {name for name in trained if name.startswith("captioning.llm.")} == set(report.missing)
