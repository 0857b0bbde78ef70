"""`dynrefer inspect`."""
