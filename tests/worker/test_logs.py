"""Each record of a worker, and of the processes its units fork, is handed to the parent; none twice, none before it is needed."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

from tests.worker.stage import told

SENT = """
from workq import context
from workq.worker import logs
from workq.transport.records import load_record
assert "logging" not in sys.modules

class Side:
    pid, name = os.getpid(), "worker_1234abcd"
    unit = None
    def current_unit(self):
        return self.unit

side = Side()
context.enter(side)
import threading
arrived = threading.Condition()
sent = []
def send(data):
    with arrived:
        sent.append(load_record(data))
        arrived.notify_all()
def wait_for(count):
    with arrived:
        assert arrived.wait_for(lambda: len(sent) >= count, 20), [record.getMessage() for record in sent]
def begin(name):
    side.unit = context.UnitInfo(int(name), "work", "q", 1, side.name)
def tell_sent():
    tell([[record.name, record.levelname, record.getMessage(), record.workq_unit, record.workq_worker] for record in sent])
logs.install(send, 20)
begin("1")
"""


def sent(code: str) -> list[Any]:
    (records,) = told(SENT + textwrap.dedent(code) + "\ntell_sent()\n", PYTHONWARNINGS="ignore::DeprecationWarning")
    return list(records)


def test_nothing_is_imported_before_a_unit_logs() -> None:
    code = "tell('logging' in sys.modules)"
    assert told(SENT + code) == [False]


def test_the_record_that_comes_with_the_first_import_arrives() -> None:
    code = """
    import logging
    logging.getLogger("a.b").warning("first %s", "one")
    """
    assert sent(code) == [["a.b", "WARNING", "first one", "q:1 work", "worker_1234abcd"]]


def test_a_logging_that_is_there_already_is_taken_over() -> None:
    code = """
    import logging
    logging.root.handlers[:] = [logging.StreamHandler()]
    logs.install(send, 20)
    logging.info("once")
    tell(output.take(True))
    tell_sent()
    """
    assert told(SENT + textwrap.dedent(code)) == [[], [["root", "INFO", "once", "q:1 work", "worker_1234abcd"]]]


def test_the_import_of_logging_is_the_ordinary_one() -> None:
    code = """
    before = list(sys.meta_path)
    import logging
    tell([len(before) - len(sys.meta_path), type(logging.__spec__.loader).__name__, type(logging.__loader__).__name__])
    import importlib
    importlib.reload(logging)
    """
    assert told(SENT + textwrap.dedent(code)) == [[1, "SourceFileLoader", "SourceFileLoader"]]


def test_records_below_the_level_are_not_sent() -> None:
    code = """
    import logging
    logging.debug("no")
    logging.info("yes")
    """
    assert [record[2] for record in sent(code)] == ["yes"]


def test_basic_config_does_not_make_records_appear_twice() -> None:
    code = """
    import logging
    logging.basicConfig(level=10)
    logging.warning("once")
    assert output.take(True) == []
    """
    assert [record[2] for record in sent(code)] == ["once"]


def test_a_handler_that_a_unit_took_away_comes_back() -> None:
    code = """
    import logging, logging.config
    logging.basicConfig(force=True)
    logging.warning("to the unit's own handler")
    logs.keep()
    logs.keep()
    logging.warning("to both")
    logging.config.dictConfig({"version": 1})
    logs.keep()
    logging.shutdown()
    logging.warning("still")
    """
    assert [record[2] for record in sent(code)] == ["to both", "still"]


def test_a_record_that_cannot_be_sent_does_not_fail_the_unit() -> None:
    code = """
    import logging
    logs.install(lambda data: 1 / 0, 20)
    logging.warning("x")
    """
    assert sent(code) == []


FORK = """
import logging
def child(*names):
    pid = os.fork()
    if pid == 0:
        for name in names:
            logging.getLogger("child").warning(name)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
"""


def test_records_of_forked_processes_arrive_with_the_unit_that_forked_them() -> None:
    """Each child ends by ``os._exit`` right after its record; the unit's label is that of the fork, however late it is read."""
    code = """
    for n in range(1, 20):
        begin(str(n))
        child("a", "b")
    begin("99")
    wait_for(38)
    """
    found = sent(FORK + textwrap.dedent(code))
    assert sorted(found) == sorted(["child", "WARNING", name, f"q:{n} work", "worker_1234abcd"] for n in range(1, 20) for name in "ab")


def test_records_of_a_childs_child_arrive() -> None:
    code = """
    pid = os.fork()
    if pid == 0:
        child("grandchild")
        os._exit(0)
    os.waitpid(pid, 0)
    wait_for(1)
    """
    assert [record[2:4] for record in sent(FORK + textwrap.dedent(code))] == [["grandchild", "q:1 work"]]


def test_a_child_that_is_killed_while_it_logs_stops_nobody_else() -> None:
    code = """
    import signal
    for n in range(20):
        pid = os.fork()
        if pid == 0:
            while True:
                logging.getLogger("victim").warning("x" * 10000)
        wait_for(len(sent) + 3)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with arrived:
        assert arrived.wait_for(lambda: len(sent) > 20, 20)
    child("last")
    with arrived:
        assert arrived.wait_for(lambda: sent[-1].getMessage() == "last", 20)
    del sent[:-1]
    """
    assert [record[2] for record in sent(FORK + textwrap.dedent(code))] == ["last"]


def test_the_workers_own_records_stay_in_step_after_a_fork() -> None:
    code = """
    child()
    logging.warning("mine")
    assert sent[-1].getMessage() == "mine"
    """
    assert [record[2] for record in sent(FORK + textwrap.dedent(code))] == ["mine"]


def test_multiprocessing_is_left_as_the_unit_found_it() -> None:
    code = """
    child()
    import multiprocessing
    multiprocessing.set_start_method("spawn")
    process = multiprocessing.get_context("fork").Process(target=logging.warning, args=("by multiprocessing",))
    process.start()
    process.join()
    wait_for(1)
    """
    assert [record[2] for record in sent(FORK + textwrap.dedent(code))] == ["by multiprocessing"]


def test_a_child_that_outlives_its_worker_is_not_held_up_by_its_logging() -> None:
    code = """
    gone, alive = os.pipe()
    if os.fork() == 0:
        os.close(alive)
        os.read(gone, 1)
        for _ in range(1000):
            logging.warning("x" * 10000)
        tell("done")
    os._exit(0)
    """
    assert told(SENT + FORK + textwrap.dedent(code), PYTHONWARNINGS="ignore::DeprecationWarning") == ["done"]


@pytest.mark.parametrize("end", ["logging.shutdown()", "sys.exit(0)", "os._exit(0)", "import signal; os.kill(os.getpid(), 9)"])
def test_nothing_hangs_at_the_workers_end(end: str) -> None:
    """``logging.shutdown`` waits for the threads of multiprocessing-logging's own handlers, five seconds each."""
    code = f"""
    import time
    pid = os.fork()
    if pid == 0:
        child("x")
        begun = time.monotonic()
        {end}
        os._exit(0)
    os.waitpid(pid, 0)
    child("y")
    begun = time.monotonic()
    logging.shutdown()
    assert time.monotonic() - begun < 4
    wait_for(2)
    """
    assert sorted(record[2] for record in sent(FORK + textwrap.dedent(code))) == ["x", "y"]
