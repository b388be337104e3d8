"""Facts that can happen. No event asks for anything; the scheduler draws the conclusions."""

from __future__ import annotations

from enum import Enum

from workq.core.fact import fact
from workq.core.ids import AlarmId as AlarmId
from workq.core.ids import QueueId as QueueId
from workq.core.ids import UnitId as UnitId
from workq.core.ids import WorkerId as WorkerId


class StopReason(Enum):
    """Why a running unit is being stopped."""

    CANCELLED = "cancelled"  # somebody called cancel(), or its queue was deleted, cleared or dropped
    TIMED_OUT = "timed out"  # it ran for longer than its own time-out
    MEMORY = "memory"  # it took more memory than it may
    CPU = "cpu"  # it took more CPU time than it may


class BlockedHow(Enum):
    """How it is known that a worker is blocked."""

    DECLARED = "declared"  # the unit said so: blocking(), a lock, a wait for its own units
    JUDGED = "judged"  # the kernel's state and the CPU time of its main thread say so


@fact
class Limits:
    """What a category may have."""

    max_active_workers: int
    max_total_workers: int | None = None
    always_queue: bool = False


@fact
class CategoryAdded:
    """There is a category, or its limits have changed."""

    category: str
    limits: Limits


@fact
class CategoryRemoved:
    """The category is gone; all its queues were closed before."""

    category: str


@fact
class QueueOpened:
    """There is a queue, with the most workers that may serve it at once.

    ``depth`` is 0 for a queue that the application made, and one more than its own queue's for one that a unit made. A ``session`` has one
    worker of its own, which stays with it till it is closed, and then ends. ``tears_down``: its workers have something to do before they
    leave it. ``owner`` is the worker of the unit that made it.
    """

    queue: QueueId
    category: str
    max_workers: int
    depth: int = 0
    session: bool = False
    tears_down: bool = False
    owner: WorkerId | None = None


@fact
class QueueResized:
    """The queue has another maximum of workers."""

    queue: QueueId
    max_workers: int


@fact
class QueuePaused:
    """Workers take no new unit of this queue."""

    queue: QueueId


@fact
class QueueResumed:
    """Workers take its units again."""

    queue: QueueId


@fact
class QueueClosed:
    """No unit of this queue waits, and none will come. Units that run are stopped by UnitMustStop."""

    queue: QueueId


@fact
class WorkWaits:
    """The queue has units that no worker of it can take now. Repeated as the number grows; it is a level, not an edge."""

    queue: QueueId
    units: int


@fact
class WorkTaken:
    """The queue's backlog is empty."""

    queue: QueueId


@fact
class OwnerOffers:
    """The unit that made this queue waits for its units, and its worker would run one of them itself. Good for one."""

    queue: QueueId


@fact
class OwnerWithdraws:
    """The unit that made this queue waits no more. Nothing was given to it meanwhile."""

    queue: QueueId


@fact
class OwnerDone:
    """The unit that the queue's owner was given has ended there, or was given back."""

    queue: QueueId


@fact
class WorkerReady:
    """The worker has started, was prepared, and waits."""

    worker: WorkerId


@fact
class WorkerDry:
    """All that the worker was given has ended, and it was given nothing more (its queue is empty, or its limit was reached)."""

    worker: WorkerId


@fact
class WorkerTook:
    """A worker that had been told dry has taken a unit of the queue that it is attached to."""

    worker: WorkerId


@fact
class WorkerBlocked:
    """Its unit waits for a lock, an event or other units."""

    worker: WorkerId
    how: BlockedHow


@fact
class WorkerUnblocked:
    """Its unit makes progress again."""

    worker: WorkerId


@fact
class WorkerExited:
    """The process has ended, or could not be made at all."""

    worker: WorkerId


@fact
class WorkerWorn:
    """The worker is to be replaced: it has run so many units, is so old, or holds so much memory. ``spent``: it takes no unit any more."""

    worker: WorkerId
    spent: bool = False


@fact
class WorkerFit:
    """The worker has been set up for the queue."""

    worker: WorkerId
    queue: QueueId


@fact
class WorkerUnfit:
    """The worker cannot serve the queue: its set-up has ``failed``, or was cut short with the unit that met it."""

    worker: WorkerId
    queue: QueueId
    failed: bool


@fact
class WorkerKilled:
    """The worker was killed with a unit that did not end, as KillUnit asked. Its exit follows."""

    worker: WorkerId


@fact
class WorkerToreDown:
    """The worker has done what it had to before it left its queue."""

    worker: WorkerId


@fact
class UnitMustStop:
    """A unit that a worker has begun must end.

    ``delete_timeout_s`` is the patience between the interrupt and the kill. A second one for the same unit changes nothing.
    """

    unit: UnitId
    worker: WorkerId
    reason: StopReason
    delete_timeout_s: float


@fact
class UnitStopped:
    """A unit that had to stop has ended, however."""

    unit: UnitId


@fact
class AlarmSet:
    """Something is to be done at this time: RingAlarm will follow then, once."""

    alarm: AlarmId
    at: float


@fact
class AlarmDropped:
    """It need not be done any more. It may have rung already."""

    alarm: AlarmId


@fact
class Tick:
    """Nothing but time has passed."""


Event = (
    CategoryAdded
    | CategoryRemoved
    | QueueOpened
    | QueueResized
    | QueuePaused
    | QueueResumed
    | QueueClosed
    | WorkWaits
    | WorkTaken
    | OwnerOffers
    | OwnerWithdraws
    | OwnerDone
    | WorkerReady
    | WorkerDry
    | WorkerTook
    | WorkerBlocked
    | WorkerUnblocked
    | WorkerExited
    | WorkerWorn
    | WorkerFit
    | WorkerUnfit
    | WorkerKilled
    | WorkerToreDown
    | UnitMustStop
    | UnitStopped
    | AlarmSet
    | AlarmDropped
    | Tick
)
