"""`python -m lavis_dynrefer.train`: as `python -m lavis.train`, but needs no import hook."""

import sys

from lavis_dynrefer.training.launch import train_main

if __name__ == "__main__":
    sys.exit(train_main())
