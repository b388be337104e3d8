"""workq: an in-process work queue that runs calls in worker processes, and that no call can break.

The names below are loaded on first use: a worker process imports this package too, and must not load the manager.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from workq.adapters.executor import Executor as Executor
    from workq.attempt import Attempt as Attempt
    from workq.category import Category as Category
    from workq.config import Settings as Settings
    from workq.context import UnitInfo as UnitInfo
    from workq.context import WorkerInfo as WorkerInfo
    from workq.context import blocking as blocking
    from workq.context import current_unit as current_unit
    from workq.context import current_worker as current_worker
    from workq.context import flush as flush
    from workq.context import is_worker_job as is_worker_job
    from workq.context import progress as progress
    from workq.controller import Controller as Controller
    from workq.controller import locks as locks
    from workq.controller import metrics as metrics
    from workq.controller import workers as workers
    from workq.controller.draining import Shutdown as Shutdown
    from workq.controller.locking import LockLeak as LockLeak
    from workq.controller.pools import CategoryTable as CategoryTable
    from workq.controller.pools import QueueLimits as QueueLimits
    from workq.controller.recurring import Recurring as Recurring
    from workq.controller.recurring import Run as Run
    from workq.core.states import UnitState as UnitState
    from workq.core.states import WorkerState as WorkerState
    from workq.errors import ArgumentError as ArgumentError
    from workq.errors import ArgumentTypeError as ArgumentTypeError
    from workq.errors import CategoryError as CategoryError
    from workq.errors import ForkedError as ForkedError
    from workq.errors import Halt as Halt
    from workq.errors import LaunchError as LaunchError
    from workq.errors import LockError as LockError
    from workq.errors import PicklingError as PicklingError
    from workq.errors import QueueClosed as QueueClosed
    from workq.errors import QueueDetached as QueueDetached
    from workq.errors import QueueFull as QueueFull
    from workq.errors import RemoteError as RemoteError
    from workq.errors import RemoteTraceback as RemoteTraceback
    from workq.errors import ResultError as ResultError
    from workq.errors import SessionLost as SessionLost
    from workq.errors import SetupFailed as SetupFailed
    from workq.errors import TokenError as TokenError
    from workq.errors import TooLate as TooLate
    from workq.errors import UnitCancelled as UnitCancelled
    from workq.errors import UnitCpuExceeded as UnitCpuExceeded
    from workq.errors import UnitFailed as UnitFailed
    from workq.errors import UnitMemoryExceeded as UnitMemoryExceeded
    from workq.errors import UnitPoisoned as UnitPoisoned
    from workq.errors import UnitTimeout as UnitTimeout
    from workq.errors import WaitError as WaitError
    from workq.errors import WorkerHalted as WorkerHalted
    from workq.errors import WorkErrors as WorkErrors
    from workq.errors import WorkqError as WorkqError
    from workq.face.callbacks import EXIT as EXIT
    from workq.face.mapping import Results as Results
    from workq.face.session import Session as Session
    from workq.face.session import SessionView as SessionView
    from workq.face.view import View as View
    from workq.given.cpus import usable_cpus as usable_cpus
    from workq.interruption import ExternalInterrupt as ExternalInterrupt
    from workq.locking import Event as Event
    from workq.locking import Lock as Lock
    from workq.manager import WorkMgr as WorkMgr
    from workq.manager import categories as categories
    from workq.retry import Retry as Retry
    from workq.schedule import Cron as Cron
    from workq.seeing.statistics import Histogram as Histogram
    from workq.seeing.statistics import Metrics as Metrics
    from workq.seeing.statistics import QueueStatistics as QueueStatistics
    from workq.seeing.statistics import WorkerRow as WorkerRow
    from workq.seeing.statistics import WorkerTable as WorkerTable
    from workq.sharing import shared as shared
    from workq.signals import SignalShutdown as SignalShutdown
    from workq.signals import shutdown_on_signal as shutdown_on_signal
    from workq.unit import Unit as Unit

__version__ = "0.1.0"

_HOMES = {
    "workq.adapters.executor": ("Executor",),
    "workq.face.mapping": ("Results",),
    "workq.seeing.statistics": (
        "Histogram",
        "Metrics",
        "QueueStatistics",
        "WorkerRow",
        "WorkerTable",
    ),
    "workq.core.states": (
        "UnitState",
        "WorkerState",
    ),
    "workq.config": ("Settings",),
    "workq.face.callbacks": ("EXIT",),
    "workq.attempt": ("Attempt",),
    "workq.category": ("Category",),
    "workq.controller": ("Controller", "locks", "metrics", "workers"),
    "workq.controller.locking": ("LockLeak",),
    "workq.context": ("UnitInfo", "WorkerInfo", "blocking", "current_unit", "current_worker", "flush", "is_worker_job", "progress"),
    "workq.controller.pools": ("CategoryTable", "QueueLimits"),
    "workq.given.cpus": ("usable_cpus",),
    "workq.errors": (
        "ArgumentError",
        "ArgumentTypeError",
        "CategoryError",
        "ForkedError",
        "Halt",
        "LaunchError",
        "LockError",
        "PicklingError",
        "QueueClosed",
        "QueueFull",
        "QueueDetached",
        "RemoteError",
        "RemoteTraceback",
        "ResultError",
        "SessionLost",
        "SetupFailed",
        "TooLate",
        "TokenError",
        "UnitCancelled",
        "UnitCpuExceeded",
        "UnitFailed",
        "UnitMemoryExceeded",
        "UnitPoisoned",
        "UnitTimeout",
        "WaitError",
        "WorkErrors",
        "WorkerHalted",
        "WorkqError",
    ),
    "workq.interruption": ("ExternalInterrupt",),
    "workq.locking": ("Event", "Lock"),
    "workq.manager": ("WorkMgr", "categories"),
    "workq.controller.draining": ("Shutdown",),
    "workq.controller.recurring": ("Recurring", "Run"),
    "workq.signals": ("SignalShutdown", "shutdown_on_signal"),
    "workq.retry": ("Retry",),
    "workq.schedule": ("Cron",),
    "workq.face.session": ("Session", "SessionView"),
    "workq.sharing": ("shared",),
    "workq.unit": ("Unit",),
    "workq.face.view": ("View",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)

if sys.platform == "win32":  # pragma: no cover
    raise ImportError("workq needs Linux: it hands descriptors from process to process, which Windows cannot.")


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'workq' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, and none of what this page needs for itself."""
    return sorted({"__all__", "__doc__", "__file__", "__name__", "__path__", "__version__", *__all__})
