"""Datasets of regions: readers of raw public files, and the LAVIS builders around them."""
