"""Encoder, captions, whole answers and training steps of a model with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import lavis  # noqa: F401  first, for threads
import torch
from einops import rearrange
from torch import Tensor

from lavis_dynrefer.config import GenerationConfig, VisionConfig
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.lab.benchmarks.model_sizes import (
    build_model,
    example_batch,
    vision_of,
    words_of,
)
from lavis_dynrefer.lab.benchmarks.resource_usage import Numbers
from lavis_dynrefer.lab.speed.embedded_speed import measure_embedded
from lavis_dynrefer.lab.speed.pairs import Clock, compare, peak_memory
from lavis_dynrefer.lab.speed.plain_model import PlainModel, in_chunks
from lavis_dynrefer.models.precision import autocast, choose_device, formats_on
from lavis_dynrefer.vocab.control_words import control_prompt
from lavis_dynrefer.vocab.prompts import attribute_prompts, category_prompt

Work = Callable[[], Any]
_SEED = 7
_EQUAL = 1e-3  # largest relative difference of numbers of the two paths in float32


@dataclass(frozen=True)
class SpeedOptions:
    """What is measured.

    Args:
        size: one of `model_sizes.SIZES`.
        device: as in `precision.choose_device`.
        dtype: number formats of answers, as in `precision.NumberFormats`.
        regions: in one call.
        beams: of the beam search.
        tokens: of each caption.
        repeats: pairs of measurements.
    """

    size: str = "middle"
    device: str = "auto"
    dtype: str = "auto"
    regions: int = 16
    beams: int = 2
    tokens: int = 20
    repeats: int = 3


class Bench:
    """A model, a batch, and both ways of computing it."""

    def __init__(self, options: SpeedOptions) -> None:
        self.options = options
        self.device = choose_device(options.device)
        self.clock = Clock(self.device)
        self.formats = formats_on(options.dtype, self.device)
        with torch.random.fork_rng(), torch.device(self.device):
            torch.manual_seed(_SEED)
            self.model = build_model(options.size)
            # As made, the alignment gives zeros, and all regions would look much alike.
            for weight in self.model.region_encoder.parameters():
                torch.nn.init.normal_(weight, std=0.02)
            for weight in (
                self.model.qformer.query_tokens,
                self.model.captioning.prefix.projection.weight,
            ):
                torch.nn.init.normal_(weight, std=1.0)
        vision: VisionConfig = vision_of(options.size)
        self.plain = PlainModel(self.model, vision)
        self.model.backbone.store_for(self.formats.vit)
        batch = example_batch(options.size, options.regions, seed=_SEED)
        self.batch = {
            name: value.to(self.device) if isinstance(value, Tensor) else value
            for name, value in batch.items()
        }
        words = words_of(options.size)
        self.names = {"attributes": words["attributes"], "categories": words["categories"]}
        self.groups = [attribute_prompts(name) for name in words["attributes"]]
        texts = {
            "attributes": [text for group in self.groups for text in group],
            "categories": [category_prompt(name) for name in words["categories"]],
        }
        embed = self.model.embed_texts
        self.tags = embed(self.model.tagging.tags)
        self.texts = {name: embed(tuple(rows)) for name, rows in texts.items()}
        self.ask(options)

    def ask(self, options: SpeedOptions) -> None:
        """Take beams and tokens of captions from other options."""
        self.options = options
        self.search = replace(
            self.model.caption_config.generation,
            num_beams=options.beams,
            max_new_tokens=options.tokens,
            min_length=options.tokens,  # random weights may end a sentence at once
        )

    def compare(self, plain: Work, ours: Work) -> Numbers:
        """See `pairs.compare`; without gradients."""

        def quietly(work: Work) -> Work:
            def run() -> Any:
                with torch.inference_mode():
                    return work()

            return run

        return compare(
            quietly(plain),
            quietly(ours),
            self.clock,
            repeats=self.options.repeats,
            regions=self.options.regions,
        )

    def chunked(self, work: Callable[..., Any], *rows: Any) -> Work:
        """`work` for 20 regions at a time, as in the released code."""
        return lambda: [
            work(*(value[part] for value in rows)) for part in in_chunks(self.options.regions)
        ]

    # One answer by each path --------------------------------------------------------------------

    def our_answers(self) -> list[Any]:
        """All answers, by `predict`."""
        return self.model.predict(
            self.batch, generation=self.search, dtype=self.options.dtype, **self.names
        )

    @torch.no_grad()
    def plain_answers(self) -> list[dict[str, Any]]:
        """All answers, chunk by chunk."""
        return [
            answer for part in in_chunks(self.options.regions) for answer in self._plain_chunk(part)
        ]

    def _plain_chunk(self, part: slice) -> list[dict[str, Any]]:
        plain, model = self.plain, self.model
        tokens = plain.tokens(self.batch["views"][part])
        queries = plain.queries(plain.regions(tokens, self.batch["boxes"][part]))
        tags = model.tagging.names(plain.tags(self.tags, queries), model.tagging.tags)
        scores = plain.contrast(self.texts["attributes"], queries).sigmoid().cpu()
        sizes = [len(group) for group in self.groups]
        best = torch.stack([one.amax(dim=1) for one in scores.split(sizes, dim=1)], dim=1)
        categories = plain.contrast(self.texts["categories"], queries).float().cpu()
        steered = model.caption_config.steer_by_tags
        prompts = [control_prompt([tag for tag, _ in row] if steered else []) for row in tags]
        captions, probabilities = plain.captions(queries, prompts, self.search)
        return [
            {
                "caption": captions[row],
                "score": probabilities[row],
                "tags": [tag for tag, _ in tags[row]],
                "attributes": dict(zip(self.names["attributes"], best[row].tolist())),
                "categories": dict(zip(self.names["categories"], categories[row].tolist())),
            }
            for row in range(len(queries))
        ]

    def same_answers(self) -> Numbers:
        """How far the answers of both paths agree.

        Raises:
            InputError: they differ in float32.
        """
        pairs = list(zip(self.plain_answers(), self.our_answers()))
        count = len(pairs)
        captions = sum(plain["caption"] == ours.caption for plain, ours in pairs)
        tags = sum(
            sorted(plain["tags"]) == sorted(tag for tag, _ in ours.tags) for plain, ours in pairs
        )
        differences = {
            name: max(
                abs(plain[name][key] - value)
                for plain, ours in pairs
                for key, value in getattr(ours, name)
            )
            for name in ("attributes", "categories")
        }
        scores = [
            abs(plain["score"] - ours.caption_score) / plain["score"]
            for plain, ours in pairs
            if plain["caption"] == ours.caption
        ]
        exact = self.formats.llm == torch.float32
        if exact and (min(captions, tags) < count or max(scores, default=0) > _EQUAL):
            raise InputError(
                f"the two paths answer differently: {captions} of {count} captions and {tags} of "
                f"{count} lists of tags are equal; a ratio of their times means nothing"
            )
        return {
            "equal captions": f"{captions} of {count}",
            "equal tags": f"{tags} of {count}",
            "largest difference of an attribute": differences["attributes"],
            "of a category": differences["categories"],
            "of a caption's score, relative": max(scores, default=float("nan")),
        }


def measure_encoder(options: SpeedOptions, bench: Bench | None = None) -> Numbers:
    """Stage by stage: ViT, region encoder, Q-Former, tags, attributes and categories."""
    bench = bench or Bench(options)
    model, plain, formats = bench.model, bench.plain, bench.formats
    views, boxes = bench.batch["views"], bench.batch["boxes"]
    with torch.inference_mode():
        tokens = plain.tokens(views)
        regions = plain.regions(tokens, boxes)
        queries = plain.queries(regions)
    together = torch.cat([*bench.texts.values()])

    def vit() -> Tensor:
        with formats.of("vit", bench.device):
            return model.backbone(rearrange(views, "b v c h w -> (b v) c h w"))

    def in_format(part: str, work: Callable[..., Any], *values: Any) -> Work:
        def run() -> Any:
            with formats.of(part, bench.device):
                return work(*values)

        return run

    def attributes_and_categories(chunk: Tensor) -> None:
        for texts in bench.texts.values():
            plain.contrast(texts, chunk)

    def encode(part_tokens: Tensor, part_boxes: Tensor) -> Tensor:
        return model.region_encoder(model.region_encoder.pool(part_tokens, part_boxes))

    return {
        "ViT": bench.compare(bench.chunked(plain.tokens, views), vit),
        "region encoder": bench.compare(
            bench.chunked(plain.regions, tokens, boxes), in_format("region", encode, tokens, boxes)
        ),
        "Q-Former": bench.compare(
            bench.chunked(plain.queries, regions), in_format("region", model.qformer, regions)
        ),
        "tags": bench.compare(
            bench.chunked(lambda chunk: plain.tags(bench.tags, chunk), queries),
            in_format("heads", model.tagging, bench.tags, queries),
        ),
        "attributes, categories": bench.compare(
            bench.chunked(attributes_and_categories, queries),
            in_format("heads", model.contrast, together, queries),
        ),
    }


def measure_caption(options: SpeedOptions, bench: Bench | None = None) -> Numbers:
    """Captions: all of them, and up to the first token."""
    bench = bench or Bench(options)
    with torch.inference_mode():
        tokens = bench.plain.tokens(bench.batch["views"])
        queries = bench.plain.queries(bench.plain.regions(tokens, bench.batch["boxes"]))
    controls = bench.batch["controls"]

    def both(search: GenerationConfig, *, cached: bool = False) -> Numbers:
        def ours() -> Any:
            with bench.formats.of("llm", bench.device):
                return bench.model.captioning.generate(queries, controls, search)

        def plain(rows: Tensor, prompts: list[str]) -> Any:
            return bench.plain.captions(rows, prompts, search, cached=cached)

        return bench.compare(bench.chunked(plain, queries, controls), ours)

    return {
        "caption": both(bench.search),
        "caption, beside generate with a cache": both(bench.search, cached=True),
        "caption, first token": both(replace(bench.search, max_new_tokens=1, min_length=1)),
    }


def measure_inference(options: SpeedOptions, bench: Bench | None = None) -> Numbers:
    """Everything asked, by both paths, whose answers are compared; then stage by stage.

    With the size "tiny" also whole calls of the embedded model, which has that size.
    """
    bench = bench or Bench(options)
    answers = bench.same_answers()
    whole = bench.compare(bench.plain_answers, bench.our_answers)
    peak = peak_memory(bench.device, bench.our_answers)
    results = {
        "all answers": {**whole, **_rate(whole, peak)},
        **measure_encoder(options, bench),
        **measure_caption(options, bench),
        "answers": answers,
    }
    if options.size == "tiny":
        results["embedded model, with its views"] = measure_embedded(
            device=options.device,
            dtype=options.dtype,
            regions=options.regions,
            repeats=options.repeats,
        )
    return results


def measure_training(options: SpeedOptions, bench: Bench | None = None) -> Numbers:
    """A training step: losses, gradients, AdamW. Without dropout the losses must be equal.

    Raises:
        InputError: the losses differ.
    """
    bench = bench or Bench(options)
    model, device = bench.model, bench.device
    amp = "fp16" if device.type == "cuda" else "float32"
    if device.type == "cuda":
        model.backbone.store_for(torch.float16)
    with torch.no_grad(), autocast(device, amp):
        losses = [
            float(bench.plain.loss(bench.batch, bench.tags)),
            float(model(bench.batch)["loss"]),
        ]
    if abs(losses[0] - losses[1]) > (_EQUAL if amp == "float32" else 0.02) * abs(losses[0]):
        raise InputError(f"the two paths have different losses: {losses}")
    model.train()
    model.embed_texts(model.tagging.tags)
    trained = [weight for weight in model.parameters() if weight.requires_grad]

    def step_of(loss: Callable[[], Tensor], **kind: Any) -> Work:
        optimizer = torch.optim.AdamW(trained, lr=1e-7, **kind)
        scaler = torch.amp.GradScaler("cuda", init_scale=128.0, enabled=amp == "fp16")

        def step() -> None:
            optimizer.zero_grad()
            with autocast(device, amp):
                value = loss()
            scaler.scale(value).backward()
            scaler.step(optimizer)
            scaler.update()

        return step

    ours = step_of(lambda: model(bench.batch)["loss"], fused=True)
    ours()  # makes the state of the optimiser
    peak = peak_memory(device, ours)
    plain = step_of(lambda: bench.plain.loss(bench.batch, bench.tags))
    whole = compare(plain, ours, bench.clock, repeats=options.repeats, regions=options.regions)
    model.eval()
    loss = {"plain loss": losses[0], "loss": losses[1]}
    return {"training step": {**whole, **_rate(whole, peak)}, "losses": loss}


def profile_of(options: SpeedOptions, name: str) -> str:
    """A table of torch's profiler for one call of ours: "inference" or "training"."""
    bench = Bench(options)
    work: Work = bench.our_answers
    if name == "training":
        bench.model.train()

        def work() -> None:
            with autocast(bench.device, "fp16" if bench.device.type == "cuda" else "float32"):
                loss = bench.model(bench.batch)["loss"]
            loss.backward()

    work()
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if bench.device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profiler:
        work()
    order = "self_cuda_time_total" if bench.device.type == "cuda" else "self_cpu_time_total"
    return str(profiler.key_averages().table(sort_by=order, row_limit=25))


def _rate(whole: Numbers, peak: int | None) -> Numbers:
    rates = {"regions/s": 1000 / whole["ms"]}
    return rates if peak is None else {**rates, "peak GiB": peak / 2**30}
