"""Words the model is asked about: tags, attribute and category prompts, control words.

Pure text: nothing here imports LAVIS or a model; language toolkits are loaded only when asked for.
"""

from __future__ import annotations

from lavis_dynrefer.vocab.frequent_words import build_vocabulary
from lavis_dynrefer.vocab.names import load_names
from lavis_dynrefer.vocab.pos import build_pos_tagger
from lavis_dynrefer.vocab.prompts import load_attributes
from lavis_dynrefer.vocab.tag_methods import TAG_METHODS, CaptionTagger, build_tagger
from lavis_dynrefer.vocab.tagger import Tagger

__all__ = [
    "TAG_METHODS",
    "CaptionTagger",
    "Tagger",
    "build_pos_tagger",
    "build_tagger",
    "build_vocabulary",
    "load_attributes",
    "load_names",
]
