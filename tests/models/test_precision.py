"""Number formats by device and part, and devices by name; real GPUs are for tests/gpu."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict

import pytest
import torch
from lavis.models import load_model
from torch import nn
from transformers.activations import GELUActivation

from lavis_dynrefer.config import DTYPES, VisionConfig
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models import precision
from lavis_dynrefer.models.answering import Answerer
from lavis_dynrefer.models.backbone import Backbone
from lavis_dynrefer.models.precision import (
    PARTS,
    NumberFormats,
    active_autocast,
    bf16_instead_of_fp16,
    choose_device,
    formats_on,
    number_formats,
)
from lavis_dynrefer.models.vision.vit import VisionTransformer
from lavis_dynrefer.questions import Questions

FULL, HALF, BRAIN = torch.float32, torch.float16, torch.bfloat16
ALL_FULL, ALL_BRAIN = (FULL,) * 4, (BRAIN,) * 4
RELEASED, OLDER = (HALF, FULL, BRAIN, BRAIN), (HALF, FULL, FULL, FULL)
H100, A100, T4, V100, P100 = (9, 0), (8, 0), (7, 5), (7, 0), (6, 0)


@pytest.mark.parametrize(
    ("name", "kind", "capability", "expected"),
    [
        ("auto", "cuda", H100, ("released", *RELEASED)),
        ("auto", "cuda", A100, ("released", *RELEASED)),
        ("auto", "cuda", T4, ("float16", *OLDER)),
        ("auto", "cuda", V100, ("float16", *OLDER)),
        ("auto", "cuda", P100, ("float32", *ALL_FULL)),
        ("auto", "cpu", None, ("float32", *ALL_FULL)),
        ("auto", "mps", None, ("float32", *ALL_FULL)),
        ("auto", "xpu", None, ("float32", *ALL_FULL)),
        ("released", "cuda", T4, ("released", *RELEASED)),
        ("float16", "cuda", A100, ("float16", *RELEASED)),
        ("float16", "cuda", T4, ("float16", *OLDER)),
        ("float32", "cuda", H100, ("float32", *ALL_FULL)),
        ("bfloat16", "cuda", H100, ("bfloat16", *ALL_BRAIN)),
        ("bfloat16", "cpu", None, ("bfloat16", *ALL_BRAIN)),
    ],
)
def test_formats_follow_the_device(name, kind, capability, expected):
    found = number_formats(name, kind, capability)

    assert (found.name, found.vit, found.region, found.heads, found.llm) == expected


def test_t5_and_the_text_decoders_never_run_in_float16():
    for name in DTYPES:
        for capability in (H100, A100, (8, 6), T4, V100, P100):
            found = number_formats(name, "cuda", capability)
            assert HALF not in (found.heads, found.llm)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("fp16", "cuda", "dtype: unknown 'fp16'; did you mean float16"),
        ("bf16", "cpu", "did you mean bfloat16"),
        ("relased", "cpu", "did you mean released"),
        (None, "cpu", "dtype: is missing"),
        (torch.bfloat16, "cpu", "dtype: unknown torch.bfloat16; did you mean bfloat16"),
        ("float16", "cpu", "float16 needs a CUDA device, got cpu; use auto"),
        ("released", "mps", "released needs a CUDA device, got mps; use auto"),
    ],
)
def test_formats_that_a_device_lacks_are_refused(name, kind, message):
    with pytest.raises(InputError, match=message):
        number_formats(name, kind)


@pytest.fixture
def computed(smallest_model):
    """Part of the model -> the formats that its linear layers, in T5 its activations, gave."""
    found = defaultdict(set)
    parts = {
        "vit": smallest_model.backbone,
        "align": smallest_model.region_encoder,
        "qformer": smallest_model.qformer,
        "tagging": smallest_model.tagging.decoder.layers,
        "contrast": smallest_model.contrast.decoder.layers,
        "scores": nn.ModuleList(
            [smallest_model.tagging.decoder.classifier, smallest_model.contrast.decoder.classifier]
        ),
        "prefix": smallest_model.captioning.prefix,
        "llm": smallest_model.captioning.llm,
        "texts": smallest_model.text_encoder,
    }
    for part, module in parts.items():
        for layer in module.modules():
            # T5's linear layers are not called as modules.
            if isinstance(layer, GELUActivation if part == "llm" else nn.Linear):
                layer.register_forward_hook(
                    lambda _module, _given, output, part=part: found[part].add(output.dtype)
                )
    return found


ALWAYS_FULL = {part: {FULL} for part in ("texts", "prefix", "scores")}


def test_every_part_computes_in_its_format(smallest_model, region_batch, computed):
    formats = NumberFormats("released", *RELEASED)
    answerer = Answerer(smallest_model.eval(), formats)

    with torch.no_grad():
        features = answerer.encode(region_batch)
        answerer.answer(region_batch, features, Questions(attributes=["red"]))

    assert features.maps.dtype == features.summary.dtype == FULL
    assert computed == {
        "vit": {HALF},
        "align": {FULL},
        "qformer": {FULL},
        "tagging": {BRAIN},
        "contrast": {BRAIN},
        "llm": {BRAIN},
        **ALWAYS_FULL,
    }


def test_an_autocast_of_the_caller_counts_unless_a_dtype_is_named(
    smallest_model, region_batch, computed
):
    plain = smallest_model.predict(region_batch, attributes=["red"])
    computed.clear()
    with torch.autocast("cpu", dtype=BRAIN):
        smallest_model.predict(region_batch, attributes=["red"])
        theirs = dict(computed)
        computed.clear()
        named = smallest_model.predict(region_batch, attributes=["red"], dtype="float32")

    others = ("vit", "align", "qformer", "tagging", "contrast", "llm")
    assert theirs == {**{part: {BRAIN} for part in others}, **ALWAYS_FULL}
    assert set().union(*computed.values()) == {FULL}
    assert named == plain


def test_formats_inside_an_autocast_of_the_caller_do_not_meet_its_cast_weights(
    smallest_model, region_batch
):
    """Torch caches one cast per trained weight."""
    expected = smallest_model.predict(region_batch, dtype="bfloat16")
    with torch.autocast("cpu", dtype=HALF):
        smallest_model.qformer(torch.zeros(1, 3, 32))  # casts its weights to float16
        found = smallest_model.predict(region_batch, dtype="bfloat16")
        assert smallest_model.qformer(torch.zeros(1, 3, 32)).isfinite().all()

    assert found == expected


def test_a_block_without_float16_is_in_bfloat16_whatever_was_cast_before():
    layer, given = nn.Linear(2, 2), torch.ones(1, 2)
    device = given.device
    with torch.autocast("cpu", dtype=HALF):
        found = [layer(given).dtype]
        with bf16_instead_of_fp16(device):
            found.append(layer(given).dtype)
        found.append(layer(given).dtype)
    with bf16_instead_of_fp16(device):
        found.append(layer(given).dtype)

    assert found == [HALF, BRAIN, HALF, FULL]


def test_text_decoders_take_float16_where_there_is_no_bfloat16(smallest_model):
    """On a T4 they run in float32 after a Q-Former in float16."""
    texts, queries = torch.randn(3, 16), torch.randn(2, 4, 32)
    exact = smallest_model.eval().contrast(texts, queries)

    found = smallest_model.contrast(texts.half(), queries.half())

    assert found.dtype == FULL
    torch.testing.assert_close(found, exact, atol=0.01, rtol=0)


def test_the_autocast_of_the_caller_is_seen():
    device = torch.device("cpu")
    assert active_autocast(device) is None
    with torch.autocast("cpu", dtype=BRAIN):
        assert active_autocast(device) == BRAIN
        with torch.autocast("cpu", enabled=False):
            assert active_autocast(device) is None
    assert active_autocast(torch.device("meta")) is None


@pytest.mark.parametrize(
    "convert",
    [
        lambda model: model.half(),
        lambda model: model.bfloat16(),
        lambda model: model.to(HALF),
        lambda model: model.to("cpu", BRAIN),
        lambda model: model.to(device="cpu", dtype=HALF),
        lambda model: model.to(torch.zeros(1, dtype=BRAIN)),
    ],
)
def test_weights_do_not_become_half_ones(smallest_model, convert):
    with pytest.raises(InputError, match=r"the weights stay as their files.*dtype in predict"):
        convert(smallest_model)

    assert smallest_model.float().to("cpu").to(torch.float32) is smallest_model
    assert {weight.dtype for weight in smallest_model.parameters()} == {FULL}


@pytest.mark.parametrize("stored", [HALF, BRAIN])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_stored_format_only_rounds_the_weights(smallest_model, region_batch, stored, dtype):
    """Products are those of float32 weights with the same values."""
    vit = smallest_model.backbone.vit
    with torch.no_grad():
        for weight in vit.parameters():
            weight.copy_(weight.to(stored))  # rounds
    expected = smallest_model.predict(region_batch, tasks=["categories"], dtype=dtype)
    vit.to(stored)
    found = smallest_model.predict(region_batch, tasks=["categories"], dtype=dtype)

    assert {weight.dtype for weight in vit.parameters()} == {stored}
    assert found == expected


def test_frozen_halves_stay_so_when_lavis_asks_for_float32(smallest_model):
    smallest_model.backbone.vit.to(HALF)
    smallest_model.tagging.double()

    found = smallest_model.float()

    assert {weight.dtype for weight in found.backbone.vit.parameters()} == {HALF}
    assert {weight.dtype for weight in found.tagging.parameters()} == {FULL}
    assert smallest_model.to(FULL).backbone.vit.cls_token.dtype == FULL


def test_norms_and_positions_stay_in_float32_where_weights_are_cast_once(smallest_config):
    vit = VisionTransformer(VisionConfig(**smallest_config["vision"])).half()

    vit.store_in(BRAIN)

    full = {name for name, weight in vit.named_parameters() if weight.dtype == FULL}
    assert full == {
        *("cls_token", "pos_embed", "blocks.0.norm1.weight", "blocks.0.norm1.bias"),
        *("blocks.0.norm2.weight", "blocks.0.norm2.bias"),
    }
    assert {weight.dtype for weight in vit.parameters()} == {FULL, BRAIN}


def test_many_views_are_the_same_as_few(smallest_config):
    """A CPU encodes as many at once as its caches like."""
    torch.manual_seed(0)
    vit = VisionTransformer(VisionConfig(**smallest_config["vision"])).eval()
    many = 2 * (16 << 20) // (17 * 4 * 128)
    views = torch.randn(many, 3, 32, 32)

    found = vit(views)

    assert found.shape == (many, 17, 32)
    torch.testing.assert_close(found[-5:], vit(views[-5:]), atol=1e-5, rtol=0)


def test_bfloat16_on_a_cpu_without_it_is_warned_about_once(monkeypatch, caplog):
    monkeypatch.setattr(precision, "bf16_time_on_cpu", lambda: 8.25)
    precision.warn_of_slow_bf16.cache_clear()

    for name in ("float32", "bfloat16", "bfloat16"):
        formats_on(name, torch.device("cpu"))

    assert len(caplog.messages) == 1
    assert "dtype: a matrix product in bfloat16 takes 8.2 times as long" in caplog.messages[0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda", "torch finds no cuda device.*; use cpu or auto"),
        ("cuda:7", "torch finds no cuda device"),
        (0, "torch finds no cuda device"),
        (torch.device("cuda", 1), "torch finds no cuda device"),
        ("mps", "torch finds no mps device; use cpu or auto"),
        ("xpu", "torch finds no xpu device; use cpu or auto"),
        ("meta", "meta tensors have no values"),
        ("gpu", "expected auto, cpu, cuda, .* got 'gpu'"),
        ("cuda:-1", "got 'cuda:-1'"),
        ("cuda:x", "got 'cuda:x'"),
        ("", "got ''"),
        (None, "got None"),
        (-1, "got -1"),
        (1.5, r"got 1\.5"),
    ],
)
def test_a_device_that_is_not_there_is_named(monkeypatch, name, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(InputError, match=message):
        choose_device(name)


def test_a_gpu_that_is_not_there_is_named_with_the_last_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    assert [str(choose_device(name)) for name in ("auto", "cuda", 1)] == ["cuda", "cuda", "cuda:1"]
    with pytest.raises(InputError, match="no cuda:7; the last GPU is cuda:1"):
        choose_device("cuda:7")


def test_apples_gpus_are_never_chosen_unasked(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)

    assert str(choose_device("auto")) == "cpu"


def test_laviss_loader_names_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(InputError, match="torch finds no cuda device"):
        load_model("dynrefer", "tiny", device="cuda")


def test_gradient_checkpoints_change_nothing_and_warn_of_nothing(smallest_config):
    views = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = {}
    for wanted in (False, True):
        torch.manual_seed(0)
        backbone = Backbone(VisionConfig(**smallest_config["vision"], grad_checkpoint=wanted))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            backbone(views).square().mean().backward()
        found[wanted] = [weight.grad for weight in backbone.parameters()]

    assert all(one.isfinite().all() for one in found[True])
    assert math.fsum(float(one.abs().sum()) for one in found[True]) > 0
    torch.testing.assert_close(found[True], found[False], rtol=0, atol=0)


def test_views_of_another_size_are_refused(smallest_model, region_batch):
    views = torch.zeros(1, 2, 3, 64, 64, dtype=torch.uint8)

    with pytest.raises(InputError, match=r"takes 32 x 32 pixels, got 64 x 64.*view processor"):
        smallest_model.encode_views(views, region_batch["boxes"][:1])


def test_denormals_are_zero_only_inside():
    if not torch.set_flush_denormal(False):
        pytest.skip("this CPU cannot flush denormals")
    tiny = torch.tensor([1e-30])
    with precision.without_denormals(tiny.device):
        inside = (tiny * 1e-10).item()

    assert inside == 0
    assert (tiny * 1e-10).item() > 0


def test_denormals_stay_zero_for_a_caller_who_chose_so():
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot flush denormals")
    tiny = torch.tensor([1e-30])
    try:
        with precision.without_denormals(tiny.device):
            pass
        assert (tiny * 1e-10).item() == 0
    finally:
        torch.set_flush_denormal(False)


def test_formats_say_what_they_are():
    assert str(number_formats("auto", "cpu")) == "float32"
    assert str(number_formats("auto", "cuda", A100)) == (
        "released (vit float16, region float32, heads bfloat16, llm bfloat16)"
    )
    assert all(hasattr(number_formats("float32", "cpu"), part) for part in PARTS)
