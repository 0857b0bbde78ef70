"""The view processor, registered with LAVIS."""

from __future__ import annotations

import lavis  # noqa: F401  first, for threads
from lavis.common.registry import registry
from lavis.processors.base_processor import BaseProcessor

from lavis_dynrefer.views.view_processor import DEFAULT_POLICIES, ViewProcessor


@registry.register_processor("dynrefer_train")
class TrainProcessor(ViewProcessor, BaseProcessor):
    """Random scales, for training."""

    default_policy = DEFAULT_POLICIES["dynrefer_train"]


@registry.register_processor("dynrefer_eval")
class EvalProcessor(ViewProcessor, BaseProcessor):
    """Scales chosen by a prior, for evaluation and inference."""
