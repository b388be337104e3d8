"""What is due at some time, one turn at a time: the clock is moved by the test, and nothing waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

import workq
from workq.config import DEFAULTS
from workq.testing import ManualClock
from workq.testing.engine import MemoryEngine, SteppedWorker


class Stage:
    """A controller whose clock stands still, its engine, and a queue."""

    def __init__(self, **settings: float) -> None:
        self.clock = ManualClock(time.monotonic())
        self.engine = MemoryEngine(self.clock.monotonic)
        self.controller = workq.Controller(
            engine=lambda bells: self.engine,
            threaded=False,
            settings=DEFAULTS._replace(idle_timeout_s=1e9, stalled_after_s=1e9, **settings),
            clock=self.clock.monotonic,
        )
        self.wq = workq.WorkMgr(1, name="stage", controller=self.controller)

    def turn(self, times: int = 3) -> None:
        for _ in range(times):
            self.controller.running().turn([])

    def after(self, seconds: float) -> None:
        """Let time pass, and the controller look."""
        self.clock.advance(seconds)
        self.turn()

    def ready(self) -> SteppedWorker:
        self.turn()
        worker = self.engine.workers[1]
        worker.get_ready()
        self.turn()
        return worker


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.controller.close()


def end(unit: workq.Unit[Any]) -> str:
    return unit.state.value


def test_a_unit_that_has_begun_in_time_may_run_for_longer_than_its_queue_timeout(stage: Stage) -> None:
    unit = stage.wq.options(queue_timeout=5.0).queue(abs, -1)
    worker = stage.ready()
    assert worker.begin()
    stage.after(1000.0)
    assert end(unit) == "running"
    worker.end()
    stage.turn()
    assert unit.result() == 1


def test_a_unit_that_waits_ends_at_its_time_and_not_before(stage: Stage) -> None:
    held = stage.wq.queue(abs, -1)
    worker = stage.ready()
    assert worker.begin()
    units = [stage.wq.options(queue_timeout=limit).queue(abs, -2) for limit in (5.0, 50.0)]
    stage.after(4.0)
    assert not any(unit.done() for unit in units)
    stage.after(2.0)
    assert [unit.done() for unit in units] == [True, False]
    stage.after(100.0)
    assert [end(unit) for unit in units] == ["timed out", "timed out"]
    worker.end()
    stage.turn()
    assert not worker.begin()
    assert held.result() == 1
    assert stage.wq.statistics().timed_out == 2
    assert stage.controller.running().queue_times._waiting == {}


def test_a_unit_that_was_sent_and_not_begun_is_taken_back() -> None:
    stage = Stage(recall_after_s=1e9, silent_after_s=1e9)  # nobody else takes it back
    try:
        stage.wq.queue(abs, -1)
        worker = stage.ready()
        assert worker.step()
        stage.turn()
        unit = stage.wq.options(queue_timeout=5.0).queue(abs, -2)
        stage.turn()
        assert end(unit) == "sent"
        stage.after(6.0)
        assert end(unit) == "timed out"
        assert not worker.begin()
        stage.turn()
        assert stage.wq.statistics().timed_out == 1
    finally:
        stage.controller.close()
