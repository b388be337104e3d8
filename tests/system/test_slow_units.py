"""A unit that runs far beyond the usual time of its function is told of, once."""

from __future__ import annotations

from pathlib import Path

import pytest

import workq
from tests.support import DEADLINE_S, wait_until
from tests.system.held import Held
from workq.config import DEFAULTS

pytestmark = pytest.mark.slow

QUICK = DEFAULTS._replace(heartbeat_s=0.02, slow_after_s=0.1)


def hold_or_not(fifo: str | None) -> None:
    """Return at once, or wait until the other end of a fifo is closed."""
    if fifo is not None:
        with open(fifo, "rb") as file:
            file.read()


def test_a_slow_unit_is_told_of_once_and_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with workq.Controller(settings=QUICK) as controller, workq.WorkMgr(2, controller=controller, name="night") as wq:
        for _ in range(QUICK.slow_after_units):
            wq.queue(hold_or_not, None)
        wq.sync(DEADLINE_S)
        with caplog.at_level("WARNING", "workq"), Held(wq, tmp_path, hold_or_not) as held:
            wait_until(lambda: any(row.slow for row in wq.workers()))
            (row,) = [row for row in wq.workers() if row.unit is not None]
            assert row.slow
            assert " s, slow" in repr(wq.workers()) or "ms, slow" in repr(wq.workers())
            beats = controller.metrics().controller_s
            wait_until(lambda: controller.metrics().controller_s > beats + 0.002, what="it has been looked at again and again")
        held.unit.result(DEADLINE_S)
        (record,) = [record for record in caplog.records if "has run for" in record.message]
        assert record.levelname == "WARNING"
        assert f"unit night:{held.unit.id} hold_or_not has run for" in record.message
        assert f"(pid {row.pid}), where 99 of 100 units of hold_or_not took no more than" in record.message
        assert not any(row.slow for row in wq.workers())


def test_a_function_that_is_seen_for_the_first_time_is_never_slow(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with workq.Controller(settings=QUICK) as controller, workq.WorkMgr(1, controller=controller) as wq:
        for _ in range(QUICK.slow_after_units - 1):
            wq.queue(hold_or_not, None)
        wq.sync(DEADLINE_S)
        with caplog.at_level("WARNING", "workq"), Held(wq, tmp_path, hold_or_not):
            wait_until(lambda: wq.workers()[0].since_s > 0.3)
        assert "has run for" not in caplog.text


def test_the_usual_time_of_a_function_is_remembered_from_queue_to_queue(tmp_path: Path) -> None:
    with workq.Controller(settings=QUICK) as controller:
        for _ in range(QUICK.slow_after_units):
            with workq.WorkMgr(1, controller=controller) as wq:
                wq.queue(hold_or_not, None).result(DEADLINE_S)
        with workq.WorkMgr(1, controller=controller) as wq, Held(wq, tmp_path, hold_or_not):
            wait_until(lambda: any(row.slow for row in wq.workers()))
