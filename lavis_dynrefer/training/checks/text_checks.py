"""What a model's tokenizers lose of the texts of a run, counted before it starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lavis_dynrefer.config import DynReferConfig
from lavis_dynrefer.datasets.region_sets import sample_captions
from lavis_dynrefer.errors import shorten
from lavis_dynrefer.paths import find_resource
from lavis_dynrefer.structures import RegionSet
from lavis_dynrefer.training.checks.findings import Finding, Findings, warning
from lavis_dynrefer.vocab.prompts import attribute_prompts, attribute_synonyms, category_prompt

if TYPE_CHECKING:
    from lavis_dynrefer.models.texts.lost_text import LostText

SAMPLED = 4000  # captions of a split that are looked at
LENGTH_KEY = "model.captioning.max_text_length"
CONTEXT_KEY = "model.text.context_length"
_EXAMPLE_LENGTH = 60  # characters

Count = Callable[[Sequence[str]], "LostText"]


class Counters(NamedTuple):
    """Count what the tokenizers of a model lose of texts; None for one that is not known."""

    captions: Count | None  # the language model
    names: Count | None  # the text tower

    @classmethod
    def of_model(cls, model: Any) -> Counters:
        """Of a model that was built."""
        captioning = getattr(model, "captioning", None)
        tokenizer = getattr(getattr(captioning, "llm", None), "tokenizer", None)
        names = getattr(getattr(model, "text_encoder", None), "tokenizer", None)
        return cls(
            None if tokenizer is None else _of_captions(tokenizer, captioning.max_text_length),
            getattr(names, "lost", None),
        )

    @classmethod
    def of_config(cls, config: DynReferConfig) -> Counters:
        """Of the tokenizers that lie on this machine; nothing is downloaded.

        Raises:
            InputError: a file that is no tokenizer.
        """
        from lavis_dynrefer.models.texts.tokenizers import build_text_tokenizer, load_llm_tokenizer

        options, text = config.captioning.llm_options, config.text
        name = options.get("tokenizer") or options.get("pretrained")
        captions = names = None
        if isinstance(name, str) and find_resource(name) is not None:
            limit = config.captioning.max_text_length
            captions = _of_captions(load_llm_tokenizer(name), limit)
        if text.tokenizer != "clip" and find_resource(text.tokenizer) is not None:
            length = text.context_length
            names = build_text_tokenizer(text.tokenizer, context_length=length).lost
        return cls(captions, names)


def check_captions(place: str, region_set: RegionSet, max_words: Any, count: Count) -> Findings:
    """The captions of a split to train on.

    Args:
        place: name of the split in messages.
        region_set: the split.
        max_words: what the text processor keeps of a caption; None for all.
        count: of the language model.
    """
    captions, total = sample_captions(region_set, SAMPLED)
    if not captions:
        return
    of = f"{len(captions):,} captions"
    if total > len(captions):
        of += f" sampled of {total:,}"
    if isinstance(max_words, int):
        dropped = sum(len(caption.split()) > max_words for caption in captions)
        if dropped:
            yield warning(
                f"{place}: {_share(dropped, len(captions))} of {of} have more than {max_words} "
                "words, and the text processor drops the rest; set text_processor.train.max_words"
            )
        captions = [" ".join(caption.split()[:max_words]) for caption in captions]
    lost = count(captions)
    yield from _cut(place, of, lost, LENGTH_KEY)
    yield from _unknown(place, of, lost, "captions")


def check_names(
    place: str, what: str, names: Sequence[str], prompts: Sequence[str], count: Count
) -> Findings:
    """Names that the text tower embeds in prompts.

    Args:
        place: name of the split in messages.
        what: "tags", "attributes" or "categories".
        names: the words of them.
        prompts: what is embedded.
        count: of the text tower.
    """
    if names:
        yield from _cut(place, f"{len(prompts):,} prompts of {what}", count(prompts), CONTEXT_KEY)
        yield from _unknown(place, f"{len(names):,} {what}", count(names), what)


def check_graded_names(place: str, region_set: RegionSet, evaluator: str, count: Count) -> Findings:
    """What the text tower embeds to answer an evaluator."""
    if evaluator == "attributes":
        words = [word for item in region_set.attributes for word in attribute_synonyms(item)]
        prompts = [text for item in region_set.attributes for text in attribute_prompts(item)]
        yield from check_names(place, evaluator, words, prompts, count)
    if evaluator == "categories":
        names = region_set.category_names
        prompts = [category_prompt(name) for name in names]
        yield from check_names(place, evaluator, names, prompts, count)


def _of_captions(tokenizer: Any, max_text_length: int) -> Count:
    from lavis_dynrefer.models.texts.lost_text import count_lost

    return lambda texts: count_lost(texts, tokenizer, max_text_length - 1)  # one ends the text


def _cut(place: str, of: str, lost: LostText, key: str) -> Findings:
    if lost.cut:
        yield warning(
            f"{place}: {_share(lost.cut, lost.texts)} of {of} have more than {lost.limit} tokens "
            f"and are cut there; the longest has {lost.longest}; {key} sets the length"
        )


def _unknown(place: str, of: str, lost: LostText, what: str) -> Findings:
    if not lost.unknown:
        return
    found = (
        f"{place}: {_share(lost.unknown, lost.tokens)} of {lost.tokens:,} tokens of {of} are "
        "unknown to the tokenizer, for example in "
        f"{shorten(lost.example, _EXAMPLE_LENGTH, printable=True)!r}"
    )
    if lost.is_unusable:
        cure = "translate them, or choose a model whose tokenizer knows their language"
        yield Finding(f"{found}; next to nothing is left of the {what}: {cure}")
    else:
        yield warning(found)


def _share(part: int, whole: int) -> str:
    """Count and percentage, which is never rounded to nothing."""
    percent = 100 * part / whole
    return f"{part:,} ({percent:.0f} %)" if percent >= 1 else f"{part:,} (below 1 %)"
