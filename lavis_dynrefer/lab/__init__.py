"""What serves only the making of the embedded model and the measuring of this package."""
