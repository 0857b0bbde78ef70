"""Why a region got its answers: what each view contributed, as numbers and as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lavis_dynrefer.lazy_names import lazy_names

if TYPE_CHECKING:
    from lavis_dynrefer.explain.explain_page import MAX_REGIONS, explanation_page
    from lavis_dynrefer.explain.explanation import RegionExplanation, ViewExplanation, explain

__all__ = ["MAX_REGIONS", "RegionExplanation", "ViewExplanation", "explain", "explanation_page"]

__getattr__ = lazy_names(
    __name__,
    {
        "explain_page": (
            "MAX_REGIONS",
            "explanation_page",
        ),
        "explanation": (
            "RegionExplanation",
            "ViewExplanation",
            "explain",
        ),
    },
)
