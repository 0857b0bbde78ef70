"""Files of weights: checkpoints, and the published files of the frozen parts."""
