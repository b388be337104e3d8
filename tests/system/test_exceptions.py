"""Exceptions of units, as they arrive; and units as futures of concurrent.futures and asyncio."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

import workq
from tests.support import DEADLINE_S, wait_readable
from tests.system import hooks
from workq.config import Settings

WAIT_S = DEADLINE_S


@pytest.fixture
def wq() -> Iterator[workq.WorkMgr]:
    queue = workq.WorkMgr(1, delete_timeout=0.05)
    yield queue
    queue.close()  # without `sync`, which raises what nobody has asked for


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A FIFO's path, for units, and a descriptor that becomes readable once one of them has written to it."""
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    reader = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    yield path, reader
    os.close(reader)


# ---------------------------------------------------------------- how they arrive


def test_an_exception_with_an_odd_constructor_arrives_whole(wq: workq.WorkMgr) -> None:
    """Type, attributes, text and notes; its cause and its traceback in the worker are shown with it."""
    unit = wq.queue(hooks.throw_odd)
    error = unit.exception(WAIT_S)
    assert isinstance(error, hooks.Odd)
    assert (str(error), error.code, error.reason, error.__notes__) == ("odd (7)", 7, "odd", ["a note"])
    remote = error.__cause__
    assert isinstance(remote, workq.RemoteTraceback)
    assert isinstance(remote.__cause__, KeyError)
    assert unit.worker is not None
    for text in ("KeyError: 'the cause'", "direct cause", "throw_odd", unit.label, unit.worker.name, str(unit.worker.pid)):
        assert text in str(remote)


def test_the_context_of_an_exception_arrives(wq: workq.WorkMgr) -> None:
    error = wq.queue(hooks.throw_in_context).exception(WAIT_S)
    assert isinstance(error, hooks.Odd)
    assert error.__cause__ is not None
    assert isinstance(error.__cause__.__context__, KeyError)
    assert "During handling" in str(error.__cause__)


def test_a_group_arrives_with_all_its_members(wq: workq.WorkMgr) -> None:
    caught = []
    try:
        wq.queue(hooks.throw_group).result(WAIT_S)
    except* hooks.Odd as group:
        caught += [error.code for part in group.exceptions for error in (part.exceptions if isinstance(part, ExceptionGroup) else [part])]
    except* ValueError as group:
        caught += [str(part) for part in group.exceptions]
    assert caught[:2] == [1, 3]
    assert len(caught) == 3


@pytest.mark.parametrize(
    ("function", "args", "type_name", "said"),
    [
        (hooks.throw_lock, (), "ValueError", "held"),
        (hooks.throw_group_with_lock, (), "ExceptionGroup", "several"),
        (hooks.throw_large, (2 << 20,), "ValueError", "xxx"),
        (hooks.throw, (BaseExceptionGroup, "both", [KeyboardInterrupt()]), "BaseExceptionGroup", "both"),
    ],
    ids=["lock", "group with lock", "large", "base group"],
)
def test_what_cannot_be_rebuilt_arrives_as_text(wq, function, args, type_name, said) -> None:  # type: ignore[no-untyped-def]
    unit = wq.queue(function, *args)
    with pytest.raises(workq.RemoteError, match=said) as caught:
        unit.result(WAIT_S)
    assert caught.value.type_name == type_name
    assert function.__name__ in caught.value.traceback
    assert unit.label in caught.value.traceback
    assert unit.worker is not None
    assert unit.worker.name in caught.value.traceback
    assert len(str(caught.value)) < 100_000
    assert wq.queue(abs, -1).result(WAIT_S) == 1


@pytest.mark.parametrize("how", ["raise", "exit", "recurse"])
def test_an_exception_whose_pickling_misbehaves_arrives_all_the_same(wq: workq.WorkMgr, how: str) -> None:
    """It is put together of its parts, without the hook."""
    error = wq.queue(hooks.throw_at_dump, how).exception(WAIT_S)
    assert isinstance(error, hooks.ErrorAtDump)
    assert error.args == (how,)


@pytest.mark.parametrize("how", ["raise", "exit", "recurse"])
def test_an_exception_without_a_readable_text_arrives_as_itself(wq: workq.WorkMgr, how: str) -> None:
    error = wq.queue(hooks.throw_unreadable, how).exception(WAIT_S)
    assert isinstance(error, hooks.Unreadable)
    assert error.how == how
    assert "throw_unreadable" in str(error.__cause__)


def test_an_exception_of_a_class_within_a_function_arrives(wq: workq.WorkMgr) -> None:
    error = wq.queue(hooks.throw_local).exception(WAIT_S)
    assert (type(error).__name__, str(error)) == ("Local", "of a function")


