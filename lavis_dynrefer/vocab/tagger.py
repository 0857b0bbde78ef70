"""Which tags of a closed list does a caption mention?

Longest match on the words of the caption, the last word of a match also tried in its singular. A
singular counts only if it is a tag, so "bus" can never become "bu". No download, no language
model; about 200,000 captions per second and core.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.vocab.words import split_words, word_forms

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
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
        self.tags = checked_tags(tags)
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
        longer = [phrase.split() for phrase in self._by_phrase if " " in phrase]
        # First word of the phrases -> words of the longest one.
        self._longest: dict[str, int] = {}
        for words in longer:
            most = max(self._longest.get(words[0], 0), len(words))
            self._longest[words[0]] = min(most, MAX_WORDS)

    def __call__(self, caption: str) -> tuple[str, ...]:
        """Tags in the order of their mention, each once."""
        return tuple(dict.fromkeys([tag for tag, _ in self.mentions(caption)]))

    def mentions(self, caption: str) -> list[tuple[str, str | None]]:
        """Every place where a tag is named, in order: the tag, and the word if it is a single one.

        >>> Tagger(["hot dog", "dog"]).mentions("dogs eat hot dogs")
        [('dog', 'dogs'), ('hot dog', None), ('dog', 'dogs')]
        """
        words = self._split(caption)
        found: list[tuple[str, str | None]] = []
        after = 0  # where the latest phrase ends
        for position, word in enumerate(words):
            if position < after:
                continue
            if word in self._longest:
                phrase, length = self._longest_phrase(words, position)
                if phrase is not None:
                    found.append((phrase, None))
                    after = position + length
                    # of "baseball bat" the head "bat" counts too, "baseball" does not
                    head = self._find(words[after - 1])
                    if head is not None:
                        found.append((head, words[after - 1]))
                    continue
            tag = self._find(word)
            if tag is not None:
                found.append((tag, word))
        return found

    def _split(self, caption: str) -> list[str]:
        """Words; one with hyphens that is no tag falls into its parts."""
        words = split_words(caption)
        if "-" not in caption:
            return words
        whole: list[str] = []
        for word in words:
            known = "-" not in word or word in self._longest or self._find(word)
            whole.extend([word] if known else word.split("-"))
        return whole

    def _longest_phrase(self, words: Sequence[str], position: int) -> tuple[str | None, int]:
        longest = min(self._longest[words[position]], len(words) - position)
        for length in range(longest, 1, -1):
            start = " ".join(words[position : position + length - 1])
            for form in word_forms(words[position + length - 1]):
                tag = self._by_phrase.get(f"{start} {form}")
                if tag is not None:
                    return tag, length
        return None, 1

    def _find(self, word: str) -> str | None:
        """The tag a single word names."""
        for form in word_forms(word):
            tag = self._by_phrase.get(form)
            if tag is not None:
                return tag
        return None


def checked_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """The list of tags, if it is one.

    Raises:
        ValueError: the list is empty, or a tag occurs twice.
    """
    if not tags:
        raise InputError("the tag list is empty; it needs at least one tag")
    repeated = [tag for tag, count in Counter(map(str.lower, tags)).items() if count > 1]
    if repeated:
        raise InputError(f"the tag list names {repeated[:5]} more than once")
    return tuple(tags)
