"""Which tags of a closed list does a caption mention?

Longest match on the words of the caption, the last word of a match also tried in its singular. A
singular counts only if it is a tag, so "bus" can never become "bu". No download, no language
model; about 50,000 captions per second and core.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

_WORD = re.compile(r"[^\W_]+(?:['\-][^\W_]+)*")  # inner hyphens and apostrophes stay: "t-shirt"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_IRREGULAR = {
    "calves": "calf",
    "children": "child",
    "dice": "die",
    "feet": "foot",
    "geese": "goose",
    "halves": "half",
    "knives": "knife",
    "leaves": "leaf",
    "lives": "life",
    "loaves": "loaf",
    "men": "man",
    "mice": "mouse",
    "oxen": "ox",
    "people": "person",
    "scarves": "scarf",
    "shelves": "shelf",
    "teeth": "tooth",
    "thieves": "thief",
    "wives": "wife",
    "wolves": "wolf",
    "women": "woman",
}
# Names of the same thing; a name that is no tag stands for the first one in its row that is.
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
MAX_WORDS = 4  # the longest tags of the RAM list


class Tagger:
    """Finds the tags of one closed list in captions.

    Args:
        tags: names as they are to be returned, each of 1 to 4 words; case does not matter.

    Raises:
        ValueError: the list is empty, or a tag occurs twice.

    >>> Tagger(["baseball bat", "bat", "man", "baseball"])("Two men holding baseball bats.")
    ('man', 'baseball bat', 'bat')
    """

    def __init__(self, tags: Sequence[str]) -> None:
        if not tags:
            raise ValueError("the tag list is empty; it needs at least one tag")
        repeated = [tag for tag, count in Counter(map(str.lower, tags)).items() if count > 1]
        if repeated:
            raise ValueError(f"the tag list names {repeated[:5]} more than once")
        self.tags = tuple(tags)
        self._by_phrase: dict[str, str] = {}
        for tag in tags:
            self._by_phrase.setdefault(" ".join(_words(tag)), tag)
        # Captions cleaned for training have lost their punctuation: "tshirt" means "t-shirt".
        for tag in tags:
            bare = " ".join(tag.lower().translate(_NO_PUNCTUATION).split())
            self._by_phrase.setdefault(bare, tag)
        for names in _SYNONYMS:
            known = [self._by_phrase[name] for name in names if name in self._by_phrase]
            for name in names if known else ():
                self._by_phrase.setdefault(name, known[0])
        longer = [phrase.split() for phrase in self._by_phrase if " " in phrase]
        self._first_words = {words[0] for words in longer}
        self._longest = min(MAX_WORDS, max((len(words) for words in longer), default=1))

    def __call__(self, caption: str) -> tuple[str, ...]:
        """Tags in the order of their mention, each once."""
        words = _words(caption)
        found: dict[str, None] = {}
        position = 0
        while position < len(words):
            tag, length = self._longest_match(words, position)
            if tag is not None:
                found[tag] = None
            if length > 1:  # of "baseball bat" the head "bat" counts too, "baseball" does not
                head = self._lookup("", words[position + length - 1])
                if head is not None:
                    found[head] = None
            position += length
        return tuple(found)

    def _longest_match(self, words: Sequence[str], position: int) -> tuple[str | None, int]:
        if words[position] in self._first_words:
            for length in range(min(self._longest, len(words) - position), 1, -1):
                start = " ".join(words[position : position + length - 1]) + " "
                tag = self._lookup(start, words[position + length - 1])
                if tag is not None:
                    return tag, length
        return self._lookup("", words[position]), 1

    def _lookup(self, start: str, last: str) -> str | None:
        for form in _forms(last):
            tag = self._by_phrase.get(start + form)
            if tag is not None:
                return tag
        return None


def build_vocabulary(
    captions: Iterable[str], stop_words: Iterable[str], *, size: int = 1000, min_count: int = 3
) -> list[str]:
    """The most frequent words of the captions, as a tag list made without any tagger.

    Plurals are counted with their singular where the captions use it too. Stop words, numbers and
    words of one letter are left out; what remains is mostly nouns and adjectives.

    Args:
        captions: sentences, cleaned or not.
        stop_words: words never taken.
        size: most tags to return.
        min_count: a word must occur at least this often.

    Returns:
        Tags, most frequent first, ties in alphabetical order.
    """
    counts = Counter(word for caption in captions for word in _words(caption))
    folded: Counter[str] = Counter()
    for word, count in counts.items():
        singular = next((form for form in _forms(word)[1:] if form in counts), word)
        folded[singular] += count
    skipped = set(stop_words)
    usable = [
        (word, count)
        for word, count in folded.items()
        if count >= min_count and len(word) > 1 and not word.isdigit() and word not in skipped
    ]
    usable.sort(key=lambda item: (-item[1], item[0]))
    return [word for word, _ in usable[:size]]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower().replace("\u2019", "'"))


@lru_cache(maxsize=65536)
def _forms(word: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_candidates(word)))


def _candidates(word: str) -> Iterator[str]:
    """The word as written, then every singular it could be the plural of."""
    yield word
    if word.endswith("'s"):
        yield word[:-2]
    if word in _IRREGULAR:
        yield _IRREGULAR[word]
    if word.endswith("ies"):
        yield word[:-3] + "y"
        yield word[:-1]
    elif word.endswith("ves"):
        yield word[:-3] + "f"
        yield word[:-3] + "fe"
    if word.endswith("es"):
        yield word[:-2]
    if word.endswith("s") and not word.endswith("ss"):
        yield word[:-1]
