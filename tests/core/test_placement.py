"""Placement: which worker serves which queue, and fairly."""

from __future__ import annotations

import pytest

from tests.core.helpers import Q, Told, W
from workq.core.actions import Grant, Limit, Release, Sample, StartWorker
from workq.core.events import (
    CategoryAdded,
    Event,
    Limits,
    QueueClosed,
    QueueId,
    QueueOpened,
    QueuePaused,
    QueueResized,
    QueueResumed,
    WorkerDry,
    WorkerId,
    WorkerReady,
    WorkTaken,
    WorkWaits,
)
from workq.core.scheduler import Scheduler
from workq.core.states import WorkerState

S = WorkerState
ON, OFF = Sample("Default", True), Sample("Default", False)


def test_an_idle_worker_is_granted_and_none_is_started() -> None:
    told = Told()
    told.busy(1, 1)
    told.dry(1)
    told.after(0.05)
    told.opened(2)
    assert told.waits(2, 1) == [Grant(W(1), Q(2)), ON]


def test_the_idle_worker_that_was_used_last_goes_first() -> None:
    told = Told(most=3)
    told.busy(1, 3)
    for number in (2, 3, 1):
        told.dry(number)
        told.after(0.05)
    assert told.waits(1, 1) == [Grant(W(1), Q(1)), ON]
    assert told.waits(1, 1) == [Grant(W(3), Q(1))]


def test_a_dry_worker_stays_with_its_queue_for_a_while() -> None:
    told = Told()
    told.busy(1, 1)
    assert told.dry(1) == []
    assert told.state(1) is S.WAITING_FOR_UNITS
    assert told.scheduler.next_deadline() == 0.05
    assert told.waits(1, 1) == [Grant(W(1), Q(1)), ON], "its own queue"
    told.taken(1)
    told.dry(1)
    assert told.after(0.05) == [Release(W(1))]
    assert told.state(1) is S.WAITING_TO_ATTACH


def test_a_dry_worker_leaves_its_queue_for_another_rather_than_a_new_one_is_started() -> None:
    told = Told()
    told.busy(1, 1)
    told.dry(1)
    told.opened(2)
    assert told.waits(2, 1) == [Grant(W(1), Q(2)), ON]


def test_an_idle_worker_goes_before_a_dry_one_of_another_queue() -> None:
    told = Told(most=3)
    told.busy(1, 2)
    told.dry(1)
    told.after(0.05)
    told.dry(2)
    told.opened(2)
    assert told.waits(2, 1) == [Grant(W(1), Q(2)), ON]


def test_a_worker_that_took_a_unit_directly_is_active() -> None:
    told = Told()
    told.busy(1, 1)
    told.dry(1)
    assert told.took(1) == []
    assert told.state(1) is S.ACTIVE
    assert told.scheduler.next_deadline() is None
    assert told.took(1) == []


def test_a_worker_that_took_and_ended_a_unit_lingers_anew() -> None:
    told = Told()
    told.busy(1, 1)
    told.dry(1)
    told.now = 0.04
    assert told.dry(1) == []
    assert told.scheduler.next_deadline() == 0.04 + 0.05


def test_a_worker_whose_release_crossed_a_unit_is_attached_again() -> None:
    told = Told()
    told.busy(1, 1)
    told.dry(1)
    assert told.after(0.05) == [Release(W(1))]
    assert told.took(1) == [Grant(W(1), Q(1))]
    assert told.state(1) is S.ACTIVE
    assert told.dry(1) == []


def test_a_worker_that_took_a_unit_of_a_queue_that_is_gone_is_left_alone() -> None:
    told = Told()
    told.busy(1, 1)
    told.dry(1)
    told(QueueClosed(Q(1)))
    assert told.took(1) == []
    assert told.took(99) == []
    assert told.state(1) is S.WAITING_TO_ATTACH


def test_late_news_of_dry_workers_is_ignored() -> None:
    told = Told()
    told.busy(1, 1)
    told.dry(1)
    told.after(0.05)
    assert told.dry(1) == []
    assert told.dry(99) == []
    assert told.state(1) is S.WAITING_TO_ATTACH


def test_a_queue_alone_never_has_a_limit() -> None:
    told = Told()
    told.opened(1)
    told.waits(1, 100)
    assert told.ready(1) == [Grant(W(1), Q(1))]
    assert told.ready(2) == [Grant(W(2), Q(1)), ON]
    assert told.dry(1) == [Grant(W(1), Q(1))]


