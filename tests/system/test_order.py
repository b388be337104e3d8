"""Units start by priority, and within a priority in the order in which they were queued; also where a worker was sent some ahead."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import workq
from tests.support import DEADLINE_S, wait_until
from tests.system.held import NEVER_JUDGED, Held, hold, spin
from workq.controller import facts


@pytest.fixture
def controller() -> Iterator[workq.Controller]:
    with workq.Controller() as one:
        yield one


def note(path: str, what: object) -> None:
    """Add a line, in one call."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{what}\n".encode())
    os.close(file)


def hold_noted(path: str, what: object, fifo: str) -> None:
    note(path, what)
    with contextlib.suppress(FileNotFoundError):  # let go before it came
        hold(fifo)


def test_a_higher_priority_comes_next_where_nobody_knows_how_long_units_take(tmp_path: Path) -> None:
    path = str(tmp_path / "order")
    with workq.Controller(settings=NEVER_JUDGED) as controller, workq.WorkMgr(1, controller=controller) as wq:
        held = Held(wq, tmp_path)
        for number in range(20):  # all of them before the worker is there
            wq.queue(note, path, number)
        with held:
            wq.options(priority=1).queue(note, path, "urgent")
        wq.sync()
    assert Path(path).read_text().split() == ["urgent", *map(str, range(20))]


def test_units_of_unknown_length_begin_in_order_in_several_workers(controller: workq.Controller, tmp_path: Path) -> None:
    path, fifo = str(tmp_path / "order"), str(tmp_path / "all")
    os.mkfifo(fifo)
    end = os.open(fifo, os.O_RDWR)
    with workq.WorkMgr(2, controller=controller) as before, Held(before, tmp_path), Held(before, tmp_path):
        pass  # two workers are there
    with workq.WorkMgr(2, controller=controller) as wq:
        wq.pause()
        for number in range(40):
            wq.queue(hold_noted, path, number, fifo)
        wq.resume()
        wait_until(lambda: os.path.exists(path) and len(Path(path).read_text().split()) >= 2)
        begun = {int(line) for line in Path(path).read_text().split()[:2]}
        os.unlink(fifo)
        os.close(end)
        wq.sync()
    assert begun == {0, 1}


def test_short_units_that_a_worker_holds_behind_a_long_one_come_back_where_others_wait_too(
    controller: workq.Controller, tmp_path: Path
) -> None:
    path = str(tmp_path / "order")
    with workq.WorkMgr(1, controller=controller) as wq:
        wq.queue(note, path, "first").result(DEADLINE_S)
        for _ in range(20):  # it learns that they are short
            wq.queue(abs, -1).result(DEADLINE_S)
        wq.pause()
        held = Held(wq, tmp_path, spin)  # not judged blocked
        for number in range(1000):
            wq.queue(note, path, number)
        wq.resume()
        with held:
            wait_until(lambda: not any(facts.holds_more_than_one(worker) for worker in controller.running().dispatcher.workers))
            wq.options(priority=1).queue(note, path, "urgent")
        wq.sync()
    assert Path(path).read_text().split() == ["first", "urgent", *map(str, range(1000))]
