"""What a new worker sets up before anybody's code runs in it, and the seeds of its random numbers."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def take(told: dict[str, Any], folder: str) -> None:
    """Take the environment, the CPUs and the folder. ``folder`` is the application's own, for who was told none."""
    set_variables(told["env"])
    if told["cpus"]:
        os.sched_setaffinity(0, told["cpus"])
    if told["cwd"] or folder:
        os.chdir(told["cwd"] or folder)


def set_variables(variables: dict[str, str | None]) -> None:
    """Set or unset variables; the clock hears of another time zone."""
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    if "TZ" in variables:
        import time

        time.tzset()


def reseed() -> None:
    """Give this process random numbers of its own: its script or what it was forked from may have seeded them, for all workers alike."""
    random = sys.modules.get("random")
    if random is not None:
        random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
