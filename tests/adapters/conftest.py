"""Real processes: no test of this folder may leave anything behind."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_leaks(no_leaks: None) -> None:
    """Each test of this folder."""
