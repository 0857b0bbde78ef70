"""`dynrefer predict` as one of several processes."""
