"""Boxes and masks as pure functions; the lowest layer of the package."""
