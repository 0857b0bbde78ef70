"""What a model takes in memory on a GPU, part by part, computed with tensors that have none."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lavis_dynrefer.config import DynReferConfig
from lavis_dynrefer.lab.benchmarks.counting import Counting
from lavis_dynrefer.lab.benchmarks.like_gpu import LikeCuda, as_on_a_gpu, run_backward
from lavis_dynrefer.lab.benchmarks.model_sizes import batch_of, model_of_section
from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.models.llms.stored_weights import to_int8
from lavis_dynrefer.models.llms.t5_search import SearchShape
from lavis_dynrefer.models.llms.t5_steps import cache_bytes
from lavis_dynrefer.models.llms.t5_weights import DecoderProducts
from lavis_dynrefer.models.losses import asymmetric_loss
from lavis_dynrefer.models.precision import number_formats
from lavis_dynrefer.settings import from_mapping
from lavis_dynrefer.vocab.prompts import attribute_prompts, category_prompt

CPU = torch.device("cpu")
# Row -> number formats of answers, stored format of T5.
ROWS = {
    "float32": ("float32", "float32"),
    "released": ("released", "bfloat16"),
    "bfloat16": ("bfloat16", "bfloat16"),
    "int8": ("released", "int8"),
}
PARTS = ("backbone", "region_encoder", "qformer", "text_encoder", "tagging", "contrast")
PARTS += ("captioning.prefix", "captioning.llm")
_ADAMW = 8  # bytes per trained weight: two averages in float32

Table = dict[str, dict[str, int]]


def parts_of(model: nn.Module) -> Table:
    """Part -> number of its `parameters`, of those `trained`, and `stored` bytes."""
    table: Table = {}
    for name in PARTS:
        weights = list(dict.fromkeys(model.get_submodule(name).parameters()))
        table[name] = {
            "parameters": sum(weight.numel() for weight in weights),
            "trained": sum(weight.numel() for weight in weights if weight.requires_grad),
            "stored": sum(weight.numel() * weight.element_size() for weight in weights),
        }
    return table


def answer_memory(
    section: Mapping[str, Any], *, batch: int, beams: int, row: str, tokens: int | None = None
) -> dict[str, int]:
    """Bytes of the weights, and the peak in each stage of answering, weights included.

    Args:
        section: of a model, without files.
        batch: regions at once.
        beams: of the beam search.
        row: one of `ROWS`.
        tokens: at most in a caption; None: as the model says.

    Returns:
        `weights`; `kept search`, what the recorded search of captions holds between calls; the
        stages; and the `peak` of all.
    """
    formats, stored = ROWS[row]
    computing = number_formats(formats, "cuda", (9, 0))
    llm = torch.bfloat16 if stored == "int8" else getattr(torch, stored)

    config, model = _config(section), model_of_section(section).eval()
    if stored == "int8":
        to_int8(model.captioning.llm.model)
    search = replace(config.captioning.generation, num_beams=beams)
    search = replace(search, max_new_tokens=tokens or search.max_new_tokens)
    with Counting() as counting, ExitStack() as around:
        counting.adopt(model, {"backbone.vit.": computing.vit, "captioning.llm.": llm})
        weights = counting.live
        for one in (torch.inference_mode(), LikeCuda(), as_on_a_gpu()):
            around.enter_context(one)
        samples = _batch(config, batch)
        tags, texts = _texts(model, config)
        with counting.stage("ViT"), computing.of("vit", CPU):
            views = model.backbone(samples["views"].flatten(0, 1))
            views = views.unflatten(0, (batch, -1))
        with counting.stage("region encoder"), computing.of("region", CPU):
            regions = model.region_encoder(model.region_encoder.pool(views, samples["boxes"]))
        with counting.stage("Q-Former"), computing.of("region", CPU):
            queries = model.qformer(regions)
        del regions, views
        with counting.stage("tags"), computing.of("heads", CPU):
            model.tagging(tags, queries)
        with counting.stage("attributes, categories"), computing.of("heads", CPU):
            model.contrast(texts, queries)
        with counting.stage("captions"), computing.of("llm", CPU):
            with counting.ending_loops():
                model.captioning.generate(queries, samples["controls"], search)
            prompt = model.captioning.prompt(queries, samples["controls"])[1]
            shape = SearchShape(*prompt.shape, search.max_new_tokens)
            exact, kept = (_search_bytes(model, one, beams) for one in (shape, shape.rounded()))
    peaks = {name: stage.peak + kept for name, stage in counting.stages.items()}
    peaks["captions"] -= exact  # the search that it used itself
    return {"weights": weights, "kept search": kept, **peaks, "peak": max(peaks.values())}


def _search_bytes(model: DynRefer, shape: SearchShape, beams: int) -> int:
    """What a search of captions of that shape holds on a GPU between two calls."""
    llm = model.captioning.llm
    with llm.products() as dtype:
        products = DecoderProducts(llm.model, dtype)
    return cache_bytes(products, shape.rows, shape.places, beams, shape.tokens)


def training_memory(section: Mapping[str, Any], *, batch: int, caption: str) -> dict[str, int]:
    """Bytes of a training step in float16 as on a GPU.

    Args:
        section: of a model, without files.
        batch: regions.
        caption: of each; what is longer than the model's `max_text_length` is cut off.

    Returns:
        `weights`, `optimiser`, what each part keeps for the backward pass, and the `peak` with all
        of these.
    """
    config, model = _config(section), model_of_section(section).train()
    with Counting() as counting, LikeCuda(), as_on_a_gpu():
        stored = {"backbone.vit.": torch.float16, "captioning.llm.": torch.bfloat16}
        counting.adopt(model, stored)
        weights = counting.live
        trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
        tags, _ = _texts(model, config)
        samples = {**_batch(config, batch), "captions": [caption] * batch}
        with (
            torch.autocast("cpu", dtype=torch.float16),
            counting.saving(dict(model.named_parameters())),
        ):
            loss = _loss(model, samples, tags, counting)
        with counting.stage("backward"):
            run_backward(loss)
    kept = {f"kept by {name}": one.saved for name, one in counting.stages.items() if one.saved}
    optimiser = _ADAMW * trained
    peak = counting.total.peak + optimiser
    return {"weights": weights, "optimiser": optimiser, **kept, "peak": peak}


def _loss(model: DynRefer, samples: dict[str, Any], tags: Tensor, counting: Counting) -> Tensor:
    stage = counting.stage
    with stage("views, region encoder"):
        features = model.encode_views(samples["views"], samples["boxes"])
        regions = model.region_encoder(features)
    with stage("Q-Former"):
        queries = model.qformer(regions)
    with stage("tags"):
        targets = torch.zeros(len(queries), len(tags))
        logits = model.tagging(tags, queries)
        loss = asymmetric_loss(logits, targets, gamma_negative=7.0, gamma_positive=0.0, clip=0.05)
        del logits, targets
    with stage("contrast"):
        texts = model.embed_texts(samples["captions"], keep=False)
        loss = loss + model.contrast.loss(texts, queries)
    with stage("captions"):
        return loss + model.captioning.loss(queries, samples["controls"], samples["captions"])


def _config(section: Mapping[str, Any]) -> DynReferConfig:
    return from_mapping(DynReferConfig, section, where="model")


def _batch(config: DynReferConfig, regions: int) -> dict[str, Any]:
    return batch_of(config.vision.image_size, regions, config.region.num_views)


def _texts(model: DynRefer, config: DynReferConfig) -> tuple[Tensor, Tensor]:
    """Embeddings of the tag list, and of the attributes and categories together."""
    prompts = [text for one in model.attributes for text in attribute_prompts(one)]
    count = len(prompts) + len([category_prompt(name) for name in model.categories])
    width = config.text.embed_dim
    return torch.empty(len(model.tagging.tags), width), torch.empty(count, width)
