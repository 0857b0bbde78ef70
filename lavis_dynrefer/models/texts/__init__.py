"""Texts: tokenizers, the text tower, and a cache of embeddings."""
