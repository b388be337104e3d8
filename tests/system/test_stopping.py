"""A running unit that has to end: a short wait, an interrupt in it and in no other, and then the end of its whole process group."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import workq
from tests.support import DEADLINE_S, wait_gone, wait_until
from tests.system.held import Held, deaf, hold, spin
from workq.config import DEFAULTS

pytestmark = pytest.mark.slow


@pytest.fixture
def controller(request: pytest.FixtureRequest) -> Iterator[workq.Controller]:
    with workq.Controller(settings=getattr(request, "param", DEFAULTS)) as made:
        yield made


def clean_up_slowly(fifo: str, cleaning: str) -> None:
    """Be interrupted, and take as long for the cleaning up as the test wants."""
    try:
        spin(fifo)
    finally:
        hold(cleaning)


def return_all_the_same(fifo: str) -> str:
    try:
        spin(fifo)
    except workq.ExternalInterrupt:
        return "what I had"
    return "all"


def swallow_in_a_destructor(fifo: str) -> None:
    class Swallower:
        def __del__(self) -> None:
            for _ in range(1000):
                pass

    with open(fifo, "rb"):
        while True:
            Swallower()
            for _ in range(200):
                pass


def grow_a_family(path: str, fifo: str) -> None:
    """Start children: one of the group, and one that leaves it and its session; then go deaf."""
    code = "import os, sys, time; os.setsid() if sys.argv[1] == 'apart' else None; print(os.getpid(), flush=True); time.sleep(600)"
    children = []
    for kind in ("near", "apart"):
        child = subprocess.Popen([sys.executable, "-S", "-c", code, kind], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        children.append(int(child.stdout.readline()))
    with open(path, "w") as file:
        print(os.getpid(), *children, file=file)
    deaf(fifo)


# The four ways in which a unit comes to be stopped. Each gets the queue, and a function that queues the unit on what it is given.

Queued = Callable[[Any], Held]


def by_cancel(wq: workq.WorkMgr, queued: Queued) -> Held:
    held = queued(wq)
    held.unit.cancel()
    return held


def by_close(wq: workq.WorkMgr, queued: Queued) -> Held:
    held = queued(wq)
    wq.close()
    return held


def by_an_exception_in_the_block(wq: workq.WorkMgr, queued: Queued) -> Held:
    with contextlib.suppress(ZeroDivisionError), wq:
        held = queued(wq)
        raise ZeroDivisionError
    return held


def by_timeout(wq: workq.WorkMgr, queued: Queued) -> Held:
    wq.queue(hold, os.devnull).result(DEADLINE_S)  # the module is there: what is left to do before it has begun is the opening of a fifo
    return queued(wq.options(timeout=0.5))


def by_dropping_it(wq: workq.WorkMgr, queued: Queued) -> Held:
    other = workq.WorkMgr(1, delete_timeout=wq.delete_timeout, controller=wq.controller)
    held = queued(other)
    del other
    gc.collect()
    return held


WAYS = [by_cancel, by_close, by_an_exception_in_the_block, by_timeout, by_dropping_it]


@pytest.mark.parametrize("way", WAYS)
def test_a_running_unit_is_interrupted_and_its_worker_goes_on(
    way: Callable[..., Held], controller: workq.Controller, tmp_path: Path
) -> None:
    wq = workq.WorkMgr(1, delete_timeout=60, controller=controller)
    after = workq.WorkMgr(1, controller=controller)
    pid = wq.queue(os.getpid).result(DEADLINE_S)
    held = way(wq, lambda queue: Held(queue, tmp_path, spin).wait_begun())
    with pytest.raises(workq.UnitTimeout if way is by_timeout else workq.UnitCancelled):
        held.unit.result(DEADLINE_S)
    assert held.unit.cancelled() is (way is not by_timeout)
    held.let_go()
    assert after.queue(os.getpid).result(DEADLINE_S) == pid
    assert (controller.metrics().workers_interrupted, controller.metrics().workers_killed) == (1, 0)


@pytest.mark.parametrize("way", WAYS)
def test_a_deaf_unit_is_interrupted_then_killed_and_a_new_worker_takes_its_place(
    way: Callable[..., Held], controller: workq.Controller, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "workq")
    wq = workq.WorkMgr(1, delete_timeout=0.2, controller=controller)
    after = workq.WorkMgr(1, controller=controller)
    pid = wq.queue(os.getpid).result(DEADLINE_S)
    held = way(wq, lambda queue: Held(queue, tmp_path, deaf).wait_begun())
    with pytest.raises(workq.UnitTimeout if way is by_timeout else workq.UnitCancelled):
        held.unit.result(DEADLINE_S)
    wait_gone(pid)
    held.let_go()
    assert after.queue(os.getpid).result(DEADLINE_S) != pid
    steps = [
        word for record in caplog.records for word in ("is interrupted", "is killed", "ended as it was to") if word in record.getMessage()
    ]
    assert steps == ["is interrupted", "is killed", "ended as it was to"]
    assert (controller.metrics().workers_killed, controller.metrics().workers_halted) == (1, 0)


@pytest.mark.parametrize("controller", [DEFAULTS._replace(grace_s=3600.0)], indirect=True)
def test_a_unit_that_ends_within_the_short_wait_keeps_its_result(controller: workq.Controller, tmp_path: Path) -> None:
    wq = workq.WorkMgr(1, controller=controller)
    with Held(wq, tmp_path, spin) as held:
        assert held.unit.cancel() is True
        wait_until(lambda: held.unit.state.value == "stopping")
        assert not held.unit.cancelled()
        assert not held.unit.done()
    assert held.unit.result(DEADLINE_S) == controller.workers()[0].pid
    assert not held.unit.cancelled()
    assert controller.metrics().workers_interrupted == 0


def test_a_unit_counts_as_cancelled_only_once_it_has_stopped(controller: workq.Controller, tmp_path: Path) -> None:
    wq = workq.WorkMgr(1, delete_timeout=60, controller=controller)
    fifo, cleaning = str(tmp_path / "fifo"), str(tmp_path / "cleaning")
    os.mkfifo(fifo)
    os.mkfifo(cleaning)
    unit = wq.queue(clean_up_slowly, fifo, cleaning)
    with open(fifo, "wb"):
        assert unit.cancel() is True
        with open(cleaning, "wb"):  # opens when the unit has been interrupted
            assert unit.cancel() is True  # twice is once
            assert (unit.cancelled(), unit.done(), unit.state.value) == (False, False, "stopping")
    wait_until(unit.done)
    assert unit.cancelled()


def test_a_unit_that_catches_the_interrupt_and_returns_keeps_its_result(controller: workq.Controller, tmp_path: Path) -> None:
    wq = workq.WorkMgr(1, delete_timeout=60, controller=controller)
    with Held(wq, tmp_path, return_all_the_same) as held:
        held.unit.cancel()
        assert held.unit.result(DEADLINE_S) == "what I had"
    assert not held.unit.cancelled()
    assert wq.sync(DEADLINE_S).done == 1


def test_an_interrupt_that_a_destructor_swallows_is_repeated(controller: workq.Controller, tmp_path: Path) -> None:
    wq = workq.WorkMgr(1, delete_timeout=60, controller=controller)
    for _ in range(10):
        with Held(wq, tmp_path, swallow_in_a_destructor) as held:
            held.unit.cancel()
            with pytest.raises(workq.UnitCancelled):
                held.unit.result(DEADLINE_S)
    assert controller.metrics().workers_killed == 0


def test_a_kill_takes_the_whole_family_of_the_worker_also_what_left_its_session(controller: workq.Controller, tmp_path: Path) -> None:
    wq = workq.WorkMgr(1, delete_timeout=0.1, controller=controller)
    path, fifo = str(tmp_path / "pids"), str(tmp_path / "fifo")
    os.mkfifo(fifo)
    unit = wq.queue(grow_a_family, path, fifo)
    with open(fifo, "wb"):
        family = [int(pid) for pid in Path(path).read_text().split()]
        unit.cancel()
        with pytest.raises(workq.UnitCancelled):
            unit.result(DEADLINE_S)
    for pid in family:
        wait_gone(pid)
    assert len(family) == 3


def test_units_behind_and_beside_a_killed_one_are_not_touched(controller: workq.Controller, tmp_path: Path) -> None:
    wq = workq.WorkMgr(2, delete_timeout=0.1, controller=controller)
    with Held(wq, tmp_path, deaf) as doomed, Held(wq, tmp_path, spin) as beside:
        behind = [wq.queue(abs, -n) for n in range(100)]
        doomed.unit.cancel()
        assert [unit.result(DEADLINE_S) for unit in behind] == list(range(100))
        wait_until(doomed.unit.cancelled)
        assert beside.unit.running()
    assert beside.unit.result(DEADLINE_S) != 0


def test_a_timed_out_unit_comes_again_where_retries_were_asked_for(controller: workq.Controller) -> None:
    wq = workq.WorkMgr(1, delete_timeout=60, controller=controller)
    unit = wq.options(timeout=0.05, retries=2).queue(time.sleep, 600)
    assert isinstance(unit.exception(DEADLINE_S), workq.UnitTimeout)
    assert unit.attempt == 3
    assert [attempt.outcome for attempt in unit.attempts] == ["timed out"] * 3


def test_a_timeout_begins_when_the_unit_begins(controller: workq.Controller, tmp_path: Path) -> None:
    wq = workq.WorkMgr(1, controller=controller)
    with Held(wq, tmp_path, spin) as held:
        waiting = wq.options(timeout=0.5).queue(abs, -1)
        with pytest.raises(TimeoutError):
            held.unit.result(0.6)
    assert waiting.result(DEADLINE_S) == 1


def test_close_returns_when_nothing_of_the_queue_runs_any_more(controller: workq.Controller, tmp_path: Path) -> None:
    wq = workq.WorkMgr(2, delete_timeout=0.1, controller=controller)
    with Held(wq, tmp_path, deaf) as first, Held(wq, tmp_path, spin) as second:
        waiting = [wq.queue(abs, -n) for n in range(50)]
        busy = {row.unit: row.pid for row in controller.workers()}
        wq.close()
        assert all(unit.cancelled() for unit in [first.unit, second.unit, *waiting])
        assert not [row for row in controller.workers() if row.unit is not None]
        wait_gone(busy[first.unit.label])
    assert wq.statistics().cancelled == 52


def test_closing_the_controller_stops_everything_in_bounded_time(tmp_path: Path) -> None:
    controller = workq.Controller()
    wq = workq.WorkMgr(2, delete_timeout=0.1, controller=controller)
    with Held(wq, tmp_path, deaf) as first, Held(wq, tmp_path, spin) as second:
        waiting = wq.queue(abs, -1)
        pids = [row.pid for row in controller.workers()]
        controller.close()
        assert all(unit.cancelled() for unit in (first.unit, second.unit, waiting))
    for pid in pids:
        wait_gone(pid)
    with pytest.raises(workq.QueueClosed):
        wq.queue(abs, 1)


# ---------------------------------------------------------------- no other unit


def work(path: str, number: int, loops: int) -> int:
    """Compute for a while; whoever is interrupted writes its number down."""
    try:
        for _ in range(loops):
            pass
    except workq.ExternalInterrupt:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, b"%d\n" % number)
        os.close(fd)
        raise
    return number


def test_a_thousand_random_cancels_and_timeouts_strike_no_wrong_unit(controller: workq.Controller, tmp_path: Path) -> None:
    random_ = random.Random(2)
    path = str(tmp_path / "struck")
    wq = workq.WorkMgr(2, delete_timeout=60, controller=controller)
    asked, units = set(), {}
    for number in range(3000):
        loops = random_.choice((0, 100, 10_000, 100_000))
        view: Any = wq
        if random_.random() < 0.15:
            view = wq.options(timeout=random_.choice((0.0005, 0.001, 0.003)))
            asked.add(number)
        units[number] = view.queue(work, path, number, loops)
        if random_.random() < 0.25:
            target = random_.randrange(max(0, number - 40), number + 1)
            asked.add(target)
            units[target].cancel()
    for unit in wq.as_completed(DEADLINE_S * 3):
        assert unit.done()
    struck = [int(line) for line in Path(path).read_text().split()] if os.path.exists(path) else []
    ends = Counter(unit.state.value for unit in units.values())
    assert len(asked) >= 1000
    assert set(struck) <= asked
    assert all(count == 1 for count in Counter(struck).values())
    for number, unit in units.items():
        if unit.state.value == "done":
            assert unit.result() == number
        else:
            assert number in asked, unit
    assert set(ends) <= {"done", "cancelled", "timed out"}, ends
    assert sum(ends.values()) == 3000
    assert controller.metrics().workers_started == len(controller.workers())  # none was killed, none died


def test_a_halt_is_told_to_callbacks(controller: workq.Controller) -> None:
    told: list[tuple[float, workq.Halt]] = []
    controller.on_halt(lambda halt: told.append((time.monotonic(), halt)))
    wq = workq.WorkMgr(1, controller=controller)
    wq.queue(os._exit, 3).exception(DEADLINE_S)
    wait_until(lambda: told)
    assert told[0][1].exit_code == 3
