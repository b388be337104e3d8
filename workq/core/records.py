"""The rows that the scheduler keeps: categories, queues, workers and units that have to stop.

Rows hold facts and answer questions about them; who changes them, and when, is in ``scheduler.py`` only.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import field

from workq.core.events import BlockedHow, Limits, QueueId, WorkerId
from workq.core.fact import record
from workq.core.sizing import RestartBudget
from workq.core.states import ATTACHED, WorkerState

#: Workers by state; in each state in the order in which they came into it, the longest there first.
Crew = dict[WorkerState, "dict[WorkerId, WorkerRow]"]

#: Queues that wait for a worker, in the order in which they are served. Ordered, so that leaving the middle costs no search.
Ring = OrderedDict[QueueId, "QueueRow"]


@record
class WorkerRow:
    """One worker process, from the order to start it until it has exited.

    Attributes:
        since: When its state changed last.
        queue: The queue that it is attached to, or None.
        last_queue: The queue that it was attached to most recently, open or not.
        doubted: It was judged to be blocked, and is not believed: as many others of its queue are as it may have workers.
        limit: What it was told last: None (as many units as there are), a quantum, or 0 (end what you have begun).
        was_ready: It has started well; what happens to it afterwards is not a failed start.
        wave: Which wave of starts it belongs to, see ``RestartBudget``.
        holds_slot: It has been killed, and is replaced only once it is gone.
        fit_for: The queues that it is set up for.
        spent: It takes no unit any more.
        outgoing: It leaves as soon as it has ended what it has begun: it is worn and can be done without, or unfit, or its session is over.
        successor: Who was started to take its place.
        succeeds: Whose place it is to take.
    """

    id: WorkerId
    category: str
    since: float
    state: WorkerState = WorkerState.STARTING
    queue: QueueId | None = None
    last_queue: QueueId | None = None
    blocked_how: BlockedHow | None = None
    doubted: bool = False
    limit: int | None = None
    was_ready: bool = False
    holds_slot: bool = False
    wave: int = 0
    fit_for: set[QueueId] = field(default_factory=set)
    spent: bool = False
    outgoing: bool = False
    successor: WorkerId | None = None
    succeeds: WorkerId | None = None


@record
class QueueRow:
    """One work queue.

    Attributes:
        units: The level that WorkWaits told last; 0 after WorkTaken.
        unserved: Of those, how many have no worker: each worker that comes to serve the queue takes one off, each that leaves adds one.
        wish: How many more workers it wants and may have. Kept by ``CategoryRow.review``.
        ring: The ring of its category in which it stands, or None.
        depth: How many units wait for it, one inside the other: 0 for a queue of the application.
        session: It has one worker of its own, with which it lives and dies.
        tears_down: Its workers have something to do before they leave it.
        fit: The living workers that are set up for it.
        failed_set_ups: How many set-ups have failed since one went well.
        capped: So many have failed that it is served by no more workers than are set up for it; by one, where none is.
        owner: The worker whose unit made it, or None.
        own: How many of its units that worker runs itself.
    """

    id: QueueId
    category: str
    max_workers: int
    depth: int = 0
    owner: WorkerId | None = None
    own: int = 0
    units: int = 0
    unserved: int = 0
    paused: bool = False
    closed: bool = False
    wish: int = 0
    ring: Ring | None = None
    session: bool = False
    tears_down: bool = False
    fit: dict[WorkerId, WorkerRow] = field(default_factory=dict)
    failed_set_ups: int = 0
    capped: bool = False
    crew: Crew = field(default_factory=lambda: {state: {} for state in WorkerState if state in ATTACHED})

    @property
    def serving(self) -> int:
        """The workers that take its units now."""
        return len(self.crew[WorkerState.ACTIVE])

    @property
    def dry(self) -> dict[WorkerId, WorkerRow]:
        """The workers that stay with it for a while, for more units."""
        return self.crew[WorkerState.WAITING_FOR_UNITS]

    @property
    def blocked(self) -> int:
        """The workers that are blocked in a unit of it; they count for no limit."""
        return len(self.crew[WorkerState.BLOCKED])

    @property
    def judged(self) -> int:
        """Of those, the ones that were only judged to be."""
        return sum(row.blocked_how is BlockedHow.JUDGED for row in self.crew[WorkerState.BLOCKED].values())

    @property
    def waits(self) -> bool:
        """Some of its units wait, and workers may take them."""
        return self.units > 0 and not self.paused

    @property
    def deserted(self) -> bool:
        """No worker is attached to it in whatever state."""
        return not any(self.crew.values())

    @property
    def most_workers(self) -> int:
        """How many workers may serve it at once."""
        return max(1, min(self.max_workers, len(self.fit))) if self.capped else self.max_workers

    def has_to_tear_down(self, worker: WorkerId) -> bool:
        """Tell whether this worker of its has something to do before it leaves."""
        return self.tears_down and worker in self.fit

    def count_wish(self) -> int:
        """Return how many more workers it wants and may have."""
        if not self.waits or (self.session and not self.deserted):
            return 0
        return max(0, min(self.most_workers - self.serving - self.own, self.unserved))


def _empty_crew() -> Crew:
    return {state: {} for state in WorkerState if state is not WorkerState.GONE}


@record
class CategoryRow:
    """One named pool of workers, with the queues that draw on it.

    Attributes:
        fresh: The waiting queues that no worker serves at all. They go first.
        served: The waiting queues that have workers, blocked ones and a running owner included, and could have more. There are never
            more of them than workers and units that owners run.
        waiting: All queues with units that wait, those that have all the workers that they may have included.
        wishes: How many workers all queues together want and may have, each for itself.
        dying: How many workers have been killed and are not gone yet.
        nested: How many of its queues were made by units.
        worn: Its workers that are to be replaced or to leave, and have not been asked to yet.
        offers: The queues whose owners wait for their units, and would run one themselves.
        restless: Some worker has been told a limit, or something has happened that may call for one.
    """

    name: str
    limits: Limits
    budget: RestartBudget
    removed: bool = False
    crew: Crew = field(default_factory=_empty_crew)
    queues: dict[QueueId, QueueRow] = field(default_factory=dict)
    fresh: Ring = field(default_factory=OrderedDict)
    served: Ring = field(default_factory=OrderedDict)
    waiting: dict[QueueId, None] = field(default_factory=dict)
    offers: dict[QueueId, QueueRow] = field(default_factory=dict)
    wishes: int = 0
    dying: int = 0
    nested: int = 0
    worn: dict[WorkerId, WorkerRow] = field(default_factory=dict)
    restless: bool = False
    sampling: bool = False

    @property
    def active(self) -> int:
        """The workers that count for ``max_active_workers``: blocked ones do not, dry ones do until they are released."""
        crew = self.crew
        return len(crew[WorkerState.ACTIVE]) + len(crew[WorkerState.WAITING_FOR_UNITS]) + len(crew[WorkerState.TEARING_DOWN])

    @property
    def beyond(self) -> int:
        """How many active workers there are beyond the maximum; below 0 where there is room."""
        return self.active - self.limits.max_active_workers

    @property
    def starting(self) -> int:
        """The workers that are coming."""
        return len(self.crew[WorkerState.STARTING])

    @property
    def has_hands(self) -> bool:
        """Some worker can take units, now or when it has ended its own. A blocked one may wait for the very units that wait."""
        states = (
            WorkerState.ACTIVE,
            WorkerState.WAITING_FOR_UNITS,
            WorkerState.WAITING_TO_ATTACH,
            WorkerState.RETIRED,
            WorkerState.TEARING_DOWN,
        )
        return any(self.crew[state] for state in states)

    @property
    def living(self) -> int:
        """All processes of this category."""
        return sum(map(len, self.crew.values()))

    def review(self, queue: QueueRow) -> None:
        """Bring wishes and rings up to date after something about `queue` has changed.

        A queue that comes into a ring goes to its tail; one that stays keeps its place.
        """
        wish = queue.count_wish()
        self.wishes += wish - queue.wish
        queue.wish = wish
        if queue.waits:
            self.waiting[queue.id] = None
        else:
            self.waiting.pop(queue.id, None)
        ring = None if not wish else self.fresh if not (queue.serving or queue.blocked or queue.own) else self.served
        if ring is not queue.ring:
            if queue.ring is not None:
                del queue.ring[queue.id]
            if ring is not None:
                ring[queue.id] = queue
            queue.ring = ring
