"""Matching detections to truth boxes as DenseCap does (Johnson et al., 2016).

Truth boxes that overlap a lot are merged and share their captions; every detection goes to the
truth box it overlaps most, and the best-scored detection of a truth box claims it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lavis_dynrefer.images.boxes import pairwise_iou
from lavis_dynrefer.metrics.graded_regions import CaptionPair

MERGE_IOU = 0.7  # DenseCap


@dataclass(frozen=True)
class ImageCaptions:
    """The truth and the detections of one image.

    Args:
        truth_boxes: (G, 4) xyxy in pixels, float32.
        truth_captions: G sentences.
        boxes: (R, 4) xyxy in pixels, float32, of the detections.
        captions: R sentences.
        scores: (R,) confidence of the detections.
    """

    truth_boxes: Tensor
    truth_captions: Sequence[str]
    boxes: Tensor
    captions: Sequence[str]
    scores: Tensor


@dataclass(frozen=True)
class Matches:
    """All detections of a dataset, each with the merged truth box it overlaps most.

    Args:
        scores: (N,) float32 confidence.
        ious: (N,) float32 overlap with that truth box.
        first: (N,) True for the detection that claims its truth box; only it can be right.
        pairs: N captions, each with the captions of that truth box (empty without overlap).
        num_truth: number of merged truth boxes.
    """

    scores: NDArray[np.float32]
    ious: NDArray[np.float32]
    first: NDArray[np.bool_]
    pairs: Sequence[CaptionPair]
    num_truth: int


def merge_truth(boxes: Tensor, threshold: float = MERGE_IOU) -> list[list[int]]:
    """Group overlapping boxes: the one with most neighbours takes them all, and so on.

    Args:
        boxes: (G, 4) xyxy in pixels.
        threshold: lowest overlap of neighbours.

    Returns:
        Groups of row numbers; every row is in exactly one.

    >>> merge_truth(torch.tensor([[0., 0., 10., 10.], [50., 50., 60., 60.], [0., 0., 10., 9.]]))
    [[0, 2], [1]]
    """
    near = (pairwise_iou(boxes, boxes) >= threshold).numpy()  # (G, G)
    np.fill_diagonal(near, True)  # a box without area is a group of its own
    groups = []
    while near.any():
        members = np.flatnonzero(near[near.sum(axis=1).argmax()])
        groups.append(members.tolist())
        near[members, :] = False
        near[:, members] = False
    return groups


def match_image(image: ImageCaptions) -> Matches:
    """Match the detections of one image, best score first."""
    groups = merge_truth(image.truth_boxes)
    order = image.scores.argsort(descending=True, stable=True)
    captions = [image.captions[row] for row in order.tolist()]
    if not groups or not captions:
        ious, owners = torch.zeros(len(captions)), [-1] * len(captions)
    else:
        merged = torch.stack([image.truth_boxes[rows].mean(dim=0) for rows in groups])
        ious, best = pairwise_iou(image.boxes[order], merged).max(dim=1)  # (R,), (R,)
        owners = best.masked_fill(ious <= 0, -1).tolist()
    references = [[image.truth_captions[row] for row in rows] for rows in groups]
    claimed: set[int] = {-1}
    first = []
    for owner in owners:
        first.append(owner not in claimed)
        claimed.add(owner)
    return Matches(
        scores=image.scores[order].numpy(),
        ious=ious.numpy(),
        first=np.array(first, dtype=bool),
        pairs=[
            (caption, references[owner] if owner >= 0 else [])
            for caption, owner in zip(captions, owners)
        ],
        num_truth=len(groups),
    )


def match_images(images: Iterable[ImageCaptions]) -> Matches:
    """Match the detections of all images; each image by itself."""
    parts = [match_image(image) for image in images]
    return Matches(
        scores=np.concatenate([part.scores for part in parts]),
        ious=np.concatenate([part.ious for part in parts]),
        first=np.concatenate([part.first for part in parts]),
        pairs=[pair for part in parts for pair in part.pairs],
        num_truth=sum(part.num_truth for part in parts),
    )
