"""Tools to build the embedded model and benchmark the package."""
