"""Networks that find regions: SAM under a point, and region proposals."""
