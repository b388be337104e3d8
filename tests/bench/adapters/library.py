"""The face that all libraries get. What a library has not is not imitated: the method raises, and the table shows a dash."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any

from tests.bench.calls import Call, noop, spin


class NotOfferedError(Exception):
    """The library has nothing of the kind."""


class Library:
    """A pool of worker processes. The methods here suit those whose handles are futures; others override them."""

    def prepare(self) -> None:
        """Import the library: what a program pays once, before the clock of a start runs."""

    def start(self, workers: int) -> None:
        """Make the pool. Whether that starts processes is the library's own business."""
        raise NotImplementedError

    def submit(self, fn: Call, *args: Any) -> Any:
        """Queue one call and return its handle."""
        raise NotImplementedError

    def outcome(self, handle: Any, timeout_s: float | None = None) -> Any:
        """Wait for a handle and return the result."""
        return handle.result(timeout_s)

    def awaitable(self, handle: Any) -> Awaitable[Any]:
        """Return what a coroutine can await."""
        return asyncio.wrap_future(handle)

    def cancel(self, handle: Any) -> None:
        """End a unit that runs."""
        raise NotOfferedError

    def share(self, value: Any) -> Any:
        """Return what to give to many units in place of a large value: itself, if the library has nothing better."""
        return value

    def call(self, fn: Call, *args: Any) -> Any:
        """One call, there and back."""
        return self.outcome(self.submit(fn, *args))

    def gather(self, count: int, fn: Call, *args: Any) -> list[Any]:
        """Queue the same call many times, one by one, and collect all results."""
        handles = [self.submit(fn, *args) for _ in range(count)]
        return [self.outcome(handle) for handle in handles]

    def map(self, fn: Call, items: Iterable[Any]) -> list[Any]:
        """Apply a function to all items, with the library's defaults."""
        raise NotImplementedError

    def close(self) -> None:
        """End the pool."""
        raise NotImplementedError

    def start_warm(self, workers: int, loops_per_ms: int) -> None:
        """Make the pool, and have all its workers run something before anything is measured."""
        self.prepare()
        self.start(workers)
        self.gather(200, noop)
        self.gather(4 * workers, spin, 5 * loops_per_ms)
