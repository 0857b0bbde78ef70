"""The three decoders that read a region's queries."""
