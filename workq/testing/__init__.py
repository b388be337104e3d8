"""Deterministic stand-ins for time and processes, for tests of workq and of what is built on it.

Nothing here starts a process or a thread, or waits.
"""

from workq.testing.clock import ManualClock
from workq.testing.memory import MemoryEngine, MemoryQueue, MemoryUnit, Script
from workq.testing.simulation import Faults, Simulation, SimulationError, simulate

__all__ = ["Faults", "ManualClock", "MemoryEngine", "MemoryQueue", "MemoryUnit", "Script", "Simulation", "SimulationError", "simulate"]