def test_a_new_queue_has_a_worker_beyond_the_maximum_and_the_next_dry_one_is_retired() -> None:
    told = Told()
    told.opened(1)
    told.waits(1, 100)
    told.ready(1)
    told.ready(2)
    told.opened(2)
    assert told.waits(2, 1) == [StartWorker(W(3), "Default"), OFF], "no limits: it is coming"
    assert told.ready(3) == [Limit(W(1), 0), Limit(W(2), 0), Grant(W(3), Q(2)), ON]
    assert told.dry(2) == [Release(W(2)), Grant(W(1), Q(1))]
    assert told.states() == {1: S.ACTIVE, 2: S.RETIRED, 3: S.ACTIVE}
    told.opened(3)
    assert told.waits(3, 1) == [Grant(W(2), Q(3))], "held ready for it"


def test_only_one_worker_beyond_the_maximum_is_held_ready() -> None:
    told = Told(most=1)
    for queue in (1, 2, 3):
        told.opened(queue)
        told.waits(queue, 100)
    assert told.states() == {1: S.STARTING, 2: S.STARTING}


def test_a_queue_that_got_a_worker_goes_behind_the_others() -> None:
    told = Told(most=4)
    for queue in (1, 2):
        told.opened(queue, most=2)
        told.waits(queue, 100)
    assert [told.ready(worker)[0] for worker in (1, 2, 3, 4)] == [Grant(W(n), Q(q)) for n, q in ((1, 1), (2, 2), (3, 1), (4, 2))]


def test_of_queues_with_equal_numbers_the_one_that_got_nobody_for_longest_is_next() -> None:
    told = Told(most=6)
    for queue in (1, 2, 3):
        told.opened(queue, most=4)
        told.waits(queue, 100)
    queues = [action.queue for worker in range(1, 7) for action in told.ready(worker) if isinstance(action, Grant)]
    assert queues == [1, 2, 3, 1, 2, 3]
    told(CategoryAdded("Default", Limits(9)))
    queues = [action.queue for worker in range(7, 10) for action in told.ready(worker) if isinstance(action, Grant)]
    assert queues == [1, 2, 3]


def test_where_units_always_queue_no_worker_is_held_ready() -> None:
    told = Told(most=1, always_queue=True)
    told.busy(1, 1)
    told.opened(2)
    assert told.waits(2, 5) == [Limit(W(1), 16), ON]
    assert told.dry(1) == [Grant(W(1), Q(2))]


def test_workers_take_turns_while_a_queue_waits_that_has_none() -> None:
    told = Told(most=1, always_queue=True)
    told.opened(1)
    told.waits(1, 100)
    told.ready(1)
    told.opened(2)
    assert told.waits(2, 100) == [Limit(W(1), 16)]
    assert told.waits(2, 101) == [], "once per grant"
    assert told.dry(1) == [Grant(W(1), Q(2), 16)]
    assert told.dry(1) == [Grant(W(1), Q(1), 16)]
    assert told.taken(2) == [], "given back only when it comes dry"
    assert told.dry(1) == [Grant(W(1), Q(1))]


def test_a_queue_with_more_workers_gives_to_one_with_fewer() -> None:
    told = Told(most=3)
    told.opened(1)
    told.waits(1, 100)
    for number in (1, 2, 3):
        told.ready(number)
    told.opened(2)
    told.waits(2, 100)
    assert told.ready(4) == [Limit(W(1), 0), Limit(W(2), 0), Limit(W(3), 0), Grant(W(4), Q(2)), ON]
    assert told.dry(1) == [Release(W(1)), Grant(W(2), Q(1), 16), Grant(W(3), Q(1), 16)]
    assert told.dry(2) == [Limit(W(4), 16), Grant(W(2), Q(2), 16)]
    assert told.dry(3) == [Grant(W(3), Q(1))]
    counts = [told.scheduler.queues[Q(queue)].serving for queue in (1, 2)]
    assert counts == [1, 2]


def test_workers_of_queues_with_equal_numbers_are_left_alone() -> None:
    told = Told(most=2)
    told.opened(1)
    told.opened(2)
    told.waits(1, 100)
    told.waits(2, 100)
    told.ready(1)
    told.ready(2)
    assert [row.queue for row in told.scheduler.workers.values()] == [Q(1), Q(2)]
    assert [row.limit for row in told.scheduler.workers.values() if row.state is S.ACTIVE] == [None, None]


def test_a_closed_queue_lets_its_workers_go() -> None:
    told = Told(most=3)
    told.busy(1, 2)
    told.dry(1)
    told.waits(1, 0)
    assert told(QueueClosed(Q(1))) == [Release(W(1))]
    assert Q(1) in told.scheduler.queues
    assert told.dry(2) == [Release(W(2))]
    assert told.scheduler.queues == {}


def test_late_news_of_a_closed_queue_is_ignored() -> None:
    told = Told()
    told.busy(1, 1)
    told(QueueClosed(Q(1)))
    for event in (QueueClosed(Q(1)), QueuePaused(Q(1)), QueueResumed(Q(1)), QueueResized(Q(1), 9), QueueClosed(Q(77))):
        assert told(event) == []
    assert told.waits(1, 5) == []
    assert told.taken(1) == []


