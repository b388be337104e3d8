"""Threads that cross each other, and calls that cross the end of their queue: nothing waits for ever, and the controller lives on."""

from __future__ import annotations

import collections
import concurrent.futures
import enum
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import workq
from tests.support import DEADLINE_S, wait_until
from tests.system.held import Held

pytestmark = pytest.mark.slow

SPARE = workq.Category("spare", max_workers=1)


class Name(enum.StrEnum):
    """Texts of a type of their own, as those of numpy are."""

    SHORT = "short"


class Level(enum.IntEnum):
    """Log levels, as applications define them."""

    VERBOSE = 5


class Closing:
    """An argument whose pickling closes the queue that it is queued on."""

    def __init__(self, wq: workq.WorkMgr) -> None:
        self._wq = wq

    def __reduce__(self) -> tuple[Any, ...]:
        self._wq.close()
        return int, ()


class Counter(logging.Handler):
    """Counts messages."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: collections.Counter[str] = collections.Counter()

    def emit(self, record: logging.LogRecord) -> None:
        self.heard[record.getMessage()] += 1


@pytest.fixture
def controller() -> Iterator[workq.Controller]:
    with workq.Controller() as made:
        yield made


@pytest.fixture
def often() -> Iterator[None]:
    """Threads are switched as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def test_waiting_in_the_manner_of_concurrent_futures_never_locks_out_a_cancel(
    controller: workq.Controller, often: None, tmp_path: Path
) -> None:
    with workq.WorkMgr(1, controller=controller) as wq, Held(wq, tmp_path).wait_begun():
        shown: list[list[workq.Unit[int]]] = [[]]
        over = threading.Event()

        def wait_again_and_again() -> None:
            while not over.is_set():
                concurrent.futures.wait(shown[0], timeout=0)

        def cancel_again_and_again() -> None:
            for _ in range(300):
                shown[0] = units = [wq.queue(abs, -1) for _ in range(20)]
                for unit in units:
                    unit.cancel()

        threads = [threading.Thread(target=target, daemon=True) for target in (wait_again_and_again, cancel_again_and_again)]
        for thread in threads:
            thread.start()
        threads[1].join(DEADLINE_S)
        over.set()
        threads[0].join(DEADLINE_S)
        assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("units_before", [0, 1])
def test_a_unit_whose_queue_is_closed_while_it_is_pickled_is_cancelled(controller: workq.Controller, units_before: int) -> None:
    wq = workq.WorkMgr(1, controller=controller)
    for _ in range(units_before):
        wq.queue(abs, -1).result(DEADLINE_S)
    with pytest.raises(workq.UnitCancelled):
        wq.queue(abs, Closing(wq)).result(DEADLINE_S)


