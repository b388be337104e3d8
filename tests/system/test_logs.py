"""Log records of workers: handled by the parent's loggers of the same name, with the unit and the worker on them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator

import pytest

import workq
from tests.support import DEADLINE_S, application, wait_until
from tests.system import deeds
from workq import WorkMgr

pytestmark = pytest.mark.slow


class Keeper(logging.Handler):
    """Keeps the records that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def messages(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    """A handler on the logger of all that these units log."""
    handler, logger = Keeper(), logging.getLogger("deeds")
    logger.addHandler(handler)
    before, logger.level = logger.level, logging.DEBUG
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.fixture
def wq(keeper: Keeper) -> Iterator[WorkMgr]:
    """A queue whose workers start after the parent's loggers were set up."""
    queue = WorkMgr(1)
    yield queue
    queue.close()


def test_a_record_names_its_unit_its_worker_and_its_process(wq: WorkMgr, keeper: Keeper) -> None:
    unit = wq.options(name="speaker").queue(deeds.log, "deeds.one", logging.ERROR, "said %d of %s", 1, "two")
    wq.sync(DEADLINE_S)
    (record,) = keeper.records
    assert unit.worker is not None
    assert record.getMessage() == "said 1 of two"
    assert (record.name, record.levelno) == ("deeds.one", logging.ERROR)
    assert (record.workq_worker, record.workq_pid) == (unit.worker.name, unit.worker.pid)  # type: ignore[attr-defined]
    assert "speaker" in record.workq_unit  # type: ignore[attr-defined]
    assert record.process == unit.worker.pid


def test_sync_returns_after_all_records_of_its_units(wq: WorkMgr, keeper: Keeper) -> None:
    for number in range(200):
        wq.queue(deeds.log, "deeds.sync", logging.WARNING, f"record {number}")
    wq.sync(DEADLINE_S)
    assert keeper.messages() == [f"record {number}" for number in range(200)]


def test_ten_thousand_records_arrive_in_order(keeper: Keeper) -> None:
    with WorkMgr(2) as wq:
        for _ in range(4):
            wq.queue(deeds.log_many, 2500)
    by_worker: dict[object, list[str]] = {}
    for record in keeper.records:
        by_worker.setdefault(record.workq_unit, []).append(record.getMessage())  # type: ignore[attr-defined]
    assert list(by_worker.values()) == [[f"record {number}" for number in range(2500)]] * 4


def test_an_exception_and_extras_arrive_with_the_record(wq: WorkMgr, keeper: Keeper) -> None:
    wq.queue(deeds.log_rich)
    wq.sync(DEADLINE_S)
    (record,) = keeper.records
    assert record.colour == "blue"  # type: ignore[attr-defined]
    assert "LookupError: what was raised" in logging.Formatter().format(record)
    assert record.getMessage() == "with arguments"


def test_records_of_processes_that_a_unit_forks_arrive(wq: WorkMgr, keeper: Keeper) -> None:
    unit = wq.queue(deeds.log_in_child, "from the child")
    assert unit.result(DEADLINE_S) == 0
    wait_until(lambda: keeper.records)
    (record,) = keeper.records
    assert unit.worker is not None
    assert record.getMessage() == "from the child"
    assert record.workq_worker == unit.worker.name  # type: ignore[attr-defined]
    assert record.process != unit.worker.pid


def test_records_of_a_multiprocessing_pool_in_a_unit_arrive(wq: WorkMgr, keeper: Keeper) -> None:
    wq.queue(deeds.log_in_multiprocessing, 50).result(DEADLINE_S)
    wait_until(lambda: len(keeper.records) == 50)
    assert sorted(keeper.messages()) == sorted(f"record {number}" for number in range(50))


def test_records_that_were_sent_before_a_worker_died_arrive(wq: WorkMgr, keeper: Keeper) -> None:
    assert isinstance(wq.queue(deeds.log_and_die, 300).exception(DEADLINE_S), workq.WorkerHalted)
    assert wq.queue(deeds.pid).result(DEADLINE_S)
    wq.sync(DEADLINE_S)
    assert keeper.messages() == [f"record {number}" for number in range(300)]


def test_records_of_threads_that_outlive_their_unit_stop_nobody(wq: WorkMgr, keeper: Keeper) -> None:
    wq.queue(deeds.log_from_threads, 4, 100).result(DEADLINE_S)
    wq.sync(DEADLINE_S)
    wait_until(lambda: len(keeper.records) == 400)
    assert wq.queue(deeds.pid).result(DEADLINE_S)


# ---------------------------------------------------------------- levels


@pytest.mark.parametrize("level", [logging.DEBUG, logging.WARNING, logging.CRITICAL])
def test_records_below_the_parents_level_are_not_made(keeper: Keeper, level: int) -> None:
    logging.getLogger("deeds").setLevel(level)
    with WorkMgr(1) as wq:
        for each in (10, 20, 30, 40, 50):
            wq.queue(deeds.log, "deeds.levels", each, "at %d", each)
    assert keeper.messages() == [f"at {each}" for each in (10, 20, 30, 40, 50) if each >= level]


def test_a_parents_logger_of_a_lower_level_than_root_gets_its_records(keeper: Keeper) -> None:
    """Root stands at WARNING, and one logger below it at DEBUG, as programs set it up to look into one part."""
    assert logging.getLogger().getEffectiveLevel() == logging.WARNING
    with WorkMgr(1) as wq:
        wq.queue(deeds.log, "deeds.deep.down", logging.DEBUG, "deep")
        wq.queue(deeds.log, "elsewhere", logging.DEBUG, "not asked for")
        assert wq.queue(deeds.enabled, "elsewhere").result(DEADLINE_S) == [30, 40, 50]
        assert wq.queue(deeds.enabled, "deeds.deep").result(DEADLINE_S) == [10, 20, 30, 40, 50]
    assert keeper.messages() == ["deep"]


# ---------------------------------------------------------------- handlers and units that are no good


class Bad(Keeper):
    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        raise RuntimeError("a handler that raises")


def test_a_handler_that_raises_loses_no_record_of_the_others(wq: WorkMgr, keeper: Keeper) -> None:
    bad = Bad()
    logging.getLogger("deeds.many").addHandler(bad)
    try:
        wq.queue(deeds.log_many, 5)
        wq.sync(DEADLINE_S)
    finally:
        logging.getLogger("deeds.many").removeHandler(bad)
    assert len(bad.records) == 5
    assert wq.queue(deeds.pid).result(DEADLINE_S)


class Slow(Keeper):
    """Waits for its gate at the first record."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.entered = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.entered.set()
        assert self.gate.wait(DEADLINE_S)
        super().emit(record)


def test_sync_gives_up_waiting_for_a_handler_that_hangs(wq: WorkMgr, keeper: Keeper) -> None:
    slow = Slow()
    logging.getLogger("deeds.many").addHandler(slow)
    try:
        wq.queue(deeds.log_many, 3)
        wq.sync(DEADLINE_S)
        assert not slow.records
    finally:
        slow.gate.set()
        logging.getLogger("deeds.many").removeHandler(slow)


def test_a_slow_handler_holds_up_no_unit(wq: WorkMgr, keeper: Keeper) -> None:
    slow = Slow()
    logging.getLogger("deeds.many").addHandler(slow)
    try:
        units = [wq.queue(deeds.log_many, 3), *[wq.queue(abs, -n) for n in range(100)]]
        assert slow.entered.wait(DEADLINE_S)
        assert [unit.result(DEADLINE_S) for unit in units] == [3, *range(100)]
        assert not slow.records
        slow.gate.set()
        wait_until(lambda: len(slow.records) == 3)
    finally:
        slow.gate.set()
        logging.getLogger("deeds.many").removeHandler(slow)


def test_a_unit_that_takes_the_handlers_away_takes_them_from_itself_alone(wq: WorkMgr, keeper: Keeper) -> None:
    wq.queue(deeds.take_handlers_away)
    wq.queue(deeds.log, "deeds.after", logging.ERROR, "still here")
    wq.sync(DEADLINE_S)
    assert keeper.messages() == ["still here"]


def test_records_are_written_once_by_the_parents_handlers_and_not_by_the_worker() -> None:
    ended = application(
        """
        import logging, workq

        def speak(n):
            logging.getLogger("app").warning("record %d", n)

        if __name__ == "__main__":
            logging.basicConfig(format="%(name)s %(message)s", level=logging.INFO)
            with workq.WorkMgr(2) as wq:
                for n in range(20):
                    wq.queue(speak, n)
        """
    )
    assert ended.returncode == 0, ended.stderr
    assert sorted(ended.stderr.splitlines()) == sorted(f"app record {n}" for n in range(20))


def test_a_program_that_never_set_up_logging_sees_warnings_once() -> None:
    ended = application(
        """
        import logging, workq

        def speak():
            logging.warning("mind the gap")
            logging.info("nobody asked")

        if __name__ == "__main__":
            with workq.WorkMgr(1) as wq:
                wq.queue(speak)
        """
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("mind the gap") == 1
    assert "nobody asked" not in ended.stderr


def test_a_worker_that_is_killed_while_it_logs_holds_nobody_up(keeper: Keeper) -> None:
    with WorkMgr(2) as wq:
        units = [wq.queue(deeds.log_and_die, 50) if n % 2 else wq.queue(deeds.log_many, 50) for n in range(10)]
        assert [isinstance(unit.exception(DEADLINE_S), workq.WorkerHalted) for unit in units] == [False, True] * 5
    assert len(keeper.records) == 500
    assert os.getpid() not in {record.process for record in keeper.records}