def test_workers_of_a_paused_queue_end_what_they_have_begun_and_are_released() -> None:
    told = Told()
    told.opened(1)
    told.waits(1, 100)
    told.ready(1)
    told.ready(2)
    assert told(QueuePaused(Q(1))) == [Limit(W(1), 0), Limit(W(2), 0), OFF]
    assert told.dry(1) == [Release(W(1))]
    assert told.waits(1, 101) == []
    assert told(QueueResumed(Q(1))) == [Grant(W(2), Q(1)), Grant(W(1), Q(1)), ON]


def test_a_resized_queue_gets_and_loses_workers() -> None:
    told = Told(most=4)
    told.opened(1, most=1)
    told.waits(1, 100)
    told.ready(1)
    assert told(QueueResized(Q(1), 2)) == [StartWorker(W(2), "Default"), OFF]
    told.ready(2)
    assert told(QueueResized(Q(1), 1)) == [Limit(W(1), 0), Limit(W(2), 0)]
    assert told.dry(1) == [Release(W(1)), Grant(W(2), Q(1))]
    assert told.state(1) is S.RETIRED


def test_a_superfluous_worker_serves_another_queue_rather_than_be_retired() -> None:
    told = Told(most=4, always_queue=True)
    told.busy(1, 4)
    told.opened(2)
    told.waits(2, 100)
    told(QueueResized(Q(1), 2))
    assert told.dry(3) == [Grant(W(3), Q(2), None)]


@pytest.mark.parametrize("queues", [3, 100])
def test_many_equal_queues_on_two_workers_end_at_about_the_same_time(queues: int) -> None:
    assert slowest_to_fastest(queues, units=100) < 1.5


@pytest.mark.slow
def test_a_thousand_equal_queues_on_two_workers_end_at_about_the_same_time() -> None:
    assert slowest_to_fastest(1000, units=100) < 1.5


def slowest_to_fastest(queues: int, units: int) -> float:
    """Serve equal queues with two workers, a unit each in turn; return the last queue's end over the first's."""
    world = Rounds(queues, units)
    world.run()
    return max(world.ended.values()) / min(world.ended.values())


class Rounds:
    """Two workers that take one unit per round, as their grants allow."""

    def __init__(self, queues: int, units: int) -> None:
        self.scheduler = Scheduler()
        self.left = {QueueId(number): units for number in range(1, queues + 1)}
        self.ended: dict[QueueId, int] = {}
        self.serves: dict[WorkerId, tuple[QueueId, int | None]] = {}
        self.round = 0

    def run(self) -> None:
        self.tell(CategoryAdded("Default", Limits(2, always_queue=True)))
        for queue, units in self.left.items():
            self.tell(QueueOpened(queue, "Default", 8))
            self.tell(WorkWaits(queue, units))
        while len(self.ended) < len(self.left):
            self.round += 1
            for worker in list(self.serves):
                self.take(worker)

    def take(self, worker: WorkerId) -> None:
        queue, limit = self.serves[worker]
        if self.left[queue] and limit != 0:
            self.left[queue] -= 1
            self.serves[worker] = (queue, None if limit is None else limit - 1)
            if not self.left[queue]:
                self.ended[queue] = self.round
                self.tell(WorkTaken(queue))
        else:
            del self.serves[worker]
            self.tell(WorkerDry(worker))

    def tell(self, event: Event) -> None:
        for action in self.scheduler.handle(event, 0.0):
            match action:
                case StartWorker(worker):
                    self.tell(WorkerReady(worker))
                case Grant(worker, queue, limit):
                    self.serves[worker] = (queue, limit)
                case Limit(worker, units) if worker in self.serves:
                    self.serves[worker] = (self.serves[worker][0], units)


def test_of_nested_queues_the_deepest_goes_first_and_the_applications_own_before_them() -> None:
    scheduler = Scheduler()
    scheduler.handle(CategoryAdded("Default", Limits(max_active_workers=1, always_queue=True)), 0.0)
    for number, depth in ((1, 1), (2, 3), (3, 2), (4, 3), (5, 0)):
        scheduler.handle(QueueOpened(QueueId(number), "Default", 1, depth), 0.0)
        scheduler.handle(WorkWaits(QueueId(number), 1), 0.0)
    scheduler.handle(WorkerReady(WorkerId(1)), 0.0)
    served = [scheduler.workers[WorkerId(1)].queue]
    for now in range(1, 5):
        scheduler.handle(WorkTaken(served[-1]), now)
        scheduler.handle(WorkerDry(WorkerId(1)), now)
        served.append(scheduler.workers[WorkerId(1)].queue)
    assert served == [5, 2, 4, 3, 1]
