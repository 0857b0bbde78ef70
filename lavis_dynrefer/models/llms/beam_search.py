"""Beam search over any model that scores the next token, for all sentences of a batch at once.

Finds what Hugging Face's `generate` finds with the same settings. `generate` processes the
sentences of a batch one by one, and its preparations alone take as long as a small model does.
All tensors keep their shape and place from the first token to the last, so that a step can be
recorded once and played again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lavis_dynrefer.config import CaptionSearch, GenerationConfig

NEVER = -1e9  # log-probability of what must not be chosen; unlike -inf it can be summed
# Scores of a row above which the best are first sought in blocks: sorting is slow, maxima are not.
_SEARCHED_AT_ONCE = 4096
_BLOCK = 128


class BeamSearch:
    """The search for the best sequences of B rows, with K beams each.

    A row ends when K sequences have ended and no open one can become better.

    Args:
        rows: B.
        options: K is `num_beams`. As in Hugging Face, the penalties for repetition and for ending
            before `min_length` apply to log-probabilities, or to logits if K is 1, and sums of
            log-probabilities are divided by the length to the power of `length_penalty`, by its
            `length_rule`. A `CaptionSearch` may ask for several of the K sequences.
        end: token that ends a sequence; it also fills what follows.
        device: of all tensors.
        penalise_start: whether the start token counts as a repetition; its length always counts.

    Attributes:
        newest: (B * K,) last token of each beam.
        parents: (B, K) beam of the previous step that each beam continues.
        done: (B,) rows whose search has ended; further steps do not change them.
    """

    def __init__(
        self,
        rows: int,
        options: GenerationConfig,
        *,
        end: int,
        device: torch.device,
        penalise_start: bool = True,
    ) -> None:
        self.options, self.end = options, end
        self._first_penalised = 0 if penalise_start else 1
        self._newer_rule = options.length_rule == "transformers-4.50"
        beams, length = options.num_beams, options.max_new_tokens + 1
        shape = (rows, beams)
        self.newest = torch.empty(rows * beams, dtype=torch.long, device=device)
        self.parents = torch.empty(shape, dtype=torch.long, device=device)
        self.done = torch.empty(rows, dtype=torch.bool, device=device)
        self._tokens = torch.empty((*shape, length), dtype=torch.long, device=device)
        self._sums = torch.empty(shape, device=device)
        self._ended = torch.empty_like(self._tokens)  # the best K sequences that have ended
        self._scores = torch.empty_like(self._sums)
        self._among_best = torch.empty(shape, dtype=torch.bool, device=device)  # of the newest
        self._length = torch.empty((), dtype=torch.long, device=device)  # tokens of open beams
        self._columns = torch.arange(length, device=device)
        self._slots = self._columns[:beams] if beams <= length else torch.arange(beams).to(device)
        self._norms = (self._columns.double() ** options.length_penalty).float()
        self._scratch: Tensor | None = None
        self._factors = torch.full((2,), options.repetition_penalty, device=device)
        self._factors[: self._first_penalised] = 1

    def begin(self, start: Tensor) -> None:
        """Start anew.

        Args:
            start: first tokens of the first rows; further rows are not searched.
        """
        used = len(start)
        self._tokens.fill_(self.end)
        self._tokens[:used, :, 0] = start[:, None]
        self._ended.copy_(self._tokens)
        self.newest.copy_(self._tokens[..., 0].flatten())
        self.parents.zero_()
        self.done.zero_()
        self.done[used:] = True
        # At first all beams are equal: only one continues.
        self._sums.fill_(NEVER)
        self._sums[:, 0] = 0
        self._scores.fill_(-torch.inf)
        self._length.fill_(1)

    def advance(self, logits: Tensor) -> None:
        """Continue each row by one token.

        Args:
            logits: (B * K, tokens) of the token after `newest`.
        """
        (rows, beams), width = self.parents.shape, logits.shape[1]
        totals = self._log_probabilities(logits).view(rows, beams, width)
        totals = totals.add_(self._sums[..., None]).view(rows, beams * width)
        # Twice as many as beams: however many of them end, K continue.
        best, places = _largest(totals, 2 * beams)
        parents, words = places // width, places % width
        tokens = self._tokens.gather(1, self._whole(parents))  # (B, 2K, T)
        tokens = torch.where(self._columns == self._length, words[..., None], tokens)
        ends, scored = words == self.end, self._by_length(best)
        # An end counts only where it is among the best K.
        closing = torch.where(ends, scored, -torch.inf)[:, :beams]
        self._close(tokens[:, :beams], closing)
        going = best.masked_fill(ends, -torch.inf).topk(beams)
        # The older rule also expects something of a sequence that has just ended.
        hoped = self._by_length(going.values[:, 0]) if self._newer_rule else scored[:, 0]
        self.done |= self._scores[:, -1] >= hoped
        torch.lt(going.indices, beams, out=self._among_best)
        self._sums.copy_(going.values)
        torch.gather(tokens, 1, self._whole(going.indices), out=self._tokens)
        torch.gather(parents, 1, going.indices, out=self.parents)
        torch.gather(words, 1, going.indices, out=self.newest.view(rows, beams))
        self._length += 1

    def best(self, tokens: int) -> tuple[Tensor, Tensor]:
        """The best sequence of each row after `tokens` steps.

        Returns:
            Tokens (B, tokens + 1), and log-probabilities (B,), divided by the length to the power
            of `length_penalty`. All rows may end with some more of the end token than one of them
            needs. Of several sequences those of a row follow each other, best first.
        """
        length = tokens if self._newer_rule else tokens + 1
        open_scores = self._sums / length**self.options.length_penalty
        if self._newer_rule:
            open_scores = open_scores.masked_fill(~self._among_best, -torch.inf)
        self._close(self._tokens, open_scores)
        count = self.options.kept_beams
        found = self._ended[:, :count, : tokens + 1].flatten(0, 1)
        return found.clone(), self._scores[:, :count].flatten()

    def _whole(self, rows: Tensor) -> Tensor:
        """Index of whole sequences."""
        return rows[..., None].expand(-1, -1, len(self._columns))

    def _by_length(self, sums: Tensor) -> Tensor:
        if self.options.length_penalty == 0:
            return sums
        return sums / self._norms.take(self._length)

    def _close(self, new: Tensor, new_scores: Tensor) -> None:
        """Keep the best K of the sequences that have ended and of new ones (B, K, T), best first.

        Rows that are done keep the old ones in their order, which topk would change where scores
        are equal.
        """
        beams = new_scores.shape[1]
        scores = torch.cat([self._scores, new_scores], dim=1)
        kept = torch.where(self.done[:, None], self._slots, scores.topk(beams).indices)
        sequences = torch.cat([self._ended, new], dim=1)
        torch.gather(sequences, 1, self._whole(kept), out=self._ended)
        torch.gather(scores, 1, kept, out=self._scores)

    def _log_probabilities(self, logits: Tensor) -> Tensor:
        """(B * K, tokens) after penalties; a tensor that may be changed."""
        if self._scratch is None or self._scratch.shape != logits.shape:
            # Kept from step to step: it may have millions of numbers.
            self._scratch = torch.empty_like(logits, dtype=torch.float32)
        if self.options.num_beams == 1:
            return self._penalise(self._scratch.copy_(logits)).log_softmax(dim=-1)
        torch.log_softmax(logits.float(), dim=-1, out=self._scratch)
        return self._penalise(self._scratch)

    def _penalise(self, scores: Tensor) -> Tensor:
        """Change scores (B * K, tokens) in place."""
        if self.options.repetition_penalty != 1:
            known = self._columns >= self._first_penalised
            known &= self._columns < self._length
            tokens = torch.where(known, self._tokens.flatten(0, 1), self.newest[:, None])
            factor = self._factors.take((self._length - 1).clamp(max=1))
            said = scores.gather(1, tokens)
            said = torch.where(said < 0, said * factor, said / factor)
            scores.scatter_(1, tokens, said)
        if self.options.min_length > 1:  # the start token counts
            early = self._length < self.options.min_length
            scores[:, self.end].masked_fill_(early, -torch.inf)
        return scores


class Sampling(BeamSearch):
    """Samples one sequence for each row, from torch's default generator.

    It is a search with one beam, for which each step leaves only the token that was sampled.

    Args:
        rows: see `BeamSearch`.
        options: with one beam. Penalties come first, then `temperature` and `top_p`, as in Hugging
            Face.
        further: see `BeamSearch`.
    """

    options: CaptionSearch

    def __init__(self, rows: int, options: CaptionSearch, **further: Any) -> None:
        super().__init__(rows, options, **further)
        self._sampled = torch.empty(rows, device=self.done.device)  # sums of log-probabilities

    def begin(self, start: Tensor) -> None:
        """See `BeamSearch`."""
        super().begin(start)
        self._sampled.zero_()

    def best(self, tokens: int) -> tuple[Tensor, Tensor]:
        """The sequences sampled, and their log-probabilities; see `BeamSearch`."""
        return super().best(tokens)[0], self._sampled.clone()

    def _log_probabilities(self, logits: Tensor) -> Tensor:
        scores = super()._log_probabilities(logits)
        scores = (scores / self.options.temperature).log_softmax(dim=-1)
        ascending, order = scores.sort(dim=-1)
        tail = ascending.exp().cumsum(dim=-1) <= 1 - (self.options.top_p or 0)
        tail[:, -1] = False  # the likeliest token always stays
        scores = scores.masked_fill(tail.scatter(1, order, tail), -torch.inf).log_softmax(dim=-1)
        chosen = torch.multinomial(scores.exp(), 1)
        self._sampled += scores.gather(1, chosen)[:, 0].masked_fill(self.done, 0)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0)


def sentence_search(rows: int, options: GenerationConfig, **further: Any) -> BeamSearch:
    """The search that the options ask for; arguments as for `BeamSearch`."""
    return (Sampling if options.samples else BeamSearch)(rows, options, **further)


def _largest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest scores (B, count) of each row, largest first, and their places."""
    rows, width = scores.shape
    blocks = width // _BLOCK
    if width < _SEARCHED_AT_ONCE or width % _BLOCK or blocks < count:
        return scores.topk(count)
    scores = scores.view(rows, blocks, _BLOCK)
    # The largest are in the blocks with the largest maxima.
    chosen = scores.amax(dim=2).topk(count).indices  # (B, count)
    inside = scores.gather(1, chosen[..., None].expand(-1, -1, _BLOCK)).flatten(1)
    best, places = inside.topk(count)
    return best, chosen.gather(1, places // _BLOCK) * _BLOCK + places % _BLOCK


class Endings:
    """Tells when all rows of a search have ended.

    On a GPU it tells it one step later: the CPU reads what the GPU wrote before the step that it is
    working on, so that the GPU always has work while it is read.

    Args:
        done: (B,) of the search.
    """

    def __init__(self, done: Tensor) -> None:
        self._done, self._calls = done, 0
        self._cuda = done.device.type == "cuda"
        if self._cuda:  # for this step and for the one before
            self._flags = torch.zeros(2, dtype=torch.bool).pin_memory()
            self._written = (torch.cuda.Event(), torch.cuda.Event())

    def all(self) -> bool:
        """Called after each step."""
        if not self._cuda:
            return bool(self._done.all())
        now, before = self._calls % 2, (self._calls + 1) % 2
        self._calls += 1
        self._flags[now].copy_(self._done.all(), non_blocking=True)
        # Without a stream torch would take one of the current device, which may be another.
        self._written[now].record(torch.cuda.current_stream(self._done.device))
        if self._calls == 1:
            return False
        self._written[before].synchronize()
        return bool(self._flags[before])


def beam_search(
    step: Callable[[Tensor, Tensor], Tensor],
    start: Tensor,
    options: GenerationConfig,
    *,
    end: int,
    penalise_start: bool = True,
) -> tuple[Tensor, Tensor]:
    """Find the best sequence of each row.

    Args:
        step: logits (B * K, tokens) of the next token, from the newest tokens (B * K,) and the
            beams (B, K) of the previous step that these continue.
        start: (B,) first tokens; lengths include them.
        options: see `BeamSearch`.
        end: see `BeamSearch`.
        penalise_start: see `BeamSearch`.

    Returns:
        See `BeamSearch.best`.
    """
    search = sentence_search(
        len(start), options, end=end, device=start.device, penalise_start=penalise_start
    )
    search.begin(start)
    return run(lambda: search.advance(step(search.newest, search.parents)), search)


def run(advance: Callable[[], None], search: BeamSearch) -> tuple[Tensor, Tensor]:
    """Advance a search until all rows have ended; see `BeamSearch.best`."""
    endings, steps = Endings(search.done), 0
    while steps < search.options.max_new_tokens:
        advance()
        steps += 1
        if endings.all():
            break
    return search.best(steps)
