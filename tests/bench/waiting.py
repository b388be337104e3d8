"""How a measurement waits for what its units do."""

from __future__ import annotations

import os
import select
from time import monotonic

DEADLINE_S = 10.0


def wait_for_running(folder: str, count: int) -> list[int]:
    """Wait until so many units have said that they run; return the process numbers of their workers."""
    deadline = monotonic() + DEADLINE_S
    while True:
        running = [int(name.partition("-")[2]) for name in os.listdir(folder) if name.startswith("running-")]
        if len(running) >= count:
            return running
        if monotonic() > deadline:
            raise TimeoutError(f"{len(running)} of {count} units began within {DEADLINE_S:g} s")
        select.select([], [], [], 0.002)
