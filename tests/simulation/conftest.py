"""The options of the simulation: more schedules, or one that is repeated."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("simulation")
    group.addoption("--schedules", type=int, default=10_000, help="how many schedules the simulation runs (10000)")
    group.addoption("--seed", type=int, default=None, help="repeat the one schedule of this seed")
