"""Captions against references: METEOR, CIDEr, BLEU and ROUGE-L by pycocoevalcap's scorers.

Its COCOEvalCap is not used because it also downloads the SPICE models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.metrics.graded_regions import (
    OFFICIAL,
    STRICT,
    CaptionPair,
    answers_to_labelled,
    check_request,
    count_answers,
)
from lavis_dynrefer.metrics.java_tools import Meteor, lent_meteor, tokenize
from lavis_dynrefer.structures import MetricReport, RegionPrediction, RegionSet


def caption_scores(pairs: Sequence[CaptionPair], meteor: Meteor) -> dict[str, float]:
    """Tokenize a corpus of captions and score it, in percent.

    Args:
        pairs: every candidate with its references; an empty candidate is wrong.
        meteor: a running METEOR.

    Returns:
        "meteor", "cider" (may exceed 100), "bleu_1" ... "bleu_4", "rouge_l".

    Raises:
        InputError: no pair, or a candidate without a reference.
    """
    if not pairs or not all(references for _, references in pairs):
        raise InputError("caption scores need candidates, each with a reference, got some without")
    # Imported here: training does not need the scorers' 100 MB.
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    words = iter(tokenize([text for pair in pairs for text in (pair[0], *pair[1])]))
    tokenized = [(next(words), [next(words) for _ in references]) for _, references in pairs]
    candidates = {row: [candidate] for row, (candidate, _) in enumerate(tokenized)}
    references = {row: list(sentences) for row, (_, sentences) in enumerate(tokenized)}
    # ROUGE takes two empty sentences for equal; a token that occurs nowhere else prevents it.
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
        meteor: a running METEOR; by default that of `lent_meteor`.

    Raises:
        InputError: nothing to grade, or a prediction for an unknown region.
        MissingPackageError: Java is missing or fails.
    """
    check_request(region_set, predictions, mode)
    answers = answers_to_labelled(
        region_set, predictions, "caption", skip_rejected=mode == OFFICIAL
    )
    captions = [None if prediction is None else prediction.caption for _, prediction in answers]
    pairs = [
        (caption or "", [str(region.caption)])
        for (region, _), caption in zip(answers, captions)
        if mode == STRICT or caption is not None
    ]
    if not pairs:
        raise InputError(
            f"{region_set.name}/{region_set.split}: none of {len(answers)} regions has a predicted "
            f"caption, and mode {OFFICIAL!r} grades only those; predict captions first"
        )
    with nullcontext(meteor) if meteor else lent_meteor() as running:
        metrics = caption_scores(pairs, running)
    counts = count_answers(region_set, answers, len(captions) - captions.count(None))
    return MetricReport("reg", region_set.name, mode, "meteor", metrics, counts)