def queue_from_threads(rounds: int) -> int:
    """In a unit: threads that have not queued before queue the same new functions at once."""
    sys.setswitchinterval(1e-6)
    for _ in range(rounds):
        with workq.WorkMgr(2) as wq:
            threads = [threading.Thread(target=lambda: [wq.queue(function, -1) for function in (abs, str, float)]) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            ended = wq.sync(DEADLINE_S).done
    return ended


def test_threads_of_a_unit_that_queue_at_once_all_get_their_results(controller: workq.Controller) -> None:
    with workq.WorkMgr(2, controller=controller) as wq:
        assert wq.queue(queue_from_threads, 30).result(2 * DEADLINE_S) == 24


def raise_in_turn() -> tuple[bool, str]:
    """In a unit: wait for the first exception, and have a callback that raises."""
    with workq.WorkMgr(1) as wq:
        first, rest = wq.queue(int, "no number"), [wq.queue(abs, -1) for _ in range(3)]
        rest[0].add_done_callback(lambda unit: 1 / 0)
        done, _ = concurrent.futures.wait([first, *rest], return_when=concurrent.futures.FIRST_EXCEPTION)
        return first in done and isinstance(first.exception(), ValueError), str([unit.result() for unit in rest])


def test_in_a_unit_a_first_exception_is_waited_for_and_a_callback_that_raises_strikes_nobody(controller: workq.Controller) -> None:
    with workq.WorkMgr(1, controller=controller) as wq:
        assert wq.queue(raise_in_turn).result(DEADLINE_S) == (True, "[1, 1, 1]")


def test_names_and_log_levels_may_be_of_enums(controller: workq.Controller) -> None:
    logger = logging.getLogger("tests.crossings.verbose")
    logger.setLevel(Level.VERBOSE)
    try:
        with workq.WorkMgr(1, name=Name.SHORT, controller=controller) as wq:
            unit = wq.options(name=Name.SHORT, priority=Level.VERBOSE).queue(abs, -1)
            assert (unit.result(DEADLINE_S), unit.name, wq.name) == (1, "short", "short")
    finally:
        logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize("priorities", [(0,), (0, 1, 2, -1)], ids=["one-backlog", "many-backlogs"])
def test_clear_while_other_threads_queue_loses_no_unit(controller: workq.Controller, often: None, priorities: tuple[int, ...]) -> None:
    with workq.WorkMgr(1, controller=controller) as wq:
        assert wq.pause()
        units: list[workq.Unit[int]] = []
        intakes = [wq.options(priority=priority) for priority in priorities]

        def queue_many() -> None:
            units.extend(intakes[number % len(intakes)].queue(int) for number in range(12_000))

        threads = [threading.Thread(target=queue_many) for _ in range(2)]
        for thread in threads:
            thread.start()
        for many in range(4000, 20_000, 4000):
            wait_until(lambda: len(units) > many)  # noqa: B023
            wq.clear()
        for thread in threads:
            thread.join(DEADLINE_S)
        wq.clear()
        assert {unit.state for unit in units} == {workq.UnitState.CANCELLED}
        wq.resume()
        assert wq.queue(abs, -1).result(DEADLINE_S) == 1


def test_queues_may_be_opened_while_others_look_at_all_of_them(controller: workq.Controller, often: None) -> None:
    opened = []

    def open_queues(number: int) -> None:
        for _ in range(number):
            opened.append(wq := workq.WorkMgr(1, controller=controller))
            wq.queue(abs, -1)

    open_queues(300)
    thread = threading.Thread(target=open_queues, args=(300,))
    thread.start()
    while thread.is_alive():
        assert controller.population()[1]["Default"] >= 300
    assert controller.metrics()
    thread.join()


class Holding(logging.Handler):
    """Holds the thread up that logs an error, which is the controller's, until it is let go."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.holds, self.let_go = threading.Event(), threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.holds.set()
        self.let_go.wait(DEADLINE_S)


def test_a_queue_is_not_quiet_while_the_unit_of_a_worker_that_has_died_has_not_ended(controller: workq.Controller) -> None:
    logging.getLogger("workq").addHandler(handler := Holding())
    try:
        with workq.WorkMgr(1, controller=controller) as wq:
            unit = wq.queue(signal.raise_signal, signal.SIGKILL)
            assert handler.holds.wait(DEADLINE_S)
            assert (unit.done(), wq.wait(0)) == (False, False)
            handler.let_go.set()
            with pytest.raises(workq.WorkErrors):
                wq.sync(DEADLINE_S)
    finally:
        handler.let_go.set()
        logging.getLogger("workq").removeHandler(handler)


def test_a_queue_lives_as_long_as_its_views_and_iterators(controller: workq.Controller) -> None:
    assert list(workq.WorkMgr(1, controller=controller).map(abs, [-1, -2])) == [1, 2]
    view = workq.WorkMgr(1, controller=controller).options(priority=1)
    assert view.queue(abs, -1).result(DEADLINE_S) == 1
    assert list(view.map(abs, [-3])) == [3]


def test_a_category_is_not_deleted_under_a_queue_that_waits_for_its_first_unit(controller: workq.Controller) -> None:
    controller.add_category(SPARE)
    late = workq.WorkMgr(1, category="spare", controller=controller)
    with workq.WorkMgr(1, controller=controller) as wq:
        assert wq.queue(abs, -1).result(DEADLINE_S) == 1
        with pytest.raises(workq.CategoryError, match="spare"):
            controller.delete_category("spare")
        assert wq.queue(abs, -2).result(DEADLINE_S) == 2
    assert late.queue(abs, -3).result(DEADLINE_S) == 3
    late.close()
    controller.delete_category("spare")
    with pytest.raises(workq.CategoryError, match="spare"):
        workq.WorkMgr(1, category="spare", controller=controller)


def log_from_a_handler(times: int) -> int:
    """In a unit: log without pause, and have a signal handler that logs as well come in the middle of it so often."""
    logger, heard = logging.getLogger("tests.crossings.handler"), [0]

    def log_too(number: int, frame: object) -> None:
        heard[0] += 1
        logger.warning("from the handler")
        if heard[0] < times:
            signal.setitimer(signal.ITIMER_REAL, 0.0005)  # the next one: an interval could be shorter than this takes

    logger.warning("first")  # in whose course modules are imported, which a handler must not come in the middle of
    signal.signal(signal.SIGALRM, log_too)
    signal.setitimer(signal.ITIMER_REAL, 0.0005)
    while heard[0] < times:
        logger.warning("from the unit")
    return heard[0]


def test_a_signal_handler_of_a_unit_may_log_while_the_unit_logs(controller: workq.Controller) -> None:
    logger = logging.getLogger("tests.crossings.handler")
    before, logger.propagate = logger.propagate, False  # there may be thousands of records
    logger.addHandler(counter := Counter())
    try:
        with workq.WorkMgr(1, controller=controller) as wq:
            times = wq.queue(log_from_a_handler, 200).result(DEADLINE_S)
            wq.sync()
            assert counter.heard["from the handler"] == times
    finally:
        logger.propagate = before
        logger.removeHandler(counter)


def test_a_callback_that_closes_its_controller_leaves_no_thread() -> None:
    controller = workq.Controller(name="closed-from-within")
    wq = workq.WorkMgr(1, controller=controller)
    wq.queue(abs, -1).add_done_callback(lambda unit: controller.close())
    wait_until(lambda: controller.closed and not any(thread.name.startswith("closed-from") for thread in threading.enumerate()))


def test_a_callback_of_a_unit_that_nobody_waits_for_is_called_after_a_row_of_waits(controller: workq.Controller) -> None:
    with workq.WorkMgr(1, controller=controller) as wq:
        for n in range(200):
            assert wq.queue(abs, -n).result() == n
        called = threading.Event()
        wq.queue(abs, -1).add_done_callback(lambda unit: called.set())
        assert called.wait(DEADLINE_S)
