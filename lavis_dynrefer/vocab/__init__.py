"""Words the model is asked about: tags, attribute and category prompts, control words.

Pure text: nothing here imports LAVIS, a model or a language toolkit.
"""

from __future__ import annotations

from lavis_dynrefer.vocab.names import load_names
from lavis_dynrefer.vocab.prompts import load_attributes
from lavis_dynrefer.vocab.tagger import Tagger, build_vocabulary

__all__ = ["Tagger", "build_vocabulary", "load_attributes", "load_names"]
