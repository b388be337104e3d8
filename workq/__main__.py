"""``python -m workq``: see ``workq.cli``."""

from __future__ import annotations

import sys

from workq.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
