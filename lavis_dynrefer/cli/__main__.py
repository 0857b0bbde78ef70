"""`python -m lavis_dynrefer.cli`."""

from __future__ import annotations

import sys

from lavis_dynrefer.cli import main

sys.exit(main())
