"""Vocabularies: tags, prompts of attributes and categories, control words.

Pure text: nothing here imports LAVIS or a model, and language toolkits are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lavis_dynrefer.lazy_names import lazy_names

if TYPE_CHECKING:
    from lavis_dynrefer.vocab.caption_taggers import (
        TAG_METHODS,
        CaptionTagger,
        Tagger,
        build_tagger,
    )
    from lavis_dynrefer.vocab.pos import PosTagger, build_pos_tagger
    from lavis_dynrefer.vocab.prompts import load_attributes
    from lavis_dynrefer.vocab.word_lists import build_vocabulary, check_words, load_names

__all__ = [
    "TAG_METHODS",
    "CaptionTagger",
    "PosTagger",
    "Tagger",
    "build_pos_tagger",
    "build_tagger",
    "build_vocabulary",
    "check_words",
    "load_attributes",
    "load_names",
]

__getattr__ = lazy_names(
    __name__,
    {
        "caption_taggers": (
            "TAG_METHODS",
            "CaptionTagger",
            "Tagger",
            "build_tagger",
        ),
        "pos": (
            "PosTagger",
            "build_pos_tagger",
        ),
        "prompts": ("load_attributes",),
        "word_lists": (
            "build_vocabulary",
            "check_words",
            "load_names",
        ),
    },
)
