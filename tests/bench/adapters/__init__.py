"""The libraries that are compared, each behind the same few methods. A library is imported when its adapter starts it."""

from __future__ import annotations

from collections.abc import Callable

from tests.bench.adapters.futures import Deadpool, ExecutorFork, ExecutorForkserver, Loky, Pebble
from tests.bench.adapters.library import Library, NotOfferedError
from tests.bench.adapters.ours import Workq
from tests.bench.adapters.pools import Joblib, Mpire, Pool

OURS = "workq"

LIBRARIES: dict[str, Callable[[], Library]] = {
    OURS: Workq,
    "ppe-fork": ExecutorFork,
    "ppe-forkserver": ExecutorForkserver,
    "pool": Pool,
    "loky": Loky,
    "pebble": Pebble,
    "mpire": Mpire,
    "deadpool": Deadpool,
    "joblib": Joblib,
}

TITLES = {
    "ppe-fork": "concurrent.futures.ProcessPoolExecutor, fork",
    "ppe-forkserver": "concurrent.futures.ProcessPoolExecutor, forkserver",
    "pool": "multiprocessing.Pool",
    "deadpool": "deadpool-executor",
}

__all__ = ["LIBRARIES", "OURS", "TITLES", "Library", "NotOfferedError"]
