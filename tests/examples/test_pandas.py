"""The pandas example, as a user runs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import ROOT

pytestmark = pytest.mark.slow


def test_each_group_is_computed_and_the_broken_one_is_named() -> None:
    pytest.importorskip("pandas")
    ended = subprocess.run([sys.executable, "examples/pandas_groups.py"], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr
    *table, failed = ended.stdout.splitlines()
    assert table[0].split() == ["slope", "start", "spread"]
    assert len(table) == 4
    assert failed == "sensor 13: ValueError: this one is broken"
