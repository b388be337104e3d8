"""Recurring units with real workers and the real clock."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import workq
from tests.support import DEADLINE_S, wait_until

pytestmark = pytest.mark.slow


def fail(path: str) -> None:
    with open(path, "a") as file:
        file.write("x")
    raise LookupError("as ever")


def recur_here() -> None:
    with workq.WorkMgr(1) as inner:
        inner.every(1.0, abs, -1)


def test_in_a_unit_nothing_recurs() -> None:
    with workq.Controller() as controller, workq.WorkMgr(1, controller=controller) as wq:
        with pytest.raises(workq.WorkqError, match="not in a unit"):
            wq.queue(recur_here).result(DEADLINE_S)


def test_a_run_that_rests_before_its_next_attempt_has_not_ended(tmp_path: Path) -> None:
    with workq.Controller() as controller, workq.WorkMgr(1, controller=controller) as wq:
        beat = wq.options(retries=workq.Retry(1, delay=3600)).every(0.02, fail, str(tmp_path / "runs"))
        wait_until(lambda: beat.skipped >= 2)
        assert beat.runs == 1
        assert beat.last is not None
        wait_until(lambda: beat.last.state.value == "resting")
        beat.last.cancel()
        wait_until(lambda: beat.runs == 2)
        beat.stop()
        wq.close()


def test_a_failing_recurring_unit_is_logged_and_kept_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "runs"
    with workq.Controller() as controller, workq.WorkMgr(1, controller=controller) as wq:
        beat = wq.every(0.02, fail, str(path))
        wait_until(lambda: len(beat.outcomes) >= 3)
        beat.stop()
        wq.sync(DEADLINE_S)
        assert beat.outcomes[0].state == "failed"
        assert beat.outcomes[0].error == "LookupError: as ever"
        wait_until(lambda: beat.failures == beat.runs == len(path.read_text()))
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == beat.failures
    assert errors[0].getMessage().endswith("failed: LookupError: as ever")


def test_it_ends_with_its_queue_and_leaves_nothing_behind() -> None:
    with workq.Controller() as controller:
        wq = workq.WorkMgr(1, controller=controller)
        beat = wq.every(0.01, abs, -1)
        wait_until(lambda: beat.runs > 1)
        wq.close()
        assert not beat.active
        runs = beat.runs
        with workq.WorkMgr(1, controller=controller) as other:
            other.queue(abs, -1).result()
        assert beat.runs == runs
