"""Calls that LAVIS's models have, under LAVIS's names: `generate`, `extract_features`."""
