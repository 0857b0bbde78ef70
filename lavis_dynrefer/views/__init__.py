"""Nested views: which scales, which crops."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lavis_dynrefer.lazy_names import lazy_names

if TYPE_CHECKING:
    from lavis_dynrefer.views.policies import POLICIES, ViewPlan, ViewPolicy

__all__ = ["POLICIES", "ViewPlan", "ViewPolicy"]

__getattr__ = lazy_names(
    __name__,
    {
        "policies": (
            "POLICIES",
            "ViewPlan",
            "ViewPolicy",
        ),
    },
)
