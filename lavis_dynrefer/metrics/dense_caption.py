"""Dense captioning: average precision over box overlap and caption similarity.

The metric of DenseCap (Johnson et al., 2016): a detection is right if it claims a truth box (see
`box_matching`) and both its overlap with that box and the similarity of its caption reach their
thresholds. As in the released DynRefer, but not in DenseCap's code, a box has no extra pixel.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.metrics.box_matching import ImageCaptions, Matches, match_images
from lavis_dynrefer.metrics.graded_regions import (
    OFFICIAL,
    STRICT,
    CaptionPair,
    answers_to_labelled,
    check_request,
)
from lavis_dynrefer.metrics.java_tools import meteor_scores
from lavis_dynrefer.structures import (
    Box,
    MetricReport,
    RegionPrediction,
    RegionRecord,
    RegionSet,
)

IOU_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)  # DenseCap
SIMILARITY_THRESHOLDS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)  # DenseCap, of METEOR in [0, 1]
RECALL_POINTS = 100  # DenseCap: recall 0.00, 0.01, ..., 0.99

TextSimilarity = Callable[[Sequence[CaptionPair]], Sequence[float]]


def average_precision(hits: NDArray[np.bool_], num_truth: int) -> float:
    """Mean over 100 recall points of the best precision at that recall or a higher one.

    Args:
        hits: (N,) whether each detection is right, best score first.
        num_truth: number of truth boxes.

    Returns:
        Fraction in [0, 1]; recall points run from 0.00 to 0.99.

    Raises:
        InputError: there are no truth boxes.

    >>> average_precision(np.array([True, False]), num_truth=2)  # recall 0.50 is reached, 0.51 not
    0.51
    """
    if num_truth < 1:
        raise InputError("average precision needs at least one truth box, got none")
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]  # (N,) from each rank on
    points = np.arange(RECALL_POINTS) / RECALL_POINTS
    ranks = np.searchsorted(found / num_truth, points)  # first rank that reaches the recall
    return float(np.append(best, 0.0)[ranks].mean())


def dense_caption_map(matches: Matches, similarity: TextSimilarity) -> dict[str, float]:
    """Mean average precision over overlap and similarity, and all its parts.

    Args:
        matches: the detections of the whole dataset.
        similarity: captions with their references -> numbers in [0, 1]; called once, for the
            detections whose similarity matters.

    Returns:
        In percent: "map", the mean of all "iou_<t>_meteor_<s>" (similarity strictly above s), and
        "detmap", the mean of all "iou_<t>", which grade boxes only.

    Raises:
        InputError: there is no truth, or a score is not finite.
    """
    if not np.isfinite(matches.scores).all():
        raise InputError("detection scores must be finite; the model diverged or is damaged")
    candidates = np.flatnonzero(matches.first & (matches.ious >= np.float32(min(IOU_THRESHOLDS))))
    similarities = np.full(len(matches.pairs), -1.0)
    similarities[candidates] = similarity([matches.pairs[row] for row in candidates.tolist()])
    order = np.argsort(-matches.scores, kind="stable")
    captions, boxes = {}, {}
    for iou in IOU_THRESHOLDS:
        found = matches.first & (matches.ious >= np.float32(iou))
        boxes[f"iou_{iou}"] = 100 * average_precision(found[order], matches.num_truth)
        for threshold in SIMILARITY_THRESHOLDS:
            hits = found & (similarities > threshold)
            captions[f"iou_{iou}_meteor_{threshold:g}"] = 100 * average_precision(
                hits[order], matches.num_truth
            )
    return {
        "map": float(np.mean(list(captions.values()))),
        "detmap": float(np.mean(list(boxes.values()))),
        **captions,
        **boxes,
    }


def evaluate_dense_caption(
    region_set: RegionSet,
    predictions: Mapping[int, RegionPrediction],
    *,
    mode: str = STRICT,
    similarity: TextSimilarity = meteor_scores,
) -> MetricReport:
    """Dense captioning; metrics of `dense_caption_map`, in percent.

    Truth is every region with a caption. If some regions have a detector score, only those are
    detections, ranked by it; else (ground-truth boxes) all predicted regions are, ranked by the
    caption score. The counts `ranked_by_...` tell which. Strict: all truth counts, rejected
    regions included. Official: rejected truth and images without any prediction are left out.

    Args:
        region_set: the split.
        predictions: region id -> prediction.
        mode: "strict" or "official".
        similarity: of captions; METEOR by default.

    Raises:
        InputError: nothing to grade, or no score to rank by.
        MissingPackageError: Java is missing or fails.
    """
    check_request(region_set, predictions, mode)
    proposals = [region for region in region_set.regions if region.score is not None]
    expected = proposals or [region for region in region_set.regions if region.caption is not None]
    detections = [
        (region, predictions[region.region_id])
        for region in expected
        if region.region_id in predictions and predictions[region.region_id].caption is not None
    ]
    answered = {region.image_id for region, _ in detections}
    truth = _truth(region_set, mode, answered)
    matches = match_images(_by_image(truth, detections))
    metrics = dense_caption_map(matches, similarity)
    images = {region.image_id for region in truth}
    by_detector = sum(region.score is not None for region, _ in detections)
    counts = {
        "merged_regions": matches.num_truth,
        "asked": len(expected),
        "rejected": len(region_set.rejected),
        "images": len(images),
        "images_without_prediction": len(images - answered),
        "regions": len(truth),
        "missing": len(expected) - len(detections),
        "ranked_by_detector_score": by_detector,
        "ranked_by_caption_score": len(detections) - by_detector,
    }
    return MetricReport("dense_caption", region_set.name, mode, "map", metrics, counts)


def _truth(region_set: RegionSet, mode: str, answered: set[int]) -> list[RegionRecord]:
    official = mode == OFFICIAL
    answers = answers_to_labelled(region_set, {}, "caption", skip_rejected=official)
    truth = [region for region, _ in answers if not official or region.image_id in answered]
    if not truth:
        raise InputError(
            f"{region_set.name}/{region_set.split}: no image with captions has a prediction, "
            f"and mode {OFFICIAL!r} grades only those; predict captions first"
        )
    return truth


def _by_image(
    truth: Sequence[RegionRecord], detections: Sequence[tuple[RegionRecord, RegionPrediction]]
) -> Iterator[ImageCaptions]:
    truth_of, detections_of = defaultdict(list), defaultdict(list)
    for region in truth:
        truth_of[region.image_id].append(region)
    for region, prediction in detections:
        detections_of[region.image_id].append((region, prediction))
    for image_id in dict.fromkeys([*truth_of, *detections_of]):
        found = detections_of[image_id]
        yield ImageCaptions(
            truth_boxes=_box_tensor([region.box for region in truth_of[image_id]]),
            truth_captions=[str(region.caption) for region in truth_of[image_id]],
            boxes=_box_tensor([prediction.box for _, prediction in found]),
            captions=[str(prediction.caption) for _, prediction in found],
            scores=torch.tensor([_confidence(*item) for item in found], dtype=torch.float32),
        )


def _box_tensor(boxes: Sequence[Box]) -> Tensor:
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)


def _confidence(region: RegionRecord, prediction: RegionPrediction) -> float:
    score = prediction.caption_score if region.score is None else region.score
    if score is None or not math.isfinite(score):
        raise InputError(
            f"region {region.region_id}: expected a finite detector score or caption_score to rank "
            f"by, got {score}; predict captions with their scores"
        )
    return score
