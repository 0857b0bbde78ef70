"""`dynrefer predict`."""
