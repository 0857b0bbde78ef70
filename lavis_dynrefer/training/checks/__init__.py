"""Checks of yaml files that build no model and read no data.

`dynrefer validate` prints the findings; a launch stops at those that would stop the run anyway.
"""
