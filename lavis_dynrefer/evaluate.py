"""`python -m lavis_dynrefer.evaluate`: as `python -m lavis.evaluate`, but needs no import hook."""

import sys

from lavis_dynrefer.training.launch import evaluate_main

if __name__ == "__main__":
    sys.exit(evaluate_main())