def test_a_chain_of_thousands_of_causes_arrives_cut(wq: workq.WorkMgr) -> None:
    error = wq.queue(hooks.throw_chain, 3000).exception(WAIT_S)
    assert isinstance(error, ValueError)
    assert error.args == (2999,)
    assert len(str(error.__cause__)) < 100_000


@pytest.mark.parametrize(
    "kind",
    [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, workq.ExternalInterrupt, BaseException],
    ids=lambda kind: kind.__name__,
)
def test_what_would_end_the_application_arrives_as_text_and_the_worker_lives(wq: workq.WorkMgr, kind: type[BaseException]) -> None:
    pid = wq.queue(hooks.pid).result(WAIT_S)
    unit = wq.queue(hooks.throw, kind, 5)
    with pytest.raises(workq.RemoteError, match=kind.__name__):
        unit.result(WAIT_S)
    assert (unit.state.value, wq.queue(hooks.pid).result(WAIT_S)) == ("failed", pid)


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration, MemoryError, TimeoutError, concurrent.futures.CancelledError])
def test_what_has_a_meaning_of_its_own_is_the_units_and_nothing_else(wq: workq.WorkMgr, kind: type[Exception]) -> None:
    """A TimeoutError that a unit raises is no wait that ran out, and a CancelledError no cancelled unit."""
    unit = wq.queue(hooks.throw, kind, "mine")
    error = unit.exception(WAIT_S)
    assert type(error) is kind
    assert error.args == ("mine",)
    assert (unit.state.value, unit.cancelled(), unit.done()) == ("failed", False, True)
    with pytest.raises(kind, match="mine"):
        unit.result(WAIT_S)


# ---------------------------------------------------------------- each unit its own


def test_each_unit_gets_an_exception_of_its_own(wq: workq.WorkMgr) -> None:
    units = [wq.queue(hooks.throw, kind, "x") for kind in (ValueError, ValueError, SystemExit, SystemExit)]
    units += [wq.queue(os._exit, 3), wq.queue(os._exit, 3)]
    errors = [unit.exception(WAIT_S) for unit in units]
    assert len(set(map(id, errors))) == 6
    assert [unit.exception() for unit in units] == errors  # and always the same


@pytest.mark.slow
def test_units_of_a_category_that_cannot_start_get_exceptions_of_their_own() -> None:
    with workq.Controller(settings=Settings(start_tries=1)) as controller:
        controller.add_category(workq.Category("broken", initializer=hooks.throw_odd))
        wq = workq.WorkMgr(1, category="broken", controller=controller)
        errors = [unit.exception(WAIT_S) for unit in [wq.queue(abs, -1) for _ in range(3)]]
        assert [type(error) for error in errors] == [workq.LaunchError] * 3
        assert len(set(map(id, errors))) == 3
        assert all("odd (7)" in str(error) for error in errors)


def test_threads_that_ask_at_once_all_get_the_exception(wq: workq.WorkMgr) -> None:
    for _ in range(100):
        unit = wq.queue(hooks.throw, ValueError, "x")
        while not unit.done():
            os.sched_yield()
        barrier, errors = threading.Barrier(4), []

        def ask(unit: workq.Unit = unit, barrier: threading.Barrier = barrier, errors: list = errors) -> None:  # type: ignore[type-arg]
            barrier.wait(WAIT_S)
            errors.append(unit.exception(WAIT_S))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join(WAIT_S) for thread in threads]
        assert [str(error) for error in errors] == ["x"] * 4
        assert {type(error) for error in errors} == {ValueError}


def test_a_halt_is_a_broken_process_pool_and_travels(wq: workq.WorkMgr) -> None:
    error = wq.queue(os._exit, 3).exception(WAIT_S)
    assert isinstance(error, BrokenProcessPool)
    assert isinstance(error, workq.WorkerHalted)
    twin = pickle.loads(pickle.dumps(error))
    assert (type(twin), twin.halt, str(twin)) == (workq.WorkerHalted, error.halt, str(error))


# ---------------------------------------------------------------- concurrent.futures


