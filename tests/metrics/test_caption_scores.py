import math

import pytest

from lavis_dynrefer.metrics.caption_scores import caption_scores, evaluate_reg
from lavis_dynrefer.structures import RegionPrediction, RegionRecord, RegionSet, Rejection

BOX = (0.0, 0.0, 10.0, 10.0)
SENTENCES = ("a brown dog runs home", "two green pears lie there", "the old car stands still")


def region_set(*captions, rejected=()):
    regions = [RegionRecord(row, row, BOX, caption=text) for row, text in enumerate(captions)]
    return RegionSet("vg-reg-5k", "test", {}, regions, rejected)


def answers(*captions):
    return {row: RegionPrediction(BOX, caption=text) for row, text in enumerate(captions) if text}


def test_equal_captions_get_the_highest_scores(meteor):
    scores = caption_scores([(text, [text]) for text in SENTENCES], meteor)

    # CIDEr is ten times the mean cosine of the n-gram vectors, here in percent
    top = {"meteor": 100, "cider": 1000, "rouge_l": 100, **{f"bleu_{n}": 100 for n in range(1, 5)}}
    assert scores == pytest.approx(top, abs=1e-6)


def test_case_and_punctuation_do_not_matter(meteor):
    scores = caption_scores([(f"{text.upper()}!", [text]) for text in SENTENCES], meteor)

    assert scores["bleu_4"] == pytest.approx(100)


def test_bleu_and_rouge_by_hand(meteor):
    scores = caption_scores([("a dog sits", ["a dog lies down"])], meteor)

    brevity = math.exp(1 - 4 / 3)
    precision, recall, beta2 = 2 / 3, 2 / 4, 1.2**2
    assert scores["bleu_1"] == pytest.approx(100 * brevity * 2 / 3, abs=1e-4)
    assert scores["bleu_2"] == pytest.approx(100 * brevity * math.sqrt(2 / 3 * 1 / 2), abs=1e-4)
    assert scores["rouge_l"] == pytest.approx(
        100 * (1 + beta2) * precision * recall / (recall + beta2 * precision)
    )


def test_an_empty_answer_to_an_empty_reference_is_wrong(meteor):
    scores = caption_scores([("", [""]), ("a dog", ["a dog"])], meteor)

    assert scores["rouge_l"] == pytest.approx(50)


@pytest.mark.parametrize("pairs", [[], [("a dog", [])]])
def test_rejects_pairs_without_a_reference(meteor, pairs):
    with pytest.raises(ValueError, match="each with a reference"):
        caption_scores(pairs, meteor)


@pytest.mark.parametrize(("mode", "share"), [("strict", 2 / 3), ("official", 1.0)])
def test_only_the_strict_mode_counts_missing_answers(meteor, mode, share):
    report = evaluate_reg(region_set(*SENTENCES), answers(*SENTENCES[:2]), mode=mode, meteor=meteor)

    assert report.metrics["rouge_l"] == pytest.approx(100 * share)
    assert report.counts == {"images": 3, "regions": 3, "missing": 1, "rejected": 0}


@pytest.mark.parametrize(("mode", "share"), [("strict", 2 / 3), ("official", 1.0)])
def test_only_the_strict_mode_counts_rejected_regions(meteor, mode, share):
    rejected = [Rejection("bad_box", "", 9, RegionRecord(9, 9, BOX, caption=SENTENCES[2]))]

    report = evaluate_reg(
        region_set(*SENTENCES[:2], rejected=rejected),
        answers(*SENTENCES[:2]),
        mode=mode,
        meteor=meteor,
    )

    assert report.metrics["rouge_l"] == pytest.approx(100 * share)
    assert report.counts["rejected"] == 1


def test_strict_mode_without_any_answer_is_zero(meteor):
    report = evaluate_reg(region_set(*SENTENCES), {}, meteor=meteor)

    assert report.metrics == pytest.approx(dict.fromkeys(report.metrics, 0.0), abs=1e-6)
    assert report.counts["missing"] == 3


def test_official_mode_rejects_a_set_without_answers(meteor):
    with pytest.raises(ValueError, match="none of 3 regions has a predicted caption"):
        evaluate_reg(region_set(*SENTENCES), {}, mode="official", meteor=meteor)


def test_the_order_of_regions_does_not_matter(meteor):
    pairs = [(text, [SENTENCES[0]]) for text in SENTENCES]

    assert caption_scores(pairs, meteor) == pytest.approx(caption_scores(pairs[::-1], meteor))
