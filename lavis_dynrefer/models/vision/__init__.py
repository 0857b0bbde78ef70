"""The vision transformer, and what it made of views, kept on disk."""
