"""What is asked of a queue at a wrong moment, or with what cannot be: a clear error, and always the same one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

import workq
from workq import context
from workq.adapters.executor import Executor
from workq.controller.dispatch import MOST_KNOWN
from workq.face.queueing import MOST_OPTIONS

MANY = 2 * MOST_KNOWN + 10

BEGINNINGS: dict[str, Callable[[workq.WorkMgr], object]] = {
    "queue": lambda wq: wq.queue(abs, -1),
    "options": lambda wq: wq.options(name="one").queue(abs, -1),
    "setup": lambda wq: wq.setup(abs, -1),
    "teardown": lambda wq: wq.teardown(abs, -1),
    "session": lambda wq: wq.session(),
    "cleanup": lambda wq: wq.cleanup(abs, -1),
    "detach": lambda wq: wq.detach(),
}


@pytest.mark.parametrize("begin", BEGINNINGS.values(), ids=BEGINNINGS)
def test_what_would_begin_something_says_that_the_queue_is_closed_or_that_it_was_detached(begin: Any, wq: workq.WorkMgr) -> None:
    token = wq.detach()
    with pytest.raises(workq.QueueDetached, match="was detached"):
        begin(wq)
    again = workq.WorkMgr.attach(token)
    again.close()
    with pytest.raises(workq.QueueClosed, match="closed"):
        begin(again)


@pytest.mark.parametrize("workers", [1, 0])
def test_a_controller_that_is_closed_takes_its_queues_with_it_those_without_workers_too(workers: int) -> None:
    controller = workq.Controller()
    wq = workq.WorkMgr(workers, controller=controller)
    with wq:
        unit = wq.options(priority=-1).queue(abs, -1)
        wq.pause()
        waits = wq.queue(abs, -2)
        controller.close()
        assert waits.cancelled()
        for begin in BEGINNINGS.values():
            with pytest.raises(workq.QueueClosed):
                begin(wq)
    assert unit.done()
    assert wq.shutdown(), "a shutdown afterwards has nothing to do"


def test_a_fork_of_the_process_does_not_run_the_units_of_a_queue_without_workers() -> None:
    wq = workq.WorkMgr(0)
    unit = wq.queue(os.getpid)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            for wait in (unit.result, wq.sync, wq.wait, wq.wait_one):
                try:
                    wait()
                except workq.ForkedError:
                    os.write(writing, b"x")
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        assert file.read() == b"xxxx"
    os.waitpid(child, 0)
    assert unit.result() == os.getpid()
    wq.close()


def test_statistics_of_a_queue_without_workers_name_none(controller: workq.Controller) -> None:
    with workq.WorkMgr(0, controller=controller) as wq:
        assert wq.statistics().max_workers == 0


def test_metrics_are_not_had_in_a_unit_and_the_error_says_where_they_are(controller: workq.Controller) -> None:
    with workq.WorkMgr(1, controller=controller) as wq, pytest.raises(workq.WorkqError, match="ask there") as caught:
        wq.queue(ask_for_metrics).result()
    assert not isinstance(caught.value, workq.QueueClosed)


def ask_for_metrics() -> None:
    with workq.WorkMgr(1) as wq:
        wq.metrics()


def test_a_callback_that_shuts_its_queue_down_is_refused_and_nothing_has_begun(wq: workq.WorkMgr) -> None:
    refused: list[Exception] = []

    def shut_down(unit: object, number: int) -> None:
        with pytest.raises(workq.WaitError) as caught:
            wq.shutdown()
        refused.append(caught.value)

    wq.queue_callback(abs, shut_down, -1)
    wq.sync()
    assert len(refused) == 1
    assert wq.queue(abs, -2).result() == 2


def test_sessions_go_with_the_queue_to_whoever_attaches_it(wq: workq.WorkMgr) -> None:
    session = wq.session()
    token = wq.detach()
    wq.close()
    assert session.run(abs, -1) == 1, "who has given the queue away closes nothing of it"
    workq.WorkMgr.attach(token).close()
    with pytest.raises(workq.QueueClosed):
        session.run(abs, -1)


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"initargs": 3}, "initargs"),
        ({"initargs": None}, "initargs"),
        ({"mp_context": "spawn"}, "mp_context"),
        ({"mp_context": 1}, "mp_context"),
    ],
)
def test_an_executor_names_the_argument_that_cannot_be(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(TypeError, match=rf"^{name} ") as caught:
        Executor(1, **arguments)
    assert isinstance(caught.value, workq.ArgumentError)


@pytest.mark.parametrize(
    ("arguments", "name"), [({"chunksize": "2"}, "chunksize"), ({"chunksize": 1.5}, "chunksize"), ({"timeout": "2"}, "timeout")]
)
def test_a_map_of_an_executor_names_the_argument_that_cannot_be_and_submits_nothing(arguments: dict[str, Any], name: str) -> None:
    with Executor(1) as executor:
        with pytest.raises(workq.ArgumentError, match=rf"^{name} "):
            executor.map(abs, [-1], **arguments)
        assert not executor.work_queue.statistics().queued


@pytest.mark.parametrize("number", [[], "TERM", 0, 1.5, None, True, signal.SIGKILL])
def test_a_shutdown_on_what_is_no_signal_is_refused(number: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(workq.ArgumentError, match=r"^signals "):
        workq.shutdown_on_signal(number)
    with pytest.raises(workq.ArgumentError, match=r"^controller "):
        workq.shutdown_on_signal(controller=number or "none")
    assert signal.getsignal(signal.SIGTERM) is before


def test_devices_are_no_bytes() -> None:
    with pytest.raises(workq.ArgumentError, match=r"^devices "):
        workq.Category("cards", devices=b"01")  # type: ignore[arg-type]


# ---------------------------------------------------------------- many names


@pytest.mark.slow
def test_units_that_each_have_a_name_of_their_own_leave_nothing_behind_in_application_and_worker(controller: workq.Controller) -> None:
    with workq.WorkMgr(1, controller=controller) as wq:
        units = [wq.options(name=f"unit {number}").queue(abs, -number) for number in range(MANY)]
        assert [unit.result() for unit in units] == list(range(MANY))
        assert (units[0].name, units[-1].name) == ("unit 0", f"unit {MANY - 1}")
        assert [wq.options(name=f"unit {number}").queue(abs, -number).result() for number in (0, MANY - 1)] == [0, MANY - 1]
        del units
        wq.sync()
        calls = {id(call) for worker in wq._row.workers for call in worker.known}
        assert len(calls) <= MOST_KNOWN + 100
        assert wq.queue(count_functions).result() <= MOST_KNOWN + 200


def test_a_view_that_its_queue_no_longer_remembers_is_detached_with_it(controller: workq.Controller) -> None:
    wq = workq.WorkMgr(1, controller=controller)
    views = [wq.options(name=f"unit {number}") for number in range(MOST_OPTIONS + 3)]
    with workq.WorkMgr.attach(wq.detach()):
        for view in (views[0], *views[-4:]):
            with pytest.raises(workq.QueueDetached):
                view.queue(abs, -1)


def count_functions() -> int:
    side: Any = context.side()
    return len(side.functions)
