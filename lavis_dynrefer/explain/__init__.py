"""Why a region got its answers: what each view contributed, as numbers and as a page."""

from lavis_dynrefer.explain.explain_page import MAX_REGIONS, explanation_page
from lavis_dynrefer.explain.explanation import RegionExplanation, ViewExplanation, explain

__all__ = ["MAX_REGIONS", "RegionExplanation", "ViewExplanation", "explain", "explanation_page"]
