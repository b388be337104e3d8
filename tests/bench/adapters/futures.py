"""Libraries whose handles are futures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.bench.adapters.library import Library
from tests.bench.calls import Call


class Executor(Library):
    """A `concurrent.futures.Executor` of some kind."""

    pool: Any

    def submit(self, fn: Call, *args: Any) -> Any:
        return self.pool.submit(fn, *args)

    def map(self, fn: Call, items: Iterable[Any]) -> list[Any]:
        return list(self.pool.map(fn, items))

    def close(self) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)


class ExecutorFork(Executor):
    """The one of the standard library."""

    method = "fork"

    def prepare(self) -> None:
        import concurrent.futures.process
        import multiprocessing

        self.context: Any = multiprocessing.get_context(self.method)
        self.kind = concurrent.futures.process.ProcessPoolExecutor

    def start(self, workers: int) -> None:
        self.pool = self.kind(workers, mp_context=self.context)


class ExecutorForkserver(ExecutorFork):
    """The same, whose workers are forked by a server process."""

    method = "forkserver"

    def prepare(self) -> None:
        super().prepare()
        import multiprocessing.popen_forkserver  # noqa: F401  is loaded at the first start, which is what is measured


class Loky(Executor):
    """The executor that joblib uses."""

    def prepare(self) -> None:
        import loky

        self.library = loky

    def start(self, workers: int) -> None:
        self.pool = self.library.ProcessPoolExecutor(max_workers=workers)

    def close(self) -> None:
        self.pool.shutdown(wait=True, kill_workers=True)


class Pebble(Library):
    """A pool whose running tasks can be cancelled, by a kill."""

    def prepare(self) -> None:
        import pebble

        self.library = pebble

    def start(self, workers: int) -> None:
        self.pool = self.library.ProcessPool(max_workers=workers)

    def submit(self, fn: Call, *args: Any) -> Any:
        return self.pool.schedule(fn, args=args)

    def cancel(self, handle: Any) -> None:
        handle.cancel()

    def map(self, fn: Call, items: Iterable[Any]) -> list[Any]:
        return list(self.pool.map(fn, items).result())

    def close(self) -> None:
        self.pool.stop()
        self.pool.join()


class Deadpool(Executor):
    """An executor whose workers may die, and whose running tasks can be killed."""

    def prepare(self) -> None:
        import deadpool

        self.library = deadpool

    def start(self, workers: int) -> None:
        self.pool = self.library.Deadpool(max_workers=workers)

    def cancel(self, handle: Any) -> None:
        handle.cancel_and_kill_if_running()

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
