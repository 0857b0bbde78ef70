"""Which view processor cuts out the views of a question: the model's own, or one like it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.views.policies import ViewPolicy, views_by_task
from lavis_dynrefer.views.view_processor import ViewProcessor

logger = logging.getLogger(__name__)

_UNTRAINED = (
    "masks_as=%r: this model was not trained with masks used like this, so its answers may be "
    "worse than with boxes"
)


class ProcessorChoice:
    """The processors of a model, made when they are needed; several threads may ask at once.

    Args:
        own: the model's.
        own_policy: its view policy, as `Questions` names it.
        num_views: how many views the model fuses.
        parse: makes a policy of its name.
        tasks: all tasks that there are.
    """

    def __init__(
        self,
        own: ViewProcessor,
        *,
        own_policy: str | ViewPolicy,
        num_views: int,
        parse: Callable[[str], ViewPolicy],
        tasks: Sequence[str],
    ) -> None:
        self.own = own
        self.own_policy = own_policy
        self._num_views = num_views
        self._parse = parse
        self._every_task = tuple(tasks)
        self._of_name = lru_cache(maxsize=32)(self._make)
        self._warned: set[str] = set()

    def of(
        self,
        views: str | ViewPolicy | None,
        masks_as: str | None = None,
        tasks: Sequence[str] = (),
    ) -> ViewProcessor:
        """The processor for a view policy and a use of masks.

        Args:
            views: as in `Questions`.
            masks_as: as in `Questions`.
            tasks: that the views must fit, if any are named.

        Raises:
            InputError: the policy gives another number of views than the model fuses.
        """
        if views == self.own_policy:
            views = None
        if views is None and masks_as is None:
            return self.own
        if views is None or isinstance(views, str):
            return self._of_name(views, masks_as, tuple(tasks))
        return self._make(views, masks_as, tasks)

    def _make(
        self, views: str | ViewPolicy | None, masks_as: str | None, tasks: Sequence[str]
    ) -> ViewProcessor:
        own = self.own
        if masks_as in ("cells", "dim"):
            self._warn_once(masks_as)
        policy = own.policy if views is None else views
        if isinstance(policy, str):
            policy = self._parse(policy)
        if views is not None:
            found = views_by_task(policy, tasks or self._every_task)
            wanted = self._num_views
            if wanted not in found or (tasks and len(found) > 1):
                other = max(found - {wanted})
                raise InputError(f"views: the model fuses {wanted} views, got {other} per region")
        return ViewProcessor(
            policy,
            image_size=own.image_size,
            mask_cells=own.mask_cells if masks_as is None else masks_as == "cells",
            mask_views=own.mask_views
            if masks_as is None
            else ("dim" if masks_as == "dim" else "none"),
        )

    def _warn_once(self, masks_as: str) -> None:
        own = self.own
        if masks_as == "cells":
            trained = own.mask_cells and own.mask_views == "none"
        else:
            trained = own.mask_views == masks_as
        if not trained and masks_as not in self._warned:
            self._warned.add(masks_as)
            logger.warning(_UNTRAINED, masks_as)
