"""What a report of a problem needs: versions, devices, LAVIS, Java, weights, settings."""
