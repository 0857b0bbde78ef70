"""Views that the model chooses itself, once it has seen the region; see `views.model_priors`.

Only what is needed is encoded: the region's own view, the views of tasks that have theirs, what the
chooser looks at, and what it chose.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.region_encoder import ViewFeatures
from lavis_dynrefer.questions import TASKS
from lavis_dynrefer.views.policies import POLICIES
from lavis_dynrefer.views.samples import CHOICE, MASKS, Sample
from lavis_dynrefer.vocab.control_words import control_prompt

if TYPE_CHECKING:
    from lavis_dynrefer.models.answering import Answerer, RegionModel
    from lavis_dynrefer.models.choosing.scale_prior import ScalePrior


def choose_views(
    answerer: Answerer, sample: Mapping[str, Any], tasks: Collection[str] = TASKS
) -> tuple[Sample, ViewFeatures]:
    """Choose among the candidates of a sample.

    Args:
        answerer: of the model that chooses.
        sample: with a choice, see `ViewProcessor`.
        tasks: whose views are needed.

    Returns:
        The sample with the views in use alone, in which all these tasks have a route, and their
        features.

    Raises:
        InputError: the model cannot choose so.
    """
    ((chooser, choices),) = sample[CHOICE].items()
    choices = choices.cpu()  # (B, W, n)
    seen = SeenViews(answerer, sample)
    given = sample.get("routes") or {}
    routes = {task: given[task][0].tolist() for task in tasks if task in given}
    fixed = sorted({0, *(column for route in routes.values() for column in route)})
    columns = torch.tensor(fixed).repeat(len(choices), 1)
    if any(task not in routes for task in tasks):
        rows = torch.arange(len(choices))
        chosen = choices[rows, CHOOSERS[chooser](answerer, seen, choices)]  # (B, n)
        columns = torch.cat([columns, chosen], dim=1)
    free = [0, *range(len(fixed), columns.shape[1])]
    used = {task: [*map(fixed.index, routes[task])] if task in routes else free for task in tasks}
    kept = {**sample, **{name: seen.take(name, columns) for name in _BY_VIEW}}
    del kept[CHOICE]
    kept["routes"] = {
        task: torch.tensor(route).repeat(len(choices), 1) for task, route in used.items()
    }
    return Sample(kept), seen.features(columns)


_BY_VIEW = ("views", "boxes", "scales")


class SeenViews:
    """Views of a sample, each encoded when it is first needed.

    Args:
        answerer: encodes them.
        sample: B regions, at least one, with V views.
    """

    def __init__(self, answerer: Answerer, sample: Mapping[str, Any]) -> None:
        self._answerer = answerer
        self.sample = sample
        self._parts: list[ViewFeatures] = []
        self._places = torch.full(sample["scales"].shape, -1)  # of each view in all parts together

    def take(self, name: str, columns: Tensor) -> Tensor:
        """Of a tensor of the sample (B, V, ...) those of `columns` (B, n)."""
        tensor: Tensor = self.sample[name]
        columns = columns.to(tensor.device)
        return tensor[torch.arange(len(columns), device=tensor.device)[:, None], columns]

    def features(self, columns: Tensor) -> ViewFeatures:
        """Features of the views in `columns` (B, n)."""
        wanted = torch.zeros_like(self._places, dtype=torch.bool).scatter_(1, columns, True)
        rows, views = (wanted & (self._places < 0)).nonzero(as_tuple=True)
        if len(rows):
            known = sum(len(part.summary) for part in self._parts)
            self._places[rows, views] = known + torch.arange(len(rows))
            device = self.sample["views"].device
            here, of = rows.to(device), views.to(device)
            part = {name: self.sample[name][here, of][:, None] for name in ("views", "boxes")}
            if MASKS in self.sample:
                part[MASKS] = self.sample[MASKS][here]
            self._parts.append(self._answerer.encode(part))
        places = self._places.gather(1, columns).to(self._parts[0].summary.device)
        summary, maps = (
            torch.cat([getattr(part, name)[:, 0] for part in self._parts])[places]
            for name in ("summary", "maps")
        )
        return ViewFeatures(summary, maps)

    def queries(self, choice: Tensor) -> Tensor:
        """Queries (B, Q, D) from the region's own view and those of a choice (B, n)."""
        own = torch.zeros(len(choice), 1, dtype=torch.long)
        return self._answerer.queries(self.features(torch.cat([own, choice], dim=1)))


def _by_confidence(answerer: Answerer, seen: SeenViews, choices: Tensor) -> Tensor:
    """The choice whose caption is likeliest; (B,) indices into W."""
    model = answerer.model
    prompts = [control_prompt([])] * len(choices)
    scores = []
    for choice in choices.unbind(1):
        queries = seen.queries(choice)
        with answerer.computing("llm"):
            _, found = model.captioning.generate(queries, prompts, model.caption_config.generation)
        scores.append(torch.tensor(found))
    return torch.stack(scores, dim=1).argmax(dim=1)


def _by_prior(answerer: Answerer, seen: SeenViews, choices: Tensor) -> Tensor:
    """The choice that the trained head expects most of; (B,) indices into W."""
    prior = trained_prior(answerer.model)
    return prior(*prior_inputs(answerer, prior, seen, choices)).argmax(dim=1).cpu()


_CURE = "train one with projects/dynrefer/train_policy_tiny.yaml, or choose other views"


def trained_prior(model: RegionModel) -> ScalePrior:
    """The head that the policy "learned" needs.

    Raises:
        InputError: the model has none, or an untrained one.
    """
    prior = model.scale_prior
    if prior is None:
        raise InputError(f"views: learned: this model has no scale_prior; {_CURE}")
    if not prior.steps:
        raise InputError(f"views: learned: the scale_prior of this model is not trained; {_CURE}")
    return prior


def usable_policies(model: RegionModel) -> list[str]:
    """Names of the view policies that can be asked of a model."""
    learned = model.scale_prior is not None and bool(model.scale_prior.steps)
    return [name for name in POLICIES if name != "learned" or learned]


def prior_inputs(
    answerer: Answerer, prior: ScalePrior, seen: SeenViews, choices: Tensor
) -> tuple[ViewFeatures, Tensor, Tensor]:
    """What the head looks at, its arguments; the widest choice is the last one.

    Raises:
        InputError: other choices than those of the head.
    """
    prior.check(seen.take("scales", choices[:1].flatten(1)).view(choices.shape[1:]).cpu())
    widest = choices[:, -1]  # (B, n)
    queries = seen.queries(widest)
    boxes = seen.take("boxes", widest)[:, -1].to(queries.device) / seen.sample["views"].shape[-1]
    return seen.features(torch.zeros(len(choices), 1, dtype=torch.long)), queries, boxes


CHOOSERS: dict[str, Callable[[Answerer, SeenViews, Tensor], Tensor]] = {
    "confidence": _by_confidence,
    "learned": _by_prior,
}
