"""Nested views: which scales, which crops."""
