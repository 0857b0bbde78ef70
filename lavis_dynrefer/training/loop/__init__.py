"""One epoch of training, and how it ends early: by a signal, or by a loss that is not finite."""
