"""What the package costs at full size: generated raw data, and measurements beside other ways."""
