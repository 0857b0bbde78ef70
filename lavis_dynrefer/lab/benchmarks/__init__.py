"""Benchmarks of data, answers and view policies."""
