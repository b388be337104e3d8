"""A work queue in asyncio, in uvloop and in anyio: nothing blocks the loop, nothing needs a thread for each wait."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvloop

import workq
from tests.support import DEADLINE_S, wait_until
from workq.courtesy import AT_ONCE

pytestmark = pytest.mark.slow


def run_in_asyncio(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(main())


def run_in_uvloop(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def run_in_anyio(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return anyio.run(main)


def run_in_anyio_on_uvloop(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return anyio.run(main, backend_options={"use_uvloop": True})


every_loop = pytest.mark.parametrize("run", [run_in_asyncio, run_in_uvloop, run_in_anyio, run_in_anyio_on_uvloop])
both_ends = pytest.mark.parametrize("run", [run_in_asyncio, run_in_anyio_on_uvloop])


@pytest.fixture(scope="module", autouse=True)
def _uvloop_has_run() -> None:
    """From its first loop on uvloop keeps a pipe, for as long as the process lives."""
    run_in_uvloop(lambda: asyncio.sleep(0))


def wait_for_line(fifo: str) -> str:
    with open(fifo) as file:
        return file.readline()


def fail(n: int) -> None:
    raise LookupError(n)


@pytest.fixture
def fifo(tmp_path: Path) -> str:
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    return path


def release(fifo: str) -> None:
    with open(fifo, "w") as file:
        file.write("go\n")


class Heart:
    """Beats in the loop while it is entered: a loop that is held up has no beats."""

    async def __aenter__(self) -> Heart:
        self.beats = 0
        self._task = asyncio.ensure_future(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(0.005)
            self.beats += 1


@every_loop
def test_units_are_awaited_one_by_one_and_together(run: Any) -> None:
    async def main() -> list[int]:
        async with workq.WorkMgr(2) as wq:
            first = await wq.queue(abs, -1)
            return [first, *await asyncio.gather(*(wq.queue(abs, -n) for n in range(200)))]

    assert run(main) == [1, *range(200)]


@both_ends
def test_completed_yields_each_unit_once_as_it_ends_also_those_queued_meanwhile(run: Any, fifo: str) -> None:
    async def main() -> list[Any]:
        seen = []
        async with workq.WorkMgr(2) as wq:
            slow = wq.queue(wait_for_line, fifo)
            quick = [wq.queue(abs, -n) for n in range(50)]
            async for unit in wq.completed():
                seen.append(unit)
                if len(seen) == 50:
                    assert slow not in seen
                    quick.append(wq.queue(abs, -50))
                if len(seen) == 51:
                    await asyncio.to_thread(release, fifo)
            assert set(seen) == {slow, *quick}
            assert seen[-1] is slow
            return [len(seen), [unit async for unit in wq.completed()]]

    assert run(main) == [52, []]


@both_ends
def test_leaving_the_block_waits_for_its_units_and_raises_what_nobody_has_asked_for(run: Any) -> None:
    async def main() -> Any:
        with pytest.raises(workq.WorkErrors) as caught:
            async with workq.WorkMgr(2) as wq:
                for n in range(3):
                    wq.queue(fail, n)
        with pytest.raises(workq.QueueClosed):
            wq.queue(abs, 1)
        return [error.args for error in caught.value.exceptions]

    assert run(main) == [(0,), (1,), (2,)]


@every_loop
def test_a_cancelled_task_ends_its_running_unit(run: Any, fifo: str) -> None:
    async def main() -> bool:
        async with workq.WorkMgr(1) as wq:
            unit = wq.queue(wait_for_line, fifo)
            task = asyncio.ensure_future(result_of(unit))
            await asyncio.to_thread(wait_until, unit.running)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await wq.finished(DEADLINE_S)
            return unit.cancelled()

    assert run(main) is True


async def result_of(unit: workq.Unit[Any]) -> Any:
    return await unit


@both_ends
def test_a_unit_that_others_cancel_raises_unit_cancelled_in_the_coroutine_that_awaits_it(run: Any, fifo: str) -> None:
    async def main() -> str:
        async with workq.WorkMgr(1) as wq:
            unit = wq.queue(wait_for_line, fifo)
            task = asyncio.ensure_future(result_of(unit))
            await asyncio.to_thread(wait_until, unit.running)
            unit.cancel()
            with pytest.raises(workq.UnitCancelled, match="was cancelled") as caught:
                await task
            assert not task.cancelled()
            return str(caught.value)

    assert "wait_for_line" in run(main)


@both_ends
def test_a_task_group_says_that_its_units_were_cleared(run: Any, fifo: str) -> None:
    async def main() -> set[type[BaseException]]:
        async with workq.WorkMgr(2) as wq:
            units = [wq.queue(wait_for_line, fifo) for _ in range(2)]
            with pytest.raises(ExceptionGroup) as caught:
                async with asyncio.TaskGroup() as group:
                    for unit in units:
                        group.create_task(result_of(unit))
                    await asyncio.sleep(0)
                    await asyncio.to_thread(wq.clear, 0)
            return {type(error) for error in caught.value.exceptions}

    assert run(main) == {workq.UnitCancelled}


@every_loop
def test_an_anyio_cancel_scope_ends_its_unit(run: Any, fifo: str) -> None:
    async def main() -> bool:
        async with workq.WorkMgr(1) as wq:
            unit = wq.queue(wait_for_line, fifo)
            with anyio.move_on_after(0.05) as scope:
                await unit
            await wq.finished(DEADLINE_S)
            return scope.cancelled_caught and unit.cancelled()

    assert run(main) is True


@both_ends
def test_neither_waiting_nor_closing_holds_up_the_loop(run: Any, fifo: str) -> None:
    async def main() -> None:
        wq = workq.WorkMgr(1, delete_timeout=0.3)
        unit = wq.queue(deaf)
        await asyncio.to_thread(wait_until, unit.running)
        async with Heart() as heart:
            with pytest.raises(TimeoutError, match="has not ended its units after 0"):
                await wq.finished(timeout=0.2)
        assert heart.beats >= 1
        async with Heart() as heart:
            with pytest.raises(TimeoutError, match="no unit of queue"):
                await anext(aiter(wq.completed(timeout=0.2)))
        assert heart.beats >= 1
        async with Heart() as heart:
            await wq.aclose()  # the unit swallows interrupts, and is killed
        assert heart.beats >= 1
        assert unit.cancelled()

    run(main)


def deaf() -> None:
    while True:
        try:
            threading.Event().wait(60)
        except BaseException:
            pass


def test_a_thousand_awaits_need_no_thread(fifo: str) -> None:
    async def main() -> None:
        async with workq.WorkMgr(1) as wq:
            first = wq.queue(wait_for_line, fifo)
            tasks = [asyncio.ensure_future(result_of(wq.queue(abs, -n))) for n in range(1000)]
            waiters = [asyncio.ensure_future(drained(wq)) for _ in range(3)]
            await asyncio.sleep(0)
            assert sum(thread.name.startswith("workq") for thread in threading.enumerate()) <= 2
            assert not any(thread.name.startswith("asyncio") for thread in threading.enumerate())
            await asyncio.to_thread(release, fifo)
            assert await asyncio.gather(*tasks) == list(range(1000))
            await asyncio.gather(*waiters)
            assert await first == "go\n"

    asyncio.run(main())


async def drained(wq: workq.WorkMgr) -> None:
    await wq.finished()


def test_callbacks_run_in_the_loops_thread_and_output_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> list[bool]:
        here = threading.get_ident()
        seen: list[bool] = []
        async with workq.WorkMgr(1) as wq:
            wq.queue_callback(print, lambda unit, text: seen.append(threading.get_ident() == here), "from the unit")
            await wq.finished()
        return seen

    assert asyncio.run(main()) == [True]
    assert capsys.readouterr().out == "from the unit\n"


class Turns:
    """Counts what happens between two turns of a coroutine that does nothing but give way."""

    def __init__(self) -> None:
        self.since = self.most = 0

    def note(self, *_: object) -> None:
        self.since += 1
        self.most = max(self.most, self.since)

    async def give_way(self) -> None:
        while True:
            self.since = 0
            await asyncio.sleep(0)


async def await_each(wq: workq.WorkMgr, turns: Turns) -> None:
    units = [wq.queue(abs, n) for n in range(1000)]
    concurrent.futures.wait(units, DEADLINE_S)
    for unit in units:
        await unit
        turns.note()


async def take_completed(wq: workq.WorkMgr, turns: Turns) -> None:
    concurrent.futures.wait([wq.queue(abs, n) for n in range(1000)], DEADLINE_S)
    async for _ in wq.completed():
        turns.note()


async def have_callbacks_made(wq: workq.WorkMgr, turns: Turns) -> None:
    concurrent.futures.wait([wq.queue_callback(abs, turns.note, n) for n in range(1000)], DEADLINE_S)
    await wq.finished()


async def take_completed_with_callbacks(wq: workq.WorkMgr, turns: Turns) -> None:
    concurrent.futures.wait([wq.queue_callback(abs, turns.note, n) for n in range(1000)], DEADLINE_S)
    assert [unit.result() async for unit in wq.completed()] == list(range(1000))


@both_ends
@pytest.mark.parametrize("work", [await_each, take_completed, have_callbacks_made, take_completed_with_callbacks])
def test_a_thousand_units_that_have_ended_are_given_to_a_loop_a_hundred_at_a_time(run: Any, work: Any) -> None:
    turns = Turns()

    async def main() -> None:
        async with workq.WorkMgr(1) as wq:
            other = asyncio.ensure_future(turns.give_way())
            await asyncio.sleep(0)
            await work(wq, turns)
            other.cancel()

    run(main)
    assert 0 < turns.most <= AT_ONCE


def test_a_cancelled_completed_loses_no_unit() -> None:
    async def main() -> set[Any]:
        seen = set()

        async def take() -> None:
            async for unit in wq.completed():
                seen.add(unit)

        async with workq.WorkMgr(1) as wq:
            units = [wq.queue_callback(abs, lambda unit, number: None, n) for n in range(250)]
            concurrent.futures.wait(units, DEADLINE_S)
            task = asyncio.ensure_future(take())
            await asyncio.sleep(0)  # it has begun, and gives way between the callbacks
            task.cancel()
            await asyncio.wait([task])
            await take()
        assert len(units) == 250
        return set(units) - seen

    assert asyncio.run(main()) == set()


def test_an_exception_in_the_block_ends_what_runs_without_waiting_for_it(fifo: str) -> None:
    units: list[workq.Unit[Any]] = []

    async def main() -> None:
        async with workq.WorkMgr(1) as wq:
            units.append(wq.queue(wait_for_line, fifo))
            await asyncio.to_thread(wait_until, units[0].running)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())
    assert units[0].cancelled()


def test_the_controllers_end_ends_the_wait(fifo: str) -> None:
    async def main() -> None:
        controller = workq.Controller()
        wq = workq.WorkMgr(1, controller=controller)
        wq.queue(wait_for_line, fifo)
        waiter = asyncio.ensure_future(drained(wq))
        await asyncio.sleep(0)
        await asyncio.to_thread(controller.close)
        await waiter

    asyncio.run(main())


def test_without_workers_units_run_in_the_loop() -> None:
    async def main() -> list[int]:
        async with workq.WorkMgr(0) as wq:
            for n in range(3):
                wq.queue(abs, -n)
            wq.queue(abs, -9)
            return [await unit async for unit in wq.completed()]

    assert asyncio.run(main()) == [0, 1, 2, 9]


def test_a_unit_may_use_asyncio_with_a_queue_of_its_own() -> None:
    with workq.WorkMgr(1) as wq:
        assert wq.queue(use_asyncio).result(DEADLINE_S) == [0, 1, 2]


def use_asyncio() -> list[int]:
    async def main() -> list[int]:
        async with workq.WorkMgr(1) as wq:
            for n in range(3):
                wq.queue(abs, -n)
            return sorted([await unit async for unit in wq.completed()])

    return asyncio.run(main())


def test_where_no_loop_of_asyncio_runs_the_error_says_what_to_do(fifo: str) -> None:
    with workq.WorkMgr(1) as wq:
        unit = wq.queue(wait_for_line, fifo)
        with pytest.raises(workq.WorkqError, match=r"trio\.to_thread"):
            next(unit.__await__())
        unit.cancel()
