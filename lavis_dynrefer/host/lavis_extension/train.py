"""`python -m lavis.train`: LAVIS 1.0.2 does not ship it."""

import sys

from lavis_dynrefer.training.launch import train_main

if __name__ == "__main__":
    sys.exit(train_main())
