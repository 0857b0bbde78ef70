"""What a model takes in memory on a GPU, part by part, computed with tensors that have none."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lavis_dynrefer.config import DynReferConfig
from lavis_dynrefer.lab.benchmarks.counting import Counting
from lavis_dynrefer.lab.benchmarks.like_gpu import LikeCuda, as_on_a_gpu, run_backward
from lavis_dynrefer.lab.benchmarks.model_sizes import batch_of
from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.models.llms.stored_weights import to_int8
from lavis_dynrefer.models.losses import asymmetric_loss
from lavis_dynrefer.models.precision import number_formats
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
    build: Callable[[], DynRefer], config: DynReferConfig, *, batch: int, beams: int, row: str
) -> dict[str, int]:
    """Bytes of the weights, and the peak in each stage of answering, weights included.

    Args:
        build: makes the model on the meta device.
        config: its numbers.
        batch: regions at once.
        beams: of the beam search.
        row: one of `ROWS`.
    """
    formats, stored = ROWS[row]
    computing = number_formats(formats, "cuda", (9, 0))
    model = build().eval()
    if stored == "int8":
        to_int8(model.captioning.llm.model)
    llm = torch.bfloat16 if stored == "int8" else getattr(torch, stored)
    with Counting() as counting, ExitStack() as around:
        counting.adopt(model, {"backbone.vit.": computing.vit, "captioning.llm.": llm})
        weights = counting.live
        for one in (torch.inference_mode(), LikeCuda(), as_on_a_gpu()):
            around.enter_context(one)
        samples = _batch(config, batch)
        tags, texts = _texts(model, config)
        with counting.stage("ViT"), computing.of("vit", CPU):
            tokens = model.backbone(samples["views"].flatten(0, 1))
            tokens = tokens.unflatten(0, (batch, -1))
        with counting.stage("region encoder"), computing.of("region", CPU):
            features = model.region_encoder.pool(tokens, samples["boxes"])
            regions = model.region_encoder(features)
        with counting.stage("Q-Former"), computing.of("region", CPU):
            queries = model.qformer(regions)
        del regions, tokens
        with counting.stage("tags"), computing.of("heads", CPU):
            model.tagging(tags, queries)
        with counting.stage("attributes, categories"), computing.of("heads", CPU):
            model.contrast(texts, queries)
        search = replace(config.captioning.generation, num_beams=beams)
        with counting.stage("captions"), computing.of("llm", CPU), counting.ending_loops():
            model.captioning.generate(queries, samples["controls"], search)
    peaks = {name: stage.peak for name, stage in counting.stages.items()}
    return {"weights": weights, **peaks, "peak": max(peaks.values())}


def training_memory(
    build: Callable[[], DynRefer], config: DynReferConfig, *, batch: int
) -> dict[str, int]:
    """Bytes of a training step in float16 as on a GPU, with captions of 8 tokens.

    Returns:
        `weights`, `optimiser`, what each part keeps for the backward pass, and the `peak` with all
        of these.
    """
    model = build().train()
    with Counting() as counting, LikeCuda(), as_on_a_gpu():
        counting.adopt(model, {"backbone.vit.": torch.float16, "captioning.llm.": torch.bfloat16})
        weights = counting.live
        trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        tags, _ = _texts(model, config)
        samples = _batch(config, batch)
        stage = counting.stage
        with (
            torch.autocast("cpu", dtype=torch.float16),
            counting.saving(dict(model.named_parameters())),
        ):
            with stage("views, region encoder"):
                features = model.encode_views(samples["views"], samples["boxes"])
                regions = model.region_encoder(features)
            with stage("Q-Former"):
                queries = model.qformer(regions)
            with stage("tags"):
                targets = torch.zeros(batch, len(tags))
                logits = model.tagging(tags, queries)
                loss = asymmetric_loss(
                    logits, targets, gamma_negative=7.0, gamma_positive=0.0, clip=0.05
                )
                del logits, targets
            with stage("contrast"):
                texts = model.embed_texts(samples["captions"], keep=False)
                loss = loss + model.contrast.loss(texts, queries)
            with stage("captions"):
                caption = model.captioning.loss(queries, samples["controls"], samples["captions"])
                loss = loss + caption
        del features, regions, queries, texts, caption
        with stage("backward"):
            run_backward(loss)
    kept = {f"kept by {name}": one.saved for name, one in counting.stages.items() if one.saved}
    optimiser = _ADAMW * trained
    peak = counting.total.peak + optimiser
    return {"weights": weights, "optimiser": optimiser, **kept, "peak": peak}


def _batch(config: DynReferConfig, regions: int) -> dict[str, Any]:
    return batch_of(config.vision.image_size, regions, config.region.num_views)


def _texts(model: DynRefer, config: DynReferConfig) -> tuple[Tensor, Tensor]:
    """Embeddings of the tag list, and of the attributes and categories together."""
    prompts = [text for one in model.attributes for text in attribute_prompts(one)]
    count = len(prompts) + len([category_prompt(name) for name in model.categories])
    width = config.text.embed_dim
    return torch.empty(len(model.tagging.tags), width), torch.empty(count, width)
