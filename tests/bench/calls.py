"""What the workers run. It imports next to nothing: each import here would be paid for in every start that is measured."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from time import monotonic

TYPE_CHECKING = False  # typing itself takes 5 ms to import
if TYPE_CHECKING:
    from typing import Any

interrupted_at: float | None = None  # in a worker: when `run_until_interrupted` was ended there


def noop() -> None:
    """Do nothing."""


def same(value: Any) -> Any:
    """Give back what came."""
    return value


def length(value: Any) -> int:
    """Look at what came, and give back next to nothing."""
    return len(value)


def now() -> float:
    """Say when it runs. The clock is the same in all processes."""
    return monotonic()


def processor() -> int:
    """Say on which processor it runs."""
    with open("/proc/self/stat") as file:
        return int(file.read().rpartition(")")[2].split()[36])


def spin(loops: int) -> None:
    """Keep one core busy for a fixed amount of work."""
    for _ in range(loops):
        pass


def hold(seconds: float) -> float:
    """Say when it began, after having kept its worker for a while."""
    began = monotonic()
    select.select([], [], [], seconds)
    return began


def run_until_released(folder: str) -> None:
    """Keep a worker and a core busy until a file ``released`` appears; tell by a file named after its process that it runs."""
    mark(folder, f"running-{os.getpid()}")
    while not os.path.exists(os.path.join(folder, "released")):
        spin(10_000)


def run_until_interrupted(folder: str) -> None:
    """Keep a worker busy until something is raised in it, and remember when that was."""
    global interrupted_at
    interrupted_at = None
    mark(folder, f"running-{os.getpid()}")
    try:
        while True:
            spin(10_000)
    finally:
        interrupted_at = monotonic()


def after_the_interrupt() -> tuple[float | None, float]:
    """Return when the unit before it in this worker was interrupted (None: it was not, or not in this process), and the time now."""
    return interrupted_at, monotonic()


def mark(folder: str, name: str) -> None:
    """Make an empty file."""
    with open(os.path.join(folder, name), "w"):
        pass


Call = Callable[..., object]
