"""`python -m lavis.evaluate`: LAVIS 1.0.2 does not ship it."""

import sys

from lavis_dynrefer.training.launch import evaluate_main

if __name__ == "__main__":
    sys.exit(evaluate_main())
