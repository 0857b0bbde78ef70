"""Fits the probabilities of a model on a validation split, and what is familiar on its training."""
