"""Captions against references: METEOR, CIDEr, BLEU and ROUGE-L, by pycocoevalcap's scorers.

Not by its COCOEvalCap, which also downloads the SPICE models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.metrics.graded_regions import (
    OFFICIAL,
    STRICT,
    CaptionPair,
    check_request,
    count_answers,
    graded_regions,
    pair_answers,
)
from lavis_dynrefer.metrics.java_tools import Meteor, tokenize
from lavis_dynrefer.structures import MetricReport, RegionPrediction, RegionRecord, RegionSet


def caption_scores(pairs: Sequence[CaptionPair], meteor: Meteor) -> dict[str, float]:
    """Scores of a corpus of captions, tokenized first, all in percent.

    Args:
        pairs: every candidate with its references; an empty candidate is a wrong one.
        meteor: a running METEOR.

    Returns:
        "meteor", "cider" (may exceed 100), "bleu_1" ... "bleu_4", "rouge_l".

    Raises:
        ValueError: no pair, or a candidate without a reference.
    """
    if not pairs or not all(references for _, references in pairs):
        raise InputError("caption scores need candidates, each with a reference, got some without")
    # Only here: a machine that trains need not have the scorers' 100 MB.
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    words = iter(tokenize([text for pair in pairs for text in (pair[0], *pair[1])]))
    tokenized = [(next(words), [next(words) for _ in references]) for _, references in pairs]
    candidates = {row: [candidate] for row, (candidate, _) in enumerate(tokenized)}
    references = {row: list(sentences) for row, (_, sentences) in enumerate(tokenized)}
    # ROUGE would call two empty sentences equal; a token that is nowhere else keeps them apart.
    marked = {row: [candidate or "\0"] for row, (candidate, _) in enumerate(tokenized)}
    bleu = Bleu(4).compute_score(references, candidates, verbose=0)[0]
    return {
        "meteor": 100 * meteor.corpus_score(tokenized),
        "cider": 100 * float(Cider().compute_score(references, candidates)[0]),
        **{f"bleu_{n}": 100 * float(value) for n, value in enumerate(bleu, start=1)},
        "rouge_l": 100 * float(Rouge().compute_score(references, marked)[0]),
    }


def evaluate_reg(
    region_set: RegionSet,
    predictions: Mapping[int, RegionPrediction],
    *,
    mode: str = STRICT,
    meteor: Meteor | None = None,
) -> MetricReport:
    """Referring expression generation: each region's caption against that region's own sentence.

    Metrics are those of `caption_scores`, in percent. Strict: a region without an answer, rejected
    ones included, has an empty caption. Official: only regions with an answer are graded.

    Args:
        region_set: one region per sentence.
        predictions: region id -> prediction.
        mode: "strict" or "official".
        meteor: a running METEOR to use; by default one is started and stopped.

    Raises:
        ValueError, RuntimeError: nothing to grade, a prediction for no region; Java fails.
    """
    check_request(region_set, predictions, mode)
    regions = graded_regions(region_set, mode, _has_caption, "a caption")
    answers = pair_answers(region_set, predictions, regions)
    captions = [None if prediction is None else prediction.caption for _, prediction in answers]
    pairs = [
        (caption or "", [str(region.caption)])
        for region, caption in zip(regions, captions)
        if mode == STRICT or caption is not None
    ]
    if not pairs:
        raise InputError(
            f"{region_set.name}/{region_set.split}: none of {len(regions)} regions has a caption "
            f"predicted, and mode {OFFICIAL!r} grades only those; predict captions first"
        )
    with nullcontext(meteor) if meteor else Meteor() as running:
        metrics = caption_scores(pairs, running)
    return MetricReport(
        evaluator="reg",
        protocol=region_set.name,
        mode=mode,
        primary="meteor",
        metrics=metrics,
        counts=count_answers(region_set, regions, sum(caption is not None for caption in captions)),
    )


def _has_caption(region: RegionRecord) -> bool:
    return region.caption is not None
