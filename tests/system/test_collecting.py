"""What a queue keeps of units that have ended, and for how long."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

import workq
from workq.config import DEFAULTS


@pytest.fixture
def controller() -> Iterator[workq.Controller]:
    with workq.Controller(settings=DEFAULTS._replace(uncollected_units=2000)) as controller:
        yield controller


def test_units_that_were_asked_are_let_go(controller: workq.Controller) -> None:
    with workq.WorkMgr(1, controller=controller) as wq:
        for number in range(3000):
            assert wq.queue(abs, -number).result() == number
        assert wq.statistics().uncollected < 2000
        assert wq.wait_one() is None


def test_units_that_nobody_asked_are_kept_up_to_a_bound_and_failures_longest(
    controller: workq.Controller, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "workq"), workq.WorkMgr(1, name="kept", controller=controller) as wq:
        failed = wq.queue(int, "no number")
        units = [wq.queue(abs, -number) for number in range(5000)]
        units[-1].result()
        assert wq.statistics().uncollected <= 2001
        assert "queue kept keeps 2000 ended units that nobody has collected" in caplog.text
        with pytest.raises(workq.WorkErrors) as caught:
            wq.sync()
    assert caught.value.exceptions == (failed.exception(),)


def test_sync_collects_what_has_ended(controller: workq.Controller) -> None:
    with workq.WorkMgr(1, controller=controller) as wq:
        for number in range(100):
            wq.queue(abs, number)
        assert wq.sync().uncollected == 0
        assert wq.wait_one() is None
