"""Beam search over any model that scores the next token, for all sentences of a batch at once.

Finds what Hugging Face's `generate` finds with the same settings. `generate` processes the
sentences of a batch one by one, and its preparations alone take as long as a small model does.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from transformers import RepetitionPenaltyLogitsProcessor

from lavis_dynrefer.config import GenerationConfig

NEVER = -1e9  # log-probability of what must not be chosen; unlike -inf it can be summed
# Tokens between two looks at whether all rows have ended. A look makes the CPU wait for the GPU;
# the steps after the last end, at most three, change nothing but the padding.
LOOK_EVERY = 4


def beam_search(
    step: Callable[[Tensor, Tensor], Tensor], start: Tensor, options: GenerationConfig, *, end: int
) -> tuple[Tensor, Tensor]:
    """Find the best sequence of each row.

    The search of a row ends when K sequences have ended and no open one can become better.

    Args:
        step: logits (B * K, tokens) of the next token, from the newest tokens (B * K,) and, for
            each, the row of the previous step that it continues.
        start: (B,) first tokens; lengths include them.
        options: K is `num_beams`. As in Hugging Face, the penalties for repetition and for ending
            before `min_length` apply to log-probabilities, or to logits if K is 1, and sums of
            log-probabilities are divided by the length to the power of `length_penalty`.
        end: token that ends a sequence; it also fills what follows.

    Returns:
        Tokens (B, T), and log-probabilities (B,), divided by the length as above. All rows may end
        with some more of the end token than one of them needs.
    """
    batch, beams = len(start), options.num_beams
    penalise = _penalties(options, end)
    rows = torch.arange(batch, device=start.device)[:, None]
    tokens = start[:, None, None].repeat(1, beams, 1)  # (B, K, t)
    # At first all beams are equal: only one continues.
    sums = torch.full((batch, beams), NEVER, device=start.device)
    sums[:, 0] = 0
    parents = torch.zeros_like(tokens[..., 0])
    ended = tokens  # the best K that have ended; none yet
    scores = torch.full_like(sums, -torch.inf)
    done = torch.zeros_like(start, dtype=torch.bool)
    look_every = 1 if start.device.type == "cpu" else LOOK_EVERY
    for length in range(1, options.max_new_tokens + 1):
        logits = step(tokens[..., -1].flatten(), (rows * beams + parents).flatten())
        steps = penalise(tokens.flatten(0, 1), logits.float())
        totals = (sums[..., None] + rearrange(steps, "(b k) w -> b k w", b=batch)).flatten(1)
        # Twice as many as beams: however many of them end, K continue.
        best, places = totals.topk(2 * beams)
        parents, words = places // steps.shape[1], places % steps.shape[1]
        tokens = torch.cat([tokens[rows, parents], words[..., None]], dim=-1)  # (B, 2K, t + 1)
        ends, norm = words == end, length**options.length_penalty
        # An end counts only where it is among the best K.
        closing = (best / norm).masked_fill(~ends, -torch.inf)[:, :beams]
        ended, scores = _best_of(ended, scores, tokens[:, :beams], closing, done, end)
        done |= scores[:, -1] >= best[:, 0] / norm
        sums, going = best.masked_fill(ends, -torch.inf).topk(beams)
        tokens, parents = tokens[rows, going], parents.gather(1, going)
        if length % look_every == 0 and done.all():
            break
    open_scores = sums / tokens.shape[-1] ** options.length_penalty
    ended, scores = _best_of(ended, scores, tokens, open_scores, done, end)
    return ended[:, 0], scores[:, 0]


def _best_of(
    old: Tensor, old_scores: Tensor, new: Tensor, new_scores: Tensor, done: Tensor, padding: int
) -> tuple[Tensor, Tensor]:
    """The best K of the sequences (B, K, s) and (B, K, t), best first, and their scores (B, K).

    Rows that are done (B,) keep the old ones in their order, which topk would change where scores
    are equal.
    """
    old = F.pad(old, (0, new.shape[2] - old.shape[2]), value=padding)
    scores = torch.cat([old_scores, new_scores], dim=1)
    best = scores.topk(old.shape[1]).indices
    kept = torch.where(done[:, None], torch.arange(old.shape[1], device=best.device), best)
    sequences = torch.cat([old, new], dim=1)
    return sequences.take_along_dim(kept[..., None], dim=1), scores.gather(1, kept)


def _penalties(options: GenerationConfig, end: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Log-probabilities (N, tokens) after penalties, from tokens so far (N, t) and logits."""
    penalise = RepetitionPenaltyLogitsProcessor(options.repetition_penalty)

    def apply(tokens: Tensor, scores: Tensor) -> Tensor:
        if options.repetition_penalty != 1:
            scores = penalise(tokens, scores)
        if tokens.shape[1] < options.min_length:  # the start token counts
            scores[:, end] = -torch.inf
        return scores

    if options.num_beams > 1:
        return lambda tokens, logits: apply(tokens, logits.log_softmax(dim=-1))
    return lambda tokens, logits: apply(tokens, logits).log_softmax(dim=-1)
