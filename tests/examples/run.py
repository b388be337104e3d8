"""How a test runs an example: as a user does, from the project's folder."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support import ROOT

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def run_example(name: str, *arguments: str) -> str:
    """Run it to its end, which has to be a good one, and return what it printed."""
    command = [sys.executable, f"examples/{name}.py", *arguments]
    ended = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
