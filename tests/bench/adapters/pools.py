"""Libraries with faces of their own."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Any

from tests.bench.adapters.library import Library, NotOfferedError
from tests.bench.calls import Call


class Pool(Library):
    """`multiprocessing.Pool`, with the system's usual start method."""

    pool: Any

    def prepare(self) -> None:
        import multiprocessing.pool

        self.context: Any = multiprocessing.get_context("fork")

    def start(self, workers: int) -> None:
        self.pool = self.context.Pool(workers)

    def submit(self, fn: Call, *args: Any) -> Any:
        return self.pool.apply_async(fn, args)

    def outcome(self, handle: Any, timeout_s: float | None = None) -> Any:
        return handle.get(timeout_s)

    def awaitable(self, handle: Any) -> Awaitable[Any]:
        raise NotOfferedError

    def map(self, fn: Call, items: Iterable[Any]) -> list[Any]:
        return list(self.pool.map(fn, items))

    def close(self) -> None:
        self.pool.terminate()
        self.pool.join()


class Mpire(Pool):
    """A faster `multiprocessing.Pool`."""

    def prepare(self) -> None:
        import mpire

        self.library = mpire

    def start(self, workers: int) -> None:
        self.pool = self.library.WorkerPool(n_jobs=workers, keep_alive=True)

    def close(self) -> None:
        self.pool.terminate()


class Joblib(Library):
    """A parallel loop: it has no handles. One ``Parallel`` is kept open, so that its workers are started once."""

    def prepare(self) -> None:
        import joblib

        self.library = joblib

    def start(self, workers: int) -> None:
        self.workers = workers
        self.parallel = self.library.Parallel(n_jobs=workers).__enter__()

    def submit(self, fn: Call, *args: Any) -> Any:
        raise NotOfferedError

    def call(self, fn: Call, *args: Any) -> Any:
        return self.parallel([self.library.delayed(fn)(*args)])[0]

    def gather(self, count: int, fn: Call, *args: Any) -> list[Any]:
        return list(self.parallel(self.library.delayed(fn)(*args) for _ in range(count)))

    def map(self, fn: Call, items: Iterable[Any]) -> list[Any]:
        return list(self.parallel(self.library.delayed(fn)(item) for item in items))

    def close(self) -> None:
        self.parallel.__exit__(None, None, None)
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True, kill_workers=True)
