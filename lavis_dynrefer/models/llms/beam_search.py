"""Beam search over any model that scores the next token, all sentences of a batch at once.

Finds what `generate` of Hugging Face finds with the same settings. That one goes through the
sentences of a batch one by one, and around a small model its preparations alone take as long as
the model.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)

from lavis_dynrefer.config import GenerationConfig

NEVER = -1e9  # log-probability of what must not be chosen; unlike -inf it can be added up


def beam_search(
    step: Callable[[Tensor, Tensor], Tensor], start: Tensor, options: GenerationConfig, *, end: int
) -> tuple[Tensor, Tensor]:
    """Find the best sequence of each row.

    The search of a row is over when K sequences have ended and no other can become better.

    Args:
        step: logits (B * K, tokens) of what may come next, from the newest tokens (B * K,) and, for
            each, which row of the step before it continues.
        start: (B,) first tokens; lengths count them.
        options: K is `num_beams`. The penalties are those of Hugging Face: of repetition and of too
            early an end on log-probabilities, or on logits where K is 1; and sums of
            log-probabilities are divided by the length to the power of `length_penalty`.
        end: token that ends a sequence; what follows it is filled with it.

    Returns:
        Tokens (B, T), and log-probabilities (B,), divided as said.
    """
    batch, beams = len(start), options.num_beams
    penalise = _penalties(options, end)
    rows = torch.arange(batch, device=start.device)[:, None]
    tokens = start[:, None, None].repeat(1, beams, 1)  # (B, K, t)
    # Only one of the equal beams goes on at first.
    sums = torch.full((batch, beams), NEVER, device=start.device)
    sums[:, 0] = 0
    parents = torch.zeros_like(tokens[..., 0])
    ended = tokens  # the best K that have ended, none yet
    scores = torch.full_like(sums, -torch.inf)
    done = torch.zeros_like(start, dtype=torch.bool)
    for length in range(1, options.max_new_tokens + 1):
        logits = step(tokens[..., -1].flatten(), (rows * beams + parents).flatten())
        steps = penalise(tokens.flatten(0, 1), logits.float())
        totals = (sums[..., None] + rearrange(steps, "(b k) w -> b k w", b=batch)).flatten(1)
        # Twice as many as beams: however many of them end, K go on.
        best, places = totals.topk(2 * beams)
        parents, words = places // steps.shape[1], places % steps.shape[1]
        tokens = torch.cat([tokens[rows, parents], words[..., None]], dim=-1)  # (B, 2K, t + 1)
        ends, norm = words == end, length**options.length_penalty
        # An end counts only where it is among the best K.
        closing = (best / norm).masked_fill(~ends | done[:, None], -torch.inf)[:, :beams]
        ended, scores = _best_of(ended, scores, tokens[:, :beams], closing, end)
        done |= scores[:, -1] >= best[:, 0] / norm
        sums, going = best.masked_fill(ends, -torch.inf).topk(beams)
        tokens, parents = tokens[rows, going], parents.gather(1, going)
        if done.all():
            break
    length = tokens.shape[-1]
    open_scores = (sums / length**options.length_penalty).masked_fill(done[:, None], -torch.inf)
    ended, scores = _best_of(ended, scores, tokens, open_scores, end)
    return ended[:, 0], scores[:, 0]


def _best_of(
    old: Tensor, old_scores: Tensor, new: Tensor, new_scores: Tensor, padding: int
) -> tuple[Tensor, Tensor]:
    """The best K of the sequences (B, K, s) and (B, K, t), best first, and their scores (B, K)."""
    old = F.pad(old, (0, new.shape[2] - old.shape[2]), value=padding)
    scores, kept = torch.cat([old_scores, new_scores], dim=1).topk(old.shape[1])
    sequences = torch.cat([old, new], dim=1)
    return sequences.take_along_dim(kept[..., None], dim=1), scores


def _penalties(options: GenerationConfig, end: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Log-probabilities (N, tokens) after penalties, from tokens so far (N, t) and logits."""
    processors = LogitsProcessorList()
    if options.repetition_penalty != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(options.repetition_penalty))
    if options.min_length > 1:  # the start token counts
        processors.append(MinLengthLogitsProcessor(options.min_length, end))
    if options.num_beams > 1:
        return lambda tokens, logits: processors(tokens, logits.log_softmax(dim=-1))
    return lambda tokens, logits: processors(tokens, logits).log_softmax(dim=-1)
