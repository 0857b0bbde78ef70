"""Synthetic regions whose views are encoded once at every scale, for any number of models."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.progress import track
from torch import Tensor

from lavis_dynrefer.models.answering import Answerer
from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.models.region_encoder import ViewFeatures
from lavis_dynrefer.questions import Questions
from lavis_dynrefer.structures import RegionPrediction
from lavis_dynrefer.synthetic.dataset import described_objects, read_truth
from lavis_dynrefer.views.policies import FixedScales, ViewPolicy
from lavis_dynrefer.views.view_processor import ViewProcessor
from lavis_dynrefer.vocab import Tagger
from lavis_dynrefer.vocab.control_words import ControlSampler

SCALES = tuple(step / 10 for step in range(11))  # of the encoded views


@dataclass(frozen=True)
class EncodedObjects:
    """R regions, each encoded at all of `SCALES`.

    Args:
        features: (R, 11, ...) in bfloat16.
        boxes: (R, 4) xyxy in pixels of the images.
        truth: R rows of `read_truth`.
        captions: all captions of each region.
        chosen: policy -> (R,) index into `SCALES` of the second view that it chooses.
    """

    features: ViewFeatures
    boxes: Tensor
    truth: Sequence[Mapping[str, Any]]
    captions: Sequence[Sequence[str]]
    chosen: Mapping[str, Tensor]

    def views(self, rows: Tensor, columns: Tensor) -> ViewFeatures:
        """Features of the regions `rows` (B,) at the scales `columns` (B, n)."""
        return ViewFeatures(
            self.features.summary[rows[:, None], columns].float(),
            self.features.maps[rows[:, None], columns].float(),
        )


def encode_scenes(
    model: DynRefer,
    root: Path,
    split: str,
    *,
    images: int,
    policies: Mapping[str, ViewPolicy] | None = None,
) -> EncodedObjects:
    """Encode every object of the first images of a split at every scale.

    Args:
        model: its backbone encodes.
        root: a dataset of `write_dataset`.
        split: one of its splits.
        images: number of images.
        policies: of two views; their choices are recorded.
    """
    found = described_objects(root, split, images)
    captions: dict[tuple[int, tuple[float, ...]], list[str]] = {}
    for row in read_truth(root, split).values():
        captions.setdefault((row["image_id"], tuple(row["box"])), []).append(row["phrase"])
    processor = ViewProcessor(FixedScales(SCALES), image_size=model.backbone.image_size)
    features: list[ViewFeatures] = []
    chosen: dict[str, list[Tensor]] = {name: [] for name in policies or {}}
    for path, rows in track(found.items(), description=f"views of {split}"):
        with Image.open(path) as file:
            image = file.convert("RGB")
        boxes = torch.tensor([row["box"] for row in rows], dtype=torch.float32)
        sample = processor(image, boxes)
        with torch.no_grad():
            seen = model.encode_views(sample["views"], sample["boxes"])
        features.append(ViewFeatures(seen.summary.bfloat16(), seen.maps.bfloat16()))
        for name, policy in (policies or {}).items():
            second = policy.plan(image, boxes).scales[:, 1:2]
            chosen[name].append((second - torch.tensor(SCALES)).abs().argmin(dim=1))
    truth = [row for rows in found.values() for row in rows]
    return EncodedObjects(
        features=ViewFeatures(
            torch.cat([one.summary for one in features]),
            torch.cat([one.maps for one in features]),
        ),
        boxes=torch.tensor([row["box"] for row in truth], dtype=torch.float32),
        truth=truth,
        captions=[captions[row["image_id"], tuple(row["box"])] for row in truth],
        chosen={name: torch.cat(parts) for name, parts in chosen.items()},
    )


def train_on_encoded(
    model: DynRefer,
    encoded: EncodedObjects,
    columns: Callable[[int, torch.Generator], Tensor],
    *,
    parts: Sequence[str],
    steps: int,
    seed: int,
    learning_rate: float,
    batch: int = 32,
) -> None:
    """Train parts of a model on encoded views, as a run of LAVIS does on images.

    Args:
        model: trained in place; its other parts are frozen.
        encoded: regions of the training split.
        columns: number of regions and generator -> (B, V) indices into `SCALES`.
        parts: of the model, by name.
        steps: of the optimiser.
        seed: of the order of the regions, the captions and the control words.
        learning_rate: the highest; warm-up over 100 steps, then a cosine to 2 %.
        batch: regions per step.
    """
    torch.manual_seed(seed)  # for dropout
    rng, words_rng = torch.Generator().manual_seed(seed), random.Random(seed)
    tags = model.tagging.tags
    tagger, column = Tagger(tags), {tag: index for index, tag in enumerate(tags)}
    controls = ControlSampler.from_settings(model.caption_config)
    for name, part in model.named_children():
        part.requires_grad_(name in parts)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [w for w in weights if w.ndim > 1], "weight_decay": 0.05},
            {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=learning_rate,
    )
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, 0.02 * learning_rate)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=min(100, steps))
    model.train()
    for _ in track(range(steps), description=f"training, seed {seed}"):
        rows = torch.randint(len(encoded.truth), (batch,), generator=rng)
        picks = torch.rand(batch, generator=rng).tolist()
        choices = [encoded.captions[row] for row in rows.tolist()]
        texts = [some[int(pick * len(some))] for some, pick in zip(choices, picks)]
        found = [tagger(text) for text in texts]
        prompts = [controls.prompt(*pair, words_rng) for pair in zip(texts, found)]
        with torch.autocast("cpu", torch.bfloat16):
            queries = model.region_queries(encoded.views(rows, columns(batch, rng)))
            numbers = [[column[tag] for tag in row] for row in found]
            losses = model.losses_of(queries, texts, numbers, prompts)
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        decay.step()
        warmup.step()
    model.eval()


@torch.no_grad()
def answers_from(
    model: DynRefer, encoded: EncodedObjects, columns: Mapping[str, Tensor], *, chunk: int = 128
) -> list[RegionPrediction]:
    """All answers about all regions.

    Args:
        model: in eval mode.
        encoded: the regions.
        columns: task -> (R, V) indices into `SCALES` of the views it uses.
        chunk: regions answered at once.
    """
    answerer = Answerer(model)
    answers: list[RegionPrediction] = []
    for rows in torch.arange(len(encoded.truth)).split(chunk):
        sample = {
            "scales": torch.tensor(SCALES).repeat(len(rows), 1),
            "image_boxes": encoded.boxes[rows],
            "routes": {task: table[rows] for task, table in columns.items()},
        }
        features = encoded.views(rows, torch.arange(len(SCALES)).repeat(len(rows), 1))
        answers += answerer.answer(sample, features, Questions())
    return answers
