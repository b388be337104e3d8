"""num_workers=0: the same outcomes as with workers, in the process that waits."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import workq
from tests.support import DEADLINE_S, application
from workq.errors import ArgumentError


def fail(text: str) -> None:
    raise LookupError(text)


def say(text: str) -> int:
    print(text)
    return os.getpid()


def unreadable() -> Any:
    return threading.Lock()


def leave() -> None:
    raise SystemExit(3)


def fail_until(path: str, times: int) -> int:
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) < times:
        raise LookupError
    return os.path.getsize(path)


def change(numbers: list[int]) -> list[int]:
    numbers.append(1)
    return numbers


@pytest.fixture
def wq() -> Iterator[workq.WorkMgr]:
    with workq.Controller() as controller:
        queue = workq.WorkMgr(0, name="inline", controller=controller)
        yield queue
        assert not controller.workers()
        queue.close()


def outcome(unit: Any) -> tuple[str, str, str]:
    error = unit.exception(DEADLINE_S)
    return unit.state.value, type(error).__name__, str(error) if error else repr(unit.result())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "arguments"),
    [(pow, (2, 8)), (fail, ("no",)), (leave, ()), (change, ([0],)), (int, ("x",)), (str.upper, ("a",)), (lambda n: n + 1, (1,))],
)
def test_a_unit_ends_as_it_would_in_a_worker(function: Any, arguments: Any) -> None:
    with workq.Controller() as controller:
        queues = [workq.WorkMgr(number, name="same", controller=controller) for number in (0, 1)]
        units = [queue.queue(function, *arguments) for queue in queues]
        here, there = (outcome(unit) for unit in units)
        assert here == there
        if units[0].exception() is not None:
            assert type(units[0].exception().__cause__) is type(units[1].exception().__cause__) is workq.RemoteTraceback
        for queue in queues:
            queue.close()


def test_units_run_in_whoever_waits_and_not_before(wq: workq.WorkMgr) -> None:
    units = [wq.queue(say, f"line {n}") for n in range(3)]
    assert [unit.state.value for unit in units] == ["queued"] * 3
    assert units[2].result() == os.getpid()
    assert [unit.state.value for unit in units] == ["done"] * 3
    assert [unit.output for unit in units] == ["line 0\n", "line 1\n", "line 2\n"]
    assert wq.num_workers == 0


@pytest.mark.parametrize("wait", ["sync", "result", "wait_one", "as_completed", "map", "futures", "await", "exit"])
def test_every_way_to_wait_runs_the_units(wait: str, wq: workq.WorkMgr) -> None:
    unit = wq.queue(abs, -1)

    async def wait_for_it() -> int:
        return await unit

    match wait:
        case "sync":
            assert wq.sync(DEADLINE_S).done == 1
        case "result":
            assert unit.result(DEADLINE_S) == 1
        case "wait_one":
            assert wq.wait_one(DEADLINE_S) is unit
        case "as_completed":
            assert list(wq.as_completed(DEADLINE_S)) == [unit]
        case "map":
            assert list(wq.map(abs, [-2, -3])) == [2, 3]
        case "futures":
            assert concurrent.futures.wait([unit], DEADLINE_S).done == {unit}
        case "await":
            assert asyncio.run(wait_for_it()) == 1
        case "exit":
            with wq:
                pass
    assert unit.done()
    assert unit.result() == 1


def test_who_waits_for_the_first_exception_is_told_of_it(wq: workq.WorkMgr) -> None:
    told: list[bool] = []
    waiter = concurrent.futures._base._AllCompletedWaiter(2, stop_on_exception=True)  # type: ignore[attr-defined]
    units = [wq.queue(int, "no number"), wq.queue(abs, -1)]
    for unit in units:
        unit._waiters.append(waiter)
    units[0].add_done_callback(lambda unit: told.append(waiter.event.is_set()))
    with pytest.raises(workq.WorkErrors):
        wq.sync(DEADLINE_S)
    assert told == [True]


def test_a_waiter_that_comes_when_a_unit_has_ended_is_not_told_of_it_again(wq: workq.WorkMgr) -> None:
    first, late = concurrent.futures._base._FirstCompletedWaiter(), concurrent.futures._base._FirstCompletedWaiter()  # type: ignore[attr-defined]
    unit = wq.queue(abs, -1)
    unit._waiters.append(first)
    first.event.set = functools.partial(unit._waiters.append, late)  # it comes in the moment that the first is told
    wq.sync(DEADLINE_S)
    assert (first.finished_futures, late.finished_futures) == ([unit], [])


def test_output_is_kept_per_unit_and_written_when_somebody_waits(wq: workq.WorkMgr, capsys: pytest.CaptureFixture[str]) -> None:
    units = [wq.queue(say, f"line {n}") for n in range(2)]
    assert capsys.readouterr().out == ""
    wq.sync()
    assert capsys.readouterr().out == "line 0\nline 1\n"
    assert [unit.output for unit in units] == ["line 0\n", "line 1\n"]


def test_a_failure_is_told_by_sync_with_its_siblings_run(wq: workq.WorkMgr) -> None:
    wq.queue(fail, "first")
    last = wq.queue(abs, -1)
    with pytest.raises(workq.WorkErrors) as caught:
        wq.sync()
    assert [type(error) for error in caught.value.exceptions] == [LookupError]
    assert last.result() == 1
    assert (wq.statistics().done, wq.statistics().failed) == (1, 1)


def test_retries_bring_a_unit_back(wq: workq.WorkMgr, tmp_path: Any) -> None:
    unit = wq.options(retries=5).queue(fail_until, str(tmp_path / "tries"), 3)
    assert unit.result() == 3
    assert [attempt.outcome for attempt in unit.attempts] == ["failed", "failed", "done"]


def test_a_result_that_cannot_be_sent_fails_here_too(wq: workq.WorkMgr) -> None:
    assert isinstance(wq.queue(unreadable).exception(), workq.ResultError)


def test_higher_priorities_go_first(wq: workq.WorkMgr) -> None:
    order = [wq.options(priority=priority).queue(abs, priority) for priority in (0, -1, 5, 3)]
    assert [unit.call.options.priority for unit in wq.as_completed()] == [5, 3, 0, -1]
    assert all(unit.done() for unit in order)


def test_a_unit_that_has_not_begun_can_be_cancelled(wq: workq.WorkMgr) -> None:
    unit, other = wq.queue(fail, "must not run"), wq.queue(abs, -1)
    called = []
    unit.add_done_callback(called.append)
    assert unit.cancel()
    assert unit.cancelled()
    assert called == [unit]
    with pytest.raises(workq.UnitCancelled):
        unit.result()
    assert wq.sync().cancelled == 1
    assert other.result() == 1


def test_close_cancels_what_has_not_begun(wq: workq.WorkMgr) -> None:
    units = [wq.queue(abs, -1) for _ in range(3)]
    wq.close()
    assert all(unit.cancelled() for unit in units)
    with pytest.raises(workq.QueueClosed):
        wq.queue(abs, 1)


def test_a_unit_may_wait_for_units_of_its_own_queue_and_is_told_where_it_waits_for_itself() -> None:
    ended = application(
        """
        import workq

        def outer(n):
            return 1 + (wq.queue(outer, n - 1).result() if n else 0)

        def itself():
            return units[0].result()

        if __name__ == "__main__":
            wq, units = workq.WorkMgr(0), []
            print(wq.queue(outer, 50).result())
            units.append(wq.queue(itself))
            print(type(units[0].exception()).__name__)
            print(wq.queue(abs, -1).result())
        """
    )
    assert ended.stdout.split() == ["51", "WaitError", "1"], ended.stderr


def test_threads_that_wait_run_one_unit_at_a_time(wq: workq.WorkMgr) -> None:
    units = [wq.queue(say, str(n)) for n in range(200)]
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda part=part: results.extend(unit.result(DEADLINE_S) for unit in part))
        for part in (units[::2], units[1::2])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert len(results) == 200
    assert [unit.output for unit in units] == [f"{n}\n" for n in range(200)]


def test_a_timeout_of_a_wait_is_looked_at_between_units(wq: workq.WorkMgr) -> None:
    unit = wq.queue(abs, -1)
    with pytest.raises(TimeoutError):
        unit.result(0)
    assert unit.result() == 1
    with pytest.raises(ArgumentError, match="timeout"):
        unit.result("soon")  # type: ignore[arg-type]


def test_a_keyboard_interrupt_reaches_the_caller_ends_the_unit_and_drops_what_waits() -> None:
    ended = application(
        """
        import signal, os, workq

        def interrupted():
            os.kill(os.getpid(), signal.SIGINT)
            while True:
                pass

        wq = workq.WorkMgr(0)
        unit = wq.queue(interrupted)
        after = wq.queue(abs, -1)
        try:
            wq.sync()
        except KeyboardInterrupt:
            print("caller", type(unit.exception()).__name__, after.cancelled(), wq.queue(abs, -1).result())
        """
    )
    assert ended.stdout.strip() == "caller RemoteError True 1", ended.stderr
