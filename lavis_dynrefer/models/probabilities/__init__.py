"""From logits to probabilities, and how like the training data a region is."""
