"""The scheduler against everything that the world may do, in any order: safety, progress and no idle slot after every event."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from workq.config import Settings
from workq.core.actions import (
    Action,
    FailCategory,
    FailQueue,
    Grant,
    Interrupt,
    KillUnit,
    KillWorker,
    Limit,
    Release,
    RunOwn,
    Sample,
    StartWorker,
    StopWorker,
    TearDown,
)
from workq.core.events import (
    BlockedHow,
    CategoryAdded,
    CategoryRemoved,
    Event,
    Limits,
    OwnerDone,
    OwnerOffers,
    OwnerWithdraws,
    QueueClosed,
    QueueId,
    QueueOpened,
    QueuePaused,
    QueueResized,
    QueueResumed,
    StopReason,
    Tick,
    UnitId,
    UnitMustStop,
    UnitStopped,
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
from workq.core.records import CategoryRow
from workq.core.scheduler import Scheduler
from workq.core.states import ATTACHED, IDLE, WorkerState

S = WorkerState
NUMBERS = st.integers(0, 10**6)
LIMITS = st.builds(Limits, st.integers(1, 4), st.one_of(st.none(), st.integers(1, 8)), st.booleans())


class World(RuleBasedStateMachine):
    """Draws facts; keeps of the orders only what a worker must know to be a legal worker."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(Settings(idle_timeout_s=3, start_timeout_s=5, close_timeout_s=1, grace_s=0.5, interrupt_repeat_s=0.5))
        self.now = 0.0
        self.alive: dict[WorkerId, str] = {}  # what each process is told to do: start, idle, serve, leave, die
        self.serves: dict[WorkerId, QueueId] = {}
        self.condemned: set[WorkerId] = set()  # whose kill was ordered, and not done yet
        self.told: dict[WorkerId, int | None] = {}
        self.own: dict[QueueId, int] = {}  # units that owners run
        self.offered: set[QueueId] = set()
        self.queues = 0
        self.units = 0
        self.sampled: dict[str, bool] = {}

    # -- the world

    def tell(self, event: Event) -> None:
        for action in self.scheduler.handle(event, self.now):
            self.obey(action)

    def obey(self, action: Action) -> None:
        match action:
            case StartWorker(worker, name):
                assert worker not in self.alive
                self.check_limits_of_starts(self.scheduler.categories[name])
                self.alive[worker] = "start"
            case Grant(worker, queue, limit):
                assert self.alive[worker] in ("idle", "serve", "tear")
                assert limit != 0
                assert not self.scheduler.queues[queue].paused
                self.alive[worker] = "serve"
                self.serves[worker] = queue
                self.told[worker] = limit
            case Limit(worker, units):
                assert self.alive[worker] == "serve"
                assert self.told[worker] != units, "told once"
                self.told[worker] = units
            case Release(worker):
                assert self.alive[worker] == "serve"
                self.alive[worker] = "idle"
                del self.serves[worker]
            case TearDown(worker, queue):
                assert self.serves.pop(worker) == queue
                assert self.alive[worker] == "serve"
                self.alive[worker] = "tear"
            case FailQueue(queue):
                assert not self.scheduler.queues[queue].units
            case StopWorker(worker):
                assert self.alive[worker] == "idle"
                self.alive[worker] = "leave"
            case KillWorker(worker):
                assert self.alive[worker] in ("start", "leave", "tear")
                self.alive[worker] = "die"
            case Interrupt(worker, unit) | KillUnit(worker, unit):
                assert unit in self.scheduler.stops
                assert self.alive[worker] != "start"
                if isinstance(action, KillUnit):
                    self.condemned.add(worker)
            case RunOwn(worker, queue):
                self.check_own(worker, queue)
            case Sample(category, on):
                assert self.sampled.get(category, False) is not on, "only the change is ordered"
                self.sampled[category] = on
            case FailCategory(category):
                assert not self.scheduler.categories[category].waiting

    def check_own(self, worker: WorkerId, queue: QueueId) -> None:
        """An owner runs its own only where it has offered to, and no process more may be had."""
        row = self.scheduler.queues[queue]
        category = self.scheduler.categories[row.category]
        assert row.owner == worker
        assert not row.paused
        assert queue in self.offered
        assert category.limits.max_total_workers is not None
        assert category.living >= category.limits.max_total_workers
        assert row.serving + row.own <= row.max_workers
        self.offered.discard(queue)
        self.own[queue] = self.own.get(queue, 0) + 1

    def check_limits_of_starts(self, category: CategoryRow) -> None:
        """There may be more workers than the limits say (one unblocked, they were lowered), but none is started then."""
        limits = category.limits
        extra = 0 if limits.always_queue else 1
        soon = category.active + category.starting + category.dying - len(category.worn)  # a worn worker goes when its successor comes
        assert soon <= limits.max_active_workers + extra
        assert limits.max_total_workers is None or category.living <= limits.max_total_workers

    def state(self, worker: WorkerId) -> WorkerState:
        return self.scheduler.workers[worker].state

    def in_state(self, *states: WorkerState) -> list[WorkerId]:
        return [number for number, row in self.scheduler.workers.items() if row.state in states]

    def open_queues(self) -> list[QueueId]:
        return [number for number, row in self.scheduler.queues.items() if not row.closed]

    # -- facts that the world may tell at any time

    @initialize(limits=LIMITS)
    def begin(self, limits: Limits) -> None:
        self.tell(CategoryAdded("a", limits))

    @rule(name=st.sampled_from("ab"), limits=LIMITS)
    def add_category(self, name: str, limits: Limits) -> None:
        self.tell(CategoryAdded(name, limits))

    @rule(name=st.sampled_from("ab"))
    def remove_category(self, name: str) -> None:
        category = self.scheduler.categories.get(name)
        if category is None or category.removed:
            return
        for queue in [number for number, row in category.queues.items() if not row.closed]:
            self.tell(QueueClosed(queue))
        self.tell(CategoryRemoved(name))
        if name not in self.scheduler.categories:
            self.sampled.pop(name, None)

    @rule(name=st.sampled_from("ab"), most=st.integers(1, 5), kind=st.sampled_from(["plain", "session", "tears down"]))
    def open_queue(self, name: str, most: int, kind: str) -> None:
        category = self.scheduler.categories.get(name)
        if category is not None and not category.removed:
            self.queues += 1
            self.tell(QueueOpened(QueueId(self.queues), name, most, session=kind == "session", tears_down=kind == "tears down"))

    @precondition(lambda self: self.in_state(S.ACTIVE, S.BLOCKED))
    @rule(pick=NUMBERS, most=st.integers(1, 5), elsewhere=st.sampled_from([False, False, False, True]), units=st.integers(0, 3))
    def unit_opens_queue(self, pick: int, most: int, elsewhere: bool, units: int) -> None:
        """A unit makes a queue, in its own category or in another, queues units on it, waits for them, and would run them itself."""
        workers = self.in_state(S.ACTIVE, S.BLOCKED)
        owner = workers[pick % len(workers)]
        name = self.scheduler.workers[owner].category
        category = self.scheduler.categories.get("ab".replace(name, "") if elsewhere else name)
        if category is None or category.removed:
            return
        self.queues += 1
        number = QueueId(self.queues)
        self.tell(QueueOpened(number, category.name, most, 1, owner=owner))
        if units:
            self.tell(WorkWaits(number, units))
        self.offered.add(number)
        self.tell(OwnerOffers(number))
        self.tell(WorkerBlocked(owner, BlockedHow.DECLARED))

    @precondition(lambda self: self.scheduler.queues)
    @rule(pick=NUMBERS, offers=st.booleans())
    def owner_offers(self, pick: int, offers: bool) -> None:
        queues = list(self.scheduler.queues)
        queue = queues[pick % len(queues)]
        if self.scheduler.queues[queue].owner is None or self.scheduler.queues[queue].closed:
            return
        if offers:
            self.offered.add(queue)
            self.tell(OwnerOffers(queue))
        else:
            self.offered.discard(queue)
            self.tell(OwnerWithdraws(queue))

    @precondition(lambda self: any(self.own.values()))
    @rule(pick=NUMBERS)
    def owner_has_done(self, pick: int) -> None:
        running = [number for number, units in self.own.items() if units]
        queue = running[pick % len(running)]
        self.own[queue] -= 1
        self.tell(OwnerDone(queue))

    @precondition(lambda self: self.open_queues())
    @rule(pick=NUMBERS, units=st.sampled_from([1, 1, 2, 5, 100]))
    def queue_waits(self, pick: int, units: int) -> None:
        queues = self.open_queues()
        self.tell(WorkWaits(queues[pick % len(queues)], units))

    @precondition(lambda self: self.scheduler.queues)
    @rule(pick=NUMBERS, what=st.sampled_from([WorkTaken, QueuePaused, QueueResumed, QueueClosed]))
    def queue_changes(self, pick: int, what: type[WorkTaken]) -> None:
        queues = list(self.scheduler.queues)
        self.tell(what(queues[pick % len(queues)]))

    @precondition(lambda self: self.open_queues())
    @rule(pick=NUMBERS, most=st.integers(1, 5))
    def queue_resized(self, pick: int, most: int) -> None:
        queues = self.open_queues()
        self.tell(QueueResized(queues[pick % len(queues)], most))

    @precondition(lambda self: "start" in self.alive.values())
    @rule(pick=NUMBERS, well=st.sampled_from([True, True, True, False]))
    def worker_starts(self, pick: int, well: bool) -> None:
        starting = [number for number, does in self.alive.items() if does == "start"]
        worker = starting[pick % len(starting)]
        if well:
            self.alive[worker] = "idle"
            self.tell(WorkerReady(worker))
        else:
            self.exit(worker)

    @precondition(lambda self: self.alive)
    @rule(pick=NUMBERS)
    def worker_exits(self, pick: int) -> None:
        self.exit(list(self.alive)[pick % len(self.alive)])

    @precondition(lambda self: set(self.alive.values()) & {"leave", "die"})
    @rule(pick=NUMBERS)
    def worker_exits_as_told(self, pick: int) -> None:
        leaving = [number for number, does in self.alive.items() if does in ("leave", "die")]
        self.exit(leaving[pick % len(leaving)])

    @precondition(lambda self: self.condemned)
    @rule(pick=NUMBERS, too_late=st.booleans())
    def worker_is_killed_with_its_unit(self, pick: int, too_late: bool) -> None:
        """Unless the unit has just ended."""
        worker = sorted(self.condemned)[pick % len(self.condemned)]
        self.condemned.discard(worker)
        if not too_late:
            self.alive[worker] = "die"
            self.serves.pop(worker, None)
            self.tell(WorkerKilled(worker))

    def exit(self, worker: WorkerId) -> None:
        del self.alive[worker]
        self.condemned.discard(worker)
        self.serves.pop(worker, None)
        self.tell(WorkerExited(worker))

    @precondition(lambda self: self.serves)
    @rule(pick=NUMBERS, how=st.sampled_from(["fit", "fit", "failed", "cut short"]))
    def worker_is_set_up(self, pick: int, how: str) -> None:
        worker = list(self.serves)[pick % len(self.serves)]
        queue = self.serves[worker]
        self.tell(WorkerFit(worker, queue) if how == "fit" else WorkerUnfit(worker, queue, how == "failed"))

    @precondition(lambda self: "tear" in self.alive.values())
    @rule(pick=NUMBERS)
    def worker_tears_down(self, pick: int) -> None:
        tearing = [number for number, does in self.alive.items() if does == "tear"]
        worker = tearing[pick % len(tearing)]
        self.alive[worker] = "idle"
        self.tell(WorkerToreDown(worker))

    @precondition(lambda self: self.alive)
    @rule(pick=NUMBERS, spent=st.booleans())
    def worker_is_worn(self, pick: int, spent: bool) -> None:
        workers = [number for number, does in self.alive.items() if does != "start"]
        if workers:
            self.tell(WorkerWorn(workers[pick % len(workers)], spent))

    @precondition(lambda self: self.alive)
    @rule(pick=NUMBERS, what=st.sampled_from([WorkerDry, WorkerDry, WorkerTook, WorkerUnblocked]))
    def worker_says(self, pick: int, what: type[WorkerDry]) -> None:
        """Tell it of any worker that has started, late or not."""
        workers = [number for number, does in self.alive.items() if does != "start"]
        if not workers:
            return
        worker = workers[pick % len(workers)]
        if what is WorkerTook and self.alive[worker] == "serve":
            self.told.setdefault(worker, None)
        if what is WorkerDry and worker in self.told:
            self.told[worker] = None
        self.tell(what(worker))

    @precondition(lambda self: self.in_state(*ATTACHED))
    @rule(pick=NUMBERS, how=st.sampled_from(BlockedHow))
    def worker_blocks(self, pick: int, how: BlockedHow) -> None:
        workers = self.in_state(*ATTACHED)
        self.tell(WorkerBlocked(workers[pick % len(workers)], how))

    @precondition(lambda self: self.in_state(S.ACTIVE, S.BLOCKED))
    @rule(pick=NUMBERS, patience_s=st.sampled_from([0.0, 0.5, 2.0]))
    def unit_must_stop(self, pick: int, patience_s: float) -> None:
        workers = self.in_state(S.ACTIVE, S.BLOCKED)
        self.units += 1
        self.tell(UnitMustStop(UnitId(self.units), workers[pick % len(workers)], StopReason.TIMED_OUT, patience_s))

    @precondition(lambda self: self.scheduler.stops)
    @rule(pick=NUMBERS)
    def unit_stopped(self, pick: int) -> None:
        stops = list(self.scheduler.stops)
        self.tell(UnitStopped(stops[pick % len(stops)]))

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.5, 1.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.tell(Tick())

    @precondition(lambda self: self.scheduler.next_deadline() is not None)
    @rule()
    def deadline_comes(self) -> None:
        deadline = self.scheduler.next_deadline()
        assert deadline is not None
        self.now = max(self.now, deadline)
        self.tell(Tick())

    # -- what must hold

    @invariant()
    def records_are_in_order(self) -> None:
        self.scheduler.check()

    @invariant()
    def safety_the_core_knows_what_it_ordered(self) -> None:
        assert set(self.alive) == set(self.scheduler.workers)
        for worker, row in self.scheduler.workers.items():
            expected = {"start": {S.STARTING}, "idle": IDLE, "serve": ATTACHED, "leave": {S.STOPPING}, "die": {S.STOPPING}}
            expected["tear"] = {S.TEARING_DOWN}
            assert row.state in expected[self.alive[worker]], (worker, row.state, self.alive[worker])
            assert row.queue == self.serves.get(worker)

    @invariant()
    def progress_a_queue_that_waits_has_somebody_or_there_is_a_reason(self) -> None:
        for category in self.scheduler.categories.values():
            for queue in category.fresh.values():
                limits = category.limits
                full = category.active + category.starting + category.dying >= limits.max_active_workers
                total = limits.max_total_workers is not None and category.living >= limits.max_total_workers
                assert category.starting or full or total or category.budget.retry_at is not None, queue

    @invariant()
    def progress_nothing_that_is_due_is_left(self) -> None:
        """A stop without patience is due again at once; it takes one more Tick."""
        deadline = self.scheduler.next_deadline()
        assert deadline is None or deadline > self.now or self.scheduler.stops


World.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
TestWorld = pytest.mark.slow(World.TestCase)
