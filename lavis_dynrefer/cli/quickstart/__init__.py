"""`dynrefer quickstart`."""
