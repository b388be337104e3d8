"""A scheduler that is told facts and whose orders are compared whole; nothing but short names for long events."""

from __future__ import annotations

from workq.config import DEFAULTS, Settings
from workq.core.actions import Action
from workq.core.events import (
    BlockedHow,
    CategoryAdded,
    Event,
    Limits,
    QueueId,
    QueueOpened,
    StopReason,
    Tick,
    UnitId,
    UnitMustStop,
    WorkerBlocked,
    WorkerDry,
    WorkerExited,
    WorkerFit,
    WorkerId,
    WorkerKilled,
    WorkerReady,
    WorkerTook,
    WorkerToreDown,
    WorkerUnblocked,
    WorkerUnfit,
    WorkerWorn,
    WorkTaken,
    WorkWaits,
)
from workq.core.scheduler import Scheduler
from workq.core.states import WorkerState


def W(number: int) -> WorkerId:
    return WorkerId(number)


def Q(number: int) -> QueueId:
    return QueueId(number)


def U(number: int) -> UnitId:
    return UnitId(number)


class Told:
    """A scheduler with one category, the invariants checked after every event, and a clock that stands still unless moved."""

    def __init__(
        self, most: int = 2, *, total: int | None = None, always_queue: bool = False, settings: Settings = DEFAULTS, name: str = "Default"
    ) -> None:
        self.scheduler = Scheduler(settings)
        self.now = 0.0
        self.category = name
        assert self(CategoryAdded(name, Limits(most, total, always_queue))) == []

    def __call__(self, event: Event) -> list[Action]:
        actions = self.scheduler.handle(event, self.now)
        self.scheduler.check()
        return actions

    def after(self, seconds: float, event: Event | None = None) -> list[Action]:
        """Let time pass, then tell an event (a Tick where none is given)."""
        self.now += seconds
        return self(event or Tick())

    def opened(self, queue: int, most: int = 8, *, session: bool = False, tears_down: bool = False) -> list[Action]:
        return self(QueueOpened(Q(queue), self.category, most, session=session, tears_down=tears_down))

    def waits(self, queue: int, units: int = 1) -> list[Action]:
        return self(WorkWaits(Q(queue), units))

    def taken(self, queue: int) -> list[Action]:
        return self(WorkTaken(Q(queue)))

    def ready(self, worker: int) -> list[Action]:
        return self(WorkerReady(W(worker)))

    def dry(self, worker: int) -> list[Action]:
        return self(WorkerDry(W(worker)))

    def took(self, worker: int) -> list[Action]:
        return self(WorkerTook(W(worker)))

    def blocked(self, worker: int, how: BlockedHow = BlockedHow.DECLARED) -> list[Action]:
        return self(WorkerBlocked(W(worker), how))

    def unblocked(self, worker: int) -> list[Action]:
        return self(WorkerUnblocked(W(worker)))

    def exited(self, worker: int) -> list[Action]:
        return self(WorkerExited(W(worker)))

    def killed(self, worker: int) -> list[Action]:
        return self(WorkerKilled(W(worker)))

    def worn(self, worker: int, spent: bool = False) -> list[Action]:
        return self(WorkerWorn(W(worker), spent))

    def fit(self, worker: int, queue: int = 1) -> list[Action]:
        return self(WorkerFit(W(worker), Q(queue)))

    def unfit(self, worker: int, queue: int = 1, failed: bool = True) -> list[Action]:
        return self(WorkerUnfit(W(worker), Q(queue), failed))

    def tore_down(self, worker: int) -> list[Action]:
        return self(WorkerToreDown(W(worker)))

    def must_stop(self, unit: int, worker: int, delete_timeout_s: float = 1.0) -> list[Action]:
        return self(UnitMustStop(U(unit), W(worker), StopReason.CANCELLED, delete_timeout_s))

    def state(self, worker: int) -> WorkerState:
        return self.scheduler.workers[W(worker)].state

    def states(self) -> dict[int, WorkerState]:
        return {int(number): row.state for number, row in self.scheduler.workers.items()}

    def busy(self, queue: int, workers: int, units: int = 1) -> None:
        """Open a queue and bring so many new workers to it, each with one long unit; nothing waits afterwards."""
        self.opened(queue)
        self.more(queue, workers)

    def more(self, queue: int, workers: int) -> None:
        self.waits(queue, workers)
        for number, state in self.states().items():
            if state is WorkerState.STARTING:
                self.ready(number)
        self.taken(queue)
