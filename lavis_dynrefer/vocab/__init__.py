"""Vocabularies: tags, prompts of attributes and categories, control words.

Pure text: nothing here imports LAVIS or a model, and language toolkits are imported on first use.
"""

from lavis_dynrefer.vocab.caption_taggers import TAG_METHODS, CaptionTagger, Tagger, build_tagger
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
