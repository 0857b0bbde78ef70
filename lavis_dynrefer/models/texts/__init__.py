"""Texts in numbers: tokenizers, the text tower, and embeddings that are kept."""
