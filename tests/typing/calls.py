"""Calls as users write them. Read by type checkers, and never run: lines that end in `# error` must be refused, all others must pass."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future
from typing import assert_type

import workq


def area(width: int, height: int = 1) -> int:
    return width * height


def shout(text: str, *, times: int) -> str:
    return text * times


def explode() -> None: ...


def told(unit: workq.Unit[int], width: int, height: int = 1) -> None: ...


def queued(wq: workq.WorkMgr) -> None:
    unit = wq.queue(area, 2, height=3)
    assert_type(unit, workq.Unit[int])
    assert_type(unit.result(), int)
    assert_type(unit.result(timeout=1), int)
    assert_type(wq.queue(shout, "a", times=2).result(), str)
    assert_type(wq.queue(explode), workq.Unit[None])
    assert_type(wq.queue(lambda: [1]).result(), list[int])
    assert_type(wq.queue(len, "four").result(), int)
    assert_type(wq.queue_callback(area, told, 2, height=3), workq.Unit[int])
    wq.queue(area, "2")  # error
    wq.queue(area)  # error
    wq.queue(area, 2, depth=3)  # error
    wq.queue(area, 2, 3, 4)  # error
    wq.queue(shout, "a")  # error
    wq.queue(shout, "a", times="2")  # error
    wq.queue(area(2, 3))  # error
    wq.queue_callback(area, told, "2")  # error
    text: str = wq.queue(area, 2).result()  # error
    print(text)


def with_options(wq: workq.WorkMgr) -> None:
    quick = wq.options(timeout=5, retries=2, name="area")
    assert_type(quick.queue(area, 2).result(), int)
    quick.queue(area, "2")  # error
    wq.options(timeout="5")  # error
    wq.options(time_out=5)  # error


def mapped(wq: workq.WorkMgr) -> None:
    for value in wq.map(area, [1, 2], [3, 4]):
        assert_type(value, int)
    assert_type(list(wq.options(priority=1).map(shout, ["a"])), list[str])
    wq.map(area, 5)  # error


def submitted(executor: workq.Executor) -> None:
    future = executor.submit(area, 2, height=3)
    assert_type(future, workq.Unit[int])
    plain: Future[int] = future
    assert_type(plain.result(), int)
    assert_type(executor.map(area, [1], timeout=3, chunksize=2), Iterator[int])
    executor.submit(area, "2")  # error
    executor.submit(area, 2, depth=3)  # error
    other: Future[str] = executor.submit(area, 2)  # error
    print(other)


async def awaited(wq: workq.WorkMgr) -> None:
    assert_type(await wq.queue(area, 2), int)
    first, second = await asyncio.gather(wq.queue(area, 2), wq.queue(shout, "a", times=2))
    assert_type(first, int)
    assert_type(second, str)
    async with workq.WorkMgr(2) as inner:
        assert_type(inner, workq.WorkMgr)
        async for unit in inner.completed():
            print(unit.name)
    await wq.queue(area, "2")  # error


def in_a_block() -> None:
    with workq.WorkMgr(2) as wq, workq.Executor(2) as executor:
        assert_type(wq, workq.WorkMgr)
        assert_type(executor, workq.Executor)
    workq.WorkMgr("2")  # error
    workq.Executor(initializer=5)  # error
