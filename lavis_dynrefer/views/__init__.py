"""Nested views: which scales, which crops."""

from lavis_dynrefer.views.policies import POLICIES, ViewPlan, ViewPolicy

__all__ = ["POLICIES", "ViewPlan", "ViewPolicy"]
