"""Deterministic stand-ins for time and processes, for tests of workq and of what is built on it.

Nothing here starts a process or a thread, or waits. For tests of code that makes its own queues: `inline`, `Leftovers`.
"""

from workq.testing.clock import ManualClock
from workq.testing.inline import inline
from workq.testing.leftovers import Leftovers
from workq.testing.memory import MemoryEngine
from workq.testing.records import MemoryQueue, MemoryUnit, Script
from workq.testing.simulation import Faults, Simulation, SimulationError, simulate

__all__ = [
    "Faults",
    "Leftovers",
    "ManualClock",
    "MemoryEngine",
    "MemoryQueue",
    "MemoryUnit",
    "Script",
    "Simulation",
    "SimulationError",
    "inline",
    "simulate",
]
