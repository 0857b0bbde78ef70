"""Registered names, of which ours and a few of LAVIS's are known without importing LAVIS.

Importing LAVIS takes seconds, and most names in a run file are of this package.
"""

from __future__ import annotations

from typing import Any

from lavis_dynrefer.datasets.dataset_catalog import SOURCES
from lavis_dynrefer.errors import choice_problem
from lavis_dynrefer.host.registration import MODULES

# Kind -> LAVIS's mapping of its registry, and names of LAVIS 1.0.2 itself.
_KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "model": ("model_name_mapping", ()),
    "dataset": ("builder_name_mapping", ()),
    "processor": ("processor_name_mapping", ("blip_caption",)),
    "task": ("task_name_mapping", ()),
    "runner": ("runner_name_mapping", ("runner_base",)),
    "lr_sched": (
        "lr_scheduler_name_mapping",
        ("linear_warmup_cosine_lr", "linear_warmup_step_lr"),
    ),
}


def registered(kind: str, name: str) -> Any:
    """The class of that name, from LAVIS's registry; None if there is none."""
    return _mapping(kind).get(name)


def name_problem(place: str, kind: str, name: Any) -> str | None:
    """What is wrong with a name that should be registered, if anything."""
    mapping, of_lavis = _KINDS[kind]
    if isinstance(name, str) and (name in MODULES.get(mapping, ()) or name in of_lavis):
        return None
    return choice_problem(place, name, list(_mapping(kind)))


def dataset_class(name: str) -> Any:
    """What is known of a registered dataset: ours without LAVIS, else the builder."""
    return SOURCES.get(name) or registered("dataset", name)


def _mapping(kind: str) -> Any:
    import lavis  # noqa: F401  first, for threads
    import lavis.common.optims  # noqa: F401  registers the schedules
    import lavis.runners  # noqa: F401
    from lavis.common.registry import registry

    return registry.mapping[_KINDS[kind][0]]