def test_wait_and_as_completed_of_concurrent_futures_take_units(wq: workq.WorkMgr, fifo: tuple[str, int]) -> None:
    ends = {
        "done": wq.queue(abs, -1),
        "failed": wq.queue(hooks.throw, ValueError, "x"),
        "lost": wq.queue(os._exit, 3),
        "cancelled": wq.queue(hooks.announce_and_nap, fifo[0]),
    }
    wait_readable(fifo[1])
    ends["cancelled"].cancel()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        others = [pool.submit(abs, -1)]
        assert concurrent.futures.wait([*ends.values(), *others], WAIT_S).not_done == set()
        assert set(concurrent.futures.as_completed([*ends.values(), *others], WAIT_S)) == {*ends.values(), *others}
    assert {name: unit.state.value for name, unit in ends.items()} == {name: name for name in ends}


def test_wait_returns_at_the_first_exception(wq: workq.WorkMgr, fifo: tuple[str, int]) -> None:
    with workq.WorkMgr(1, delete_timeout=0.05) as other:
        naps = other.queue(hooks.announce_and_nap, fifo[0])
        fails = wq.queue(hooks.throw, ValueError, "x")
        begun = time.monotonic()
        waited = concurrent.futures.wait([naps, fails], 2 * WAIT_S, concurrent.futures.FIRST_EXCEPTION)
        assert time.monotonic() < begun + WAIT_S  # or it has waited for all
        assert (waited.done, waited.not_done) == ({fails}, {naps})
        naps.cancel()


def test_exception_returns_or_raises_as_a_futures_does(wq: workq.WorkMgr, fifo: tuple[str, int]) -> None:
    assert wq.queue(abs, -1).exception(WAIT_S) is None
    assert isinstance(wq.queue(hooks.throw, ValueError).exception(WAIT_S), ValueError)
    assert isinstance(wq.options(timeout=0.01).queue(hooks.nap).exception(WAIT_S), workq.UnitTimeout)
    unit = wq.queue(hooks.announce_and_nap, fifo[0])
    wait_readable(fifo[1])
    with pytest.raises(TimeoutError, match=unit.label):
        unit.exception(0)
    unit.cancel()
    with pytest.raises(concurrent.futures.CancelledError, match=unit.label):
        unit.exception(WAIT_S)


# ---------------------------------------------------------------- asyncio


def test_a_unit_can_be_awaited(wq: workq.WorkMgr) -> None:
    async def main() -> None:
        assert await wq.queue(abs, -1) == 1
        assert await asyncio.gather(*(wq.queue(abs, -number) for number in range(100))) == list(range(100))
        with pytest.raises(hooks.Odd, match="odd"):
            await wq.queue(hooks.throw_odd)
        with pytest.raises(workq.WorkerHalted):
            await wq.queue(os._exit, 3)
        with pytest.raises(workq.RemoteError):
            await wq.queue(hooks.throw, SystemExit, 3)
        assert await asyncio.wrap_future(wq.queue(abs, -2)) == 2

    asyncio.run(asyncio.wait_for(main(), WAIT_S))


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration, TimeoutError, concurrent.futures.CancelledError])
def test_an_await_ends_whatever_the_unit_raised(wq: workq.WorkMgr, kind: type[Exception]) -> None:
    """A StopIteration cannot be raised into a coroutine, so a RuntimeError stands for it, as Python itself does."""

    async def main() -> BaseException:
        try:
            await wq.queue(hooks.throw, kind, "mine")
        except BaseException as error:
            return error
        raise AssertionError("nothing was raised")

    error = asyncio.run(asyncio.wait_for(main(), WAIT_S))
    assert "mine" in f"{error} {error.__cause__}"


def test_the_end_of_an_awaiting_task_ends_the_unit(wq: workq.WorkMgr, fifo: tuple[str, int]) -> None:
    async def main() -> workq.Unit[None]:
        unit = wq.queue(hooks.announce_and_nap, fifo[0])

        async def wait() -> None:
            await unit

        task = asyncio.create_task(wait())
        begun = asyncio.Event()
        asyncio.get_running_loop().add_reader(fifo[1], begun.set)
        await begun.wait()
        asyncio.get_running_loop().remove_reader(fifo[1])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return unit

    unit = asyncio.run(asyncio.wait_for(main(), WAIT_S))
    with pytest.raises(workq.UnitCancelled):
        unit.result(WAIT_S)
    assert wq.queue(abs, -1).result(WAIT_S) == 1


def test_a_cancelled_unit_ends_the_task_that_awaits_it(wq: workq.WorkMgr, fifo: tuple[str, int]) -> None:
    async def main() -> None:
        unit = wq.queue(hooks.announce_and_nap, fifo[0])
        task = asyncio.ensure_future(asyncio.wrap_future(unit))
        await asyncio.get_running_loop().run_in_executor(None, wait_readable, fifo[1])
        unit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(main(), WAIT_S))
