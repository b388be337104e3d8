"""Units that wait for each other's workers, under hard limits: one is told, or a warning names them. Never silence."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import workq
from tests.support import DEADLINE_S, wait_until
from tests.system.held import Held, hold
from workq.config import DEFAULTS

pytestmark = pytest.mark.slow


@pytest.fixture
def controller() -> Iterator[workq.Controller]:
    with workq.Controller(settings=DEFAULTS._replace(heartbeat_s=0.05)) as made:
        for name in ("left", "right"):
            made.categories.create(name, max_total_workers=1)
        yield made


def ask(category: str) -> int:
    with workq.WorkMgr(1, category=category, name=f"inner of {category}") as wq:
        return wq.queue(abs, -7).result()


def hold_then_ask_right(fifo: str) -> int:
    hold(fifo)
    return ask("right")


def hold_then_ask_left(fifo: str) -> int:
    hold(fifo)
    return ask("left")


def test_of_two_units_that_wait_for_each_others_workers_one_is_told_and_the_other_ends(
    controller: workq.Controller, tmp_path: Path
) -> None:
    left, right = (workq.WorkMgr(1, category=name, name=name, controller=controller) for name in ("left", "right"))
    with Held(left, tmp_path, hold_then_ask_right) as first, Held(right, tmp_path, hold_then_ask_left) as second:
        pass
    errors = [error for unit in (first.unit, second.unit) if (error := unit.exception(DEADLINE_S)) is not None]
    assert [type(error) for error in errors] == [workq.WaitError]
    text = str(errors[0])
    assert text.startswith("all workers of category 'left', 'right' (max_total_workers) wait for units that need one of these workers: ")
    assert "unit left:1 hold_then_ask_right in " in text
    assert text.endswith(": this can never end")
    assert [unit.result() for unit in (first.unit, second.unit) if unit.exception() is None] == [7]
    assert ask_again(left) == ask_again(right) == 1


def ask_again(wq: workq.WorkMgr) -> int:
    """The worker serves on."""
    return wq.queue(abs, -1).result(DEADLINE_S)


def wait_by_futures() -> int:
    with workq.WorkMgr(1) as wq:
        unit = wq.queue(abs, -7)
        concurrent.futures.wait([unit])
        return unit.result()


def wait_by_asyncio() -> int:
    async def main() -> int:
        async with workq.WorkMgr(1) as wq:
            return await wq.queue(abs, -7)

    return asyncio.run(main())


def wait_with_a_time_out() -> int:
    with workq.WorkMgr(1, category="right") as wq:
        return wq.queue(abs, -7).result(timeout=600)


@pytest.mark.parametrize("way", [wait_by_futures, wait_by_asyncio])
def test_a_wait_that_runs_no_units_and_leaves_no_worker_for_them_is_warned_of_once(
    way: Callable[[], int], controller: workq.Controller, caplog: pytest.LogCaptureFixture
) -> None:
    with workq.WorkMgr(1, category="left", name="outer", delete_timeout=0.2, controller=controller) as wq:
        unit = wq.queue(way)
        wait_until(lambda: warnings(caplog))
        (text,) = warnings(caplog)
        assert f"unit outer:1 {way.__name__} in " in text
        controller.categories.change("left", max_total_workers=2)
        assert unit.result(DEADLINE_S) == 7
    assert len(warnings(caplog)) == 1


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING and "never ends" in record.getMessage()]


def hold_inside(fifo: str) -> Any:
    with workq.WorkMgr(1, category="right") as wq:
        return wq.queue(hold, fifo).result()


def test_who_waits_for_a_unit_that_runs_is_let_alone(
    controller: workq.Controller, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The left one's unit runs in the right worker; another one of the right waits for that worker to come free."""
    left, right = (workq.WorkMgr(1, category=name, name=name, controller=controller) for name in ("left", "right"))
    with Held(left, tmp_path, hold_inside) as held:
        behind = right.queue(ask, "right")
        loop = controller.running()
        beats = {loop._heartbeat_due}
        wait_until(lambda: beats.add(loop._heartbeat_due) or len(beats) > 4)
        assert not behind.done()
    assert held.unit.result(DEADLINE_S) > 0
    assert behind.result(DEADLINE_S) == 7
    assert warnings(caplog) == []
