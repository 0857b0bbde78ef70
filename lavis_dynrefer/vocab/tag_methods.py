"""The ways to find the tags of a caption, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.vocab.pos import PosTagger, build_pos_tagger, is_content, is_number
from lavis_dynrefer.vocab.scene_graph import SceneGraphTagger
from lavis_dynrefer.vocab.tagger import Tagger

CaptionTagger = Callable[[str], tuple[str, ...]]
"""caption -> tags in the order of their mention, each once; can be sent to worker processes."""


class ContentTagger:
    """A plain match whose single words must be nouns, adjectives or numbers in the caption.

    Drops the verbs that are also names of things ("sitting", "walk").

    Args:
        tags: names as they are to be returned, each of 1 to 4 words; case does not matter.
        pos: part-of-speech tagger.
    """

    def __init__(self, tags: Sequence[str], pos: PosTagger) -> None:
        self.matcher = Tagger(tags)
        self.tags = self.matcher.tags
        self.pos = pos

    def __call__(self, caption: str) -> tuple[str, ...]:
        """Tags in the order of their mention, each once."""
        naming = {
            token.lower()
            for token, pos in self.pos(caption)
            if is_content(token, pos) or is_number(token, pos)
        }
        mentions = self.matcher.mentions(caption)
        kept = [tag for tag, word in mentions if word is None or word in naming]
        return tuple(dict.fromkeys(kept))


def build_tagger(method: str, tags: Sequence[str]) -> CaptionTagger:
    """A tagger for one closed list of tags.

    Args:
        method: "match" (longest match, no dependency), "match+pos" (the same, verbs filtered out
            by HanTa) or "scene_graph" (as the released DynRefer data was made).
        tags: names as they are to be returned; case does not matter.

    Raises:
        ValueError: an unknown method, an empty list, or a tag that occurs twice.
        ImportError: the method's packages are not installed.
    """
    if method not in _METHODS:
        raise InputError(f"tag method {method!r} is unknown; choose from {list(_METHODS)}")
    return _METHODS[method](tags)


def _match_content(tags: Sequence[str]) -> ContentTagger:
    return ContentTagger(tags, build_pos_tagger("hanta"))


_METHODS: dict[str, Callable[[Sequence[str]], CaptionTagger]] = {
    "match": Tagger,
    "match+pos": _match_content,
    "scene_graph": SceneGraphTagger,
}
TAG_METHODS = tuple(_METHODS)
