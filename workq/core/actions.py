"""Orders that the core can give. The controller performs them; it never decides."""

from __future__ import annotations

from workq.core.fact import fact
from workq.core.ids import AlarmId, QueueId, UnitId, WorkerId


@fact
class StartWorker:
    """Start a new process under this number. WorkerReady or WorkerExited will follow."""

    worker: WorkerId
    category: str


@fact
class StopWorker:
    """Ask an idle worker to leave. WorkerExited will follow. ``recycled``: it is worn, and another takes its place."""

    worker: WorkerId
    recycled: bool = False


@fact
class KillWorker:
    """Kill a worker that did not get ready or did not leave in time."""

    worker: WorkerId


@fact
class Grant:
    """The worker serves this queue from now on, and may take up to ``limit`` units (None: as many as there are).

    Given again to a worker of the same queue it replaces the limit. WorkerDry follows when the queue is empty or the limit is used up.
    """

    worker: WorkerId
    queue: QueueId
    limit: int | None = None


@fact
class RunOwn:
    """The worker, whose unit waits for units of this queue, runs one of them itself: no other worker can be had. OwnerDone follows."""

    worker: WorkerId
    queue: QueueId


@fact
class Limit:
    """A worker that serves a queue takes at most so many units more; 0: what it has not begun is taken back as well.

    WorkerDry follows when it has ended them.
    """

    worker: WorkerId
    units: int


@fact
class Release:
    """The worker serves no queue any more (it is dry)."""

    worker: WorkerId


@fact
class TearDown:
    """The worker serves no queue any more (it is dry), and is to do what this queue wants done at the end. WorkerToreDown will follow."""

    worker: WorkerId
    queue: QueueId


@fact
class Interrupt:
    """Raise ExternalInterrupt in this unit, if it still runs."""

    worker: WorkerId
    unit: UnitId


@fact
class KillUnit:
    """Kill the worker that runs this unit, with all processes of its group, and tell WorkerKilled; not if the unit has just ended."""

    worker: WorkerId
    unit: UnitId


@fact
class FailCategory:
    """Workers of this category cannot be started: every unit that waits in its queues fails, with the last worker's stderr."""

    category: str


@fact
class FailQueue:
    """No worker can be set up for this queue: every unit that waits in it fails, with the error of the last set-up."""

    queue: QueueId


@fact
class Sample:
    """Look whether busy workers of this category are blocked (units wait and no worker is free), or stop looking."""

    category: str
    on: bool


@fact
class RingAlarm:
    """The time has come for which this alarm was set."""

    alarm: AlarmId


Action = (
    StartWorker
    | StopWorker
    | KillWorker
    | Grant
    | RunOwn
    | Limit
    | Release
    | TearDown
    | Interrupt
    | KillUnit
    | FailCategory
    | FailQueue
    | Sample
    | RingAlarm
)
