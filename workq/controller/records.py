"""The rows that the acting half keeps: calls, batches, workers, queues. Plain data; who owns what is said at each."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from itertools import chain, count
from typing import TYPE_CHECKING, Any

from workq.controller.tallies import QueueTimes
from workq.core.states import UNIT_ENDS, UnitState
from workq.core.times import Times
from workq.errors import LaunchError, is_handle
from workq.given.arguments import check_seconds
from workq.outcome import PENDING
from workq.transport.board import BATCH_AT, BEAT, FINISHED, MASK, STARTED
from workq.transport.channel import Incoming, Outgoing
from workq.transport.segments import Reading, Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from workq.controller.controller import Controller
    from workq.controller.gate import Gate
    from workq.controller.outfit import Outfit
    from workq.controller.recurring import Recurring
    from workq.core.ids import QueueId, WorkerId
    from workq.core.recycling import Wear
    from workq.core.retrying import RetryPolicy
    from workq.engines.protocol import Lane
    from workq.errors import Halt
    from workq.face.callbacks import Callbacks
    from workq.seeing.bar import Bar
    from workq.unit import Unit

GHOST = None  # stands in a batch where a unit was taken back
NEVER = 1 << 62
OWN_FIRST = 1 << 61  # the numbers, in a worker, of units that it runs itself while their maker waits; below are those of its batches
LOADING_S = 5.0  # what a worker has taken may need so long until its first unit begins: its function's module has to be imported


@dataclass(frozen=True, slots=True)
class Options:
    """What ``WorkMgr.options`` may say about a unit.

    Attributes:
        timeout: How long it may run, seconds; None: for ever. The clock starts when the unit starts.
        retry: Whether and when it is tried again after it failed, timed out or was lost with its worker; None: never.
        priority: Higher ones go first within their queue.
        name: What it is called; None: as its function.
        memory_bytes: How much memory it may take; None: any.
        cpu_s: How much CPU time it may take, seconds; None: any.
        queue_timeout: How long it may wait before it begins, seconds; None: for ever.
    """

    timeout: float | None = None
    retry: RetryPolicy | None = None
    priority: int = 0
    name: str | None = None
    queue_timeout: float | None = None
    memory_bytes: int | None = None
    cpu_s: float | None = None

    def plain(self) -> tuple[Any, ...]:
        """Return it in values that marshal takes."""
        values = (getattr(self, field.name) for field in fields(self))
        return tuple(tuple(value) if isinstance(value, tuple) else value for value in values)

    @classmethod
    def of_plain(cls, values: tuple[Any, ...]) -> Options:
        """Return what `plain` was made of."""
        options = cls(*values)
        if options.retry is None:
            return options
        from workq.core.retrying import RetryPolicy

        return replace(options, retry=RetryPolicy(*options.retry))


@dataclass(slots=True, eq=False)
class Call:
    """A function, as the workers know it: sent to each once, and then named by its number. Immutable once made."""

    queue: Queue
    number: int
    pickled: bytes
    keywords: bool
    name: str
    options: Options
    usual: Times = field(default_factory=Times)  # how long its units take
    limited: bool = field(init=False, default=False)  # its units have limits of memory or CPU time
    watched: bool = field(init=False, default=False)  # its units have limits of any kind

    def __post_init__(self) -> None:
        options = self.options
        self.limited = options.memory_bytes is not None or options.cpu_s is not None
        self.watched = self.limited or options.timeout is not None


class Large:
    """Arguments that lie in a segment."""

    __slots__ = ("lengths", "segment", "turn")

    def __init__(self, segment: Segment, lengths: list[int]) -> None:
        self.segment = segment
        self.turn = segment.turn
        self.lengths = lengths


class Batch:
    """Units that were sent to a worker in one frame.

    ``at`` says how many of them have ended here; storing it is the one step by which a result counts as read, so that a thread that
    is struck by an exception of a signal handler between two steps leaves nothing that the next reader cannot take up.
    """

    __slots__ = ("at", "begun_ns", "done", "first", "queue", "sent", "size_bytes", "skipped", "tried", "units")

    def __init__(self, queue: Queue, first: int) -> None:
        self.queue = queue
        self.first = first  # the worker's number of its first unit
        self.units: list[Any] = []  # Unit, or GHOST
        self.at = 0
        self.begun_ns = 0
        self.done = 0  # how many have returned, and are not yet counted with the queue's
        self.skipped = 0  # how many were taken back or not begun
        self.size_bytes = 0  # of its frame, where that may be large
        self.sent = False
        self.tried = False  # it was begun to be sent; whether it was is not known before `sent` is set


class OwnBatch(Batch):
    """One unit that a worker runs itself while the unit that waits for it waits there (controller/children.py)."""

    __slots__ = ("ended_ns", "offer")

    def __init__(self, queue: Queue, first: int, offer: int) -> None:
        super().__init__(queue, first)
        self.offer = offer  # for which it was given
        self.ended_ns = 0


class Worker:
    """One worker process, as the parent sees it.

    ``batches`` grows under the dispatch lock and shrinks under the lead; ``known``, ``allowance``, ``limited`` belong to the lock;
    ``incoming``, ``read_at`` to the lead; the rest to the controller's thread.
    """

    def __init__(self, number: WorkerId, category: str, lane: Lane, now: float) -> None:
        self.number = number
        self.category = category
        self.lane = lane
        self.name = lane.name
        self.process_info_id = lane.process_info_id
        self.words = lane.board.words
        self.incoming = Incoming(lane.socket)
        self.outgoing = Outgoing(lane.socket)
        self.queue: Queue | None = None
        self.batches: deque[Batch] = deque()
        self.forming: Batch | None = None
        self.own: list[OwnBatch] = []  # units of its units that it runs itself, the innermost last; the controller's
        self.next_number = 1  # of the next unit that it is given
        self.known: set[Call] = set()  # the calls that it was sent
        self.to_forget: list[int] = []  # the numbers of calls of deleted queues that it was sent
        self.allowance: int | None = None  # how many units it may still take; None: any number
        self.limited = False  # its board's LIMIT is set: nothing new until its batches have ended
        self.read_at = 0  # how far its ring was read
        self.segments: dict[int, int] = {}  # of its own, by number: descriptors; belongs to the lead
        self.lent: deque[Reading] = deque()  # results that lie there and were handed out; any thread appends
        self.freed: deque[Any] = deque()  # whatever has the number of a segment that it may write again; any thread appends
        self.unread: set[Any] = set()  # what tells of results that are dropped unread
        self.sees_segments = False  # it can map ours
        self.waits_for_large = False  # the next result is on its way through the socket
        self.watched = False  # the controller watches its socket for more of a frame
        self.ready = False
        self.ready_at = 0.0  # time.monotonic()
        self.told_dry = True  # what the core believes
        self.told_blocked = False
        self.judged_blocked = False
        self.announced = False  # the core knows that it is ready
        self.leaving = False  # asked to leave
        self.killed_for: str | None = None  # why we killed it, if we did
        self.exited = False
        self.started_at = now
        self.stalled = False
        self.slow_number = 0  # of the unit that was told to be slow
        self._silent_about = 0, 0  # what was announced, and what was sent last, when it was found silent
        self._silent_from = now
        self.units_done = 0
        self.since = now
        self.wear: Wear | None = None  # when it is worn, where it has limits
        self.quota: int | None = None  # how many units it may still be given in its life; belongs to the dispatch lock
        self.told_worn = self.told_spent = False  # what the core knows
        self.set_up_for: set[QueueId] = set()  # belongs to the lead, as do the next two
        self.has_to_tear_down: dict[QueueId, Queue] = {}  # what it has to do something for at the end: nobody else may remember them
        self.tears_down: Queue | None = None  # of which queue it does what that wants done last
        self.units_seen = 0  # how many it had run when its memory was looked at
        self.rank = 0  # among the living workers of its category
        self.last_words = ""  # what was left in its stderr when it ended

    def holds_open_units(self) -> bool:
        """Return whether any unit of its batches is open. One that was stopped by a signal may hold nothing but ghosts for long."""
        return not self.limited or any(unit is not GHOST for batch in tuple(self.batches) for unit in batch.units[batch.at :])

    def holds_pending(self) -> bool:
        """Return whether any unit of its batches has not ended; what was taken back, and it has yet to skip, is none."""
        return any(unit is not GHOST and unit.value is PENDING for batch in tuple(self.batches) for unit in tuple(batch.units[batch.at :]))

    def silence_s(self, now: float) -> float:
        """Return for how long it has had no heartbeat."""
        return now - max(self.words[BEAT] / 1e9, self.ready_at)

    def silent_since(self, now: float) -> float:
        """Return since when it has not begun what it was sent, as far as was looked; later where it is loading a function."""
        words = self.words
        taken_ns = words[BATCH_AT]
        if words[STARTED] == words[FINISHED] and taken_ns > self.lane.board.ends[words[FINISHED] & MASK]:
            return max(taken_ns / 1e9, min(now, taken_ns / 1e9 + LOADING_S))
        what = self.words[STARTED], self.batches[-1].first
        if self._silent_about != what:
            self._silent_about, self._silent_from = what, now
        return self._silent_from

    @property
    def pid(self) -> int:
        """Its process number; 0 before it has started. None but those that have are given units: ``os.kill(0, ...)`` is for oneself."""
        return self.lane.pid

    def stack(self, timeout: float = 1.0) -> str:
        """Return the Python stacks of its threads, most recent call first; also of one that is stuck, in C code for example.

        Args:
            timeout: Seconds to wait for its answer at most. Without one it says why, and what the kernel knows.
        """
        from workq.process.stack import desk_of, stack_of

        check_seconds("timeout", timeout)
        return stack_of(self.pid, desk_of(self.words), timeout) if not self.exited else f"{self.name} (pid {self.pid}) has ended"

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise is_handle(f"worker {self.name}", "send its name, or its pid")

    def __repr__(self) -> str:
        return f"<{self.name} pid {self.pid}>"

    def let_go(self) -> None:
        """Its process is gone: close and forget all of it but what units that ran in it may still tell."""
        self.lane.close()
        self.words = self.lane.board.words  # a copy: units that remember their worker do not keep its memory
        self.incoming.close_fds()
        while self.segments:
            os.close(self.segments.popitem()[1])
        self.lent.clear()
        self.unread.clear()


class Queue:  # weakly referred to by its controller
    """One work queue, as the acting half sees it. ``pending`` and ``workers`` belong to the dispatch lock; any thread may append."""

    def __init__(
        self, controller: Controller, number: QueueId, name: str, category: str, max_workers: int, delete_timeout_s: float
    ) -> None:
        self.controller = controller
        self.number = number
        self.name = name
        self.category = category
        self.max_workers = max_workers
        self.asked_workers: int | None = max_workers  # what was asked for; None: no number was named
        self.wanted_workers = max_workers  # the same, or the category's default at that time; not clamped
        self.delete_timeout_s = delete_timeout_s
        self.pending: deque[Unit[Any]] = deque()  # of priority 0
        self.ranked: dict[int, deque[Unit[Any]]] = {}  # of the other priorities
        self.workers: list[Worker] = []
        self.gate: Gate | None = None  # of a queue in which only so many units may wait
        self.room = False  # a worker of ours may take more
        self.told = 0  # how many waiting units the core was told of; NEVER: enough
        self.looks = 0  # how often the controller has looked at its backlog; belongs to the controller's thread
        self.rung = -1  # after which of them it was last rung to look again
        self.ids = count(1)
        self.estimate_s = 0.0  # of one unit's time, measured
        self.lag_s = 0.0  # how long its workers stood idle before they were given more, lately
        self.poll_each = 64  # units queued while all workers are busy, after which the thread that queues reads a little itself
        self.bytes_each = 64.0
        self.ended: deque[Unit[Any]] = deque()  # not yet handed out by sync, wait_one or as_completed
        self.asked = 0  # how many of them were asked meanwhile, about
        self.warned = False  # that nobody collects them
        self.prune_at = 1024  # how many of them before those that were asked are let go
        self.ended_inside = 0  # ended units that may still stand between open ones of its backlogs, at most; belongs to the dispatch lock
        self.large = False  # units of it have arguments in segments; set once
        self.unusual = False  # units of it were cancelled or come again; set once, never taken back
        self.outputs: deque[Unit[Any]] = deque()  # with output that was not yet emitted
        self.bar: Bar | None = None  # that is drawn while somebody waits for it
        self.half_written: dict[int, Unit[Any]] = {}  # that have flushed output and had not ended; belongs to who has the emission
        self.emission = threading.RLock()  # held by the thread that writes the outputs: each whole, in order
        self.cleanups: list[tuple[Callable[..., object], tuple[Any, ...]]] = []  # called once it is gone
        self.carried: Any = None  # what its units are given of their caller's context
        self.holder: weakref.ref[Any] | None = None  # the WorkMgr that has it
        self.detached = False  # nobody has it: it waits for its token
        self.callbacks: Callbacks | None = None  # made at the first queue_callback
        self.output_to: str = "stream"
        self.at_exit: str = "cancel"
        self.launch_error = LaunchError  # the kind of it that its units fail with where no worker can be started
        self.exact_errors = False  # SystemExit of a unit is raised as itself where its result is asked for
        self.paused = False
        self.broken_off = 0  # units up to this number were cancelled at Ctrl-C, and whoever pressed it was told so
        self.cleared = 0  # units up to this number come no more again: the queue was cleared
        self.new_failures: deque[Unit[Any]] | None = None  # the last ones, once somebody has asked for that (sync's stop_on_error)
        self.session = False  # it has one worker of its own
        self.sessions: Any = None  # of its WorkMgr, weakly: they go with it to whoever attaches it
        self.lost_by: tuple[str, Halt | None] | None = None  # of a session: how its worker has ended
        self.outfit: Outfit | None = None  # what is to be done in each of its workers, first and last
        self.fit: set[Worker] = set()  # its workers that have something to do last; belongs to the lead
        self.set_up_error = b""  # of the last set-up that has failed
        self.set_up_failed_at = 0  # units up to this number were there then, and may fail with it
        self.opened = False  # the core knows it
        self.gone = False  # the core has forgotten it
        self.why_deleted = "its queue was deleted"
        self.closed = False
        self.owner: Worker | None = None  # of a nested queue: the worker whose unit made it
        self.depth_of_nest = 0  # 1 for a queue that a unit of the application's queue made, 2 for one made by a unit of that, …
        self.retrying = 0  # open units, or hands full of them, that lie nowhere else (`in_hand`)
        self.resting: dict[Unit[Any], float] = {}  # units that wait for the time of their next attempt, and that time
        self.recurring: set[Recurring] = set()  # those that are active
        self.draining = False  # closed, but what it has is still run: retries included
        self.done = self.failed = self.cancelled = self.timed_out = self.lost = 0
        self.peak_depth = 0  # as of its last dispatch: in between it only grows
        self.bytes_down = self.bytes_up = 0  # arguments and functions, results
        self.times = QueueTimes()
        self.handed_over = False  # it is about to vanish, and its counters are in other hands

    def __del__(self) -> None:
        """Hand our counters over: those of the controller never fall."""
        tallies = getattr(getattr(self, "controller", None), "tallies", None)
        if tallies is not None and not self.handed_over:
            self.handed_over = True
            tallies.hand_over(self)

    def refusal(self) -> Exception:
        """Return the error that says that nothing can be queued on it any more."""
        from workq.errors import ForkedError, QueueClosed

        if self.controller.forked:
            return ForkedError(f"queue {self.name} belongs to the process that this one was forked from; make a new WorkMgr")
        return QueueClosed(f"queue {self.name} has been closed; nothing more can be queued on it")

    def has_begun(self) -> bool:
        """Return whether any unit was ever queued. A counter tells its next number in no other way."""
        return repr(self.ids) != "count(1)"

    def waiting(self) -> int:
        """Return how many open units are in its backlogs: looks at each."""
        waiting = [unit for backlog in (self.pending, *self.ranked.values()) for unit in backlog.copy()]
        return sum(unit.value is PENDING for unit in waiting)

    def depth(self) -> int:
        """Return how many units wait, cancelled ones that were not swept out yet among them."""
        return len(self.pending) + (sum(map(len, self.ranked.values())) if self.ranked else 0)

    def front(self) -> deque[Unit[Any]]:
        """Return the backlog that is served next: the highest priority that has units."""
        if not self.ranked:
            return self.pending
        best = max((rank for rank, units in tuple(self.ranked.items()) if units), default=None)  # any thread may add one
        if best is None or (best < 0 and self.pending):
            return self.pending
        return self.ranked[best]

    def backlog(self, priority: int) -> deque[Unit[Any]]:
        """Return the backlog of a priority."""
        if priority == 0:
            return self.pending
        return self.ranked.setdefault(priority, deque())

    def let_go(self, unit: Unit[Any]) -> None:
        """Somebody has asked for a unit: it need not be kept for sync() and wait_one(), and its result lives no longer than he wants.

        Mostly it is the first or the last of those kept; the others are let go by and by (`asked`).
        """
        ended = self.ended
        try:
            if ended[0] is unit:
                taken = ended.popleft()
                if taken is not unit:  # another thread was quicker
                    ended.appendleft(taken)
            elif ended[-1] is unit:
                taken = ended.pop()
                if taken is not unit:
                    ended.append(taken)
            else:
                self.asked += 1
        except IndexError:
            pass

    def unasked_failures(self) -> list[Unit[Any]]:
        """Return the units that have failed and that nobody has asked."""
        ends = UNIT_ENDS - {UnitState.DONE, UnitState.CANCELLED}
        return [unit for unit in tuple(self.ended) if unit.state in ends and not unit.asked]

    def note_failure(self, unit: Unit[Any]) -> None:
        """A unit fails, or is lost, or has run for too long. Its value may be stored a moment later."""
        if self.new_failures is not None:
            self.new_failures.append(unit)

    def own_batches(self) -> list[OwnBatch]:
        """Return the units of it that its owner runs itself, each in its batch."""
        return [batch for batch in tuple(self.owner.own) if batch.queue is self] if self.owner is not None else []

    def open_units(self) -> int:
        """Return how many units have not ended."""
        flying = [unit for worker in list(self.workers) for batch in list(worker.batches) for unit in batch.units[batch.at :]]
        number = sum(unit is not GHOST and unit.value is PENDING for unit in flying) + self.retrying + len(self.resting)
        return number + (self.waiting() if self.unusual else self.depth())

    def open_list(self) -> list[Unit[Any]]:
        """Return the units that have not ended. Under the dispatch lock, or in the controller's thread."""
        flying = [
            unit for worker in self.workers for batch in tuple(worker.batches) for unit in batch.units[batch.at :] if unit is not GHOST
        ]
        own = [batch.units[0] for batch in self.own_batches() if batch.units[0] is not GHOST]
        return [
            *self.pending,
            *chain.from_iterable(self.ranked.values()),
            *tuple(self.resting),
            *flying,
            *own,
        ]  # no loop: any thread appends

    def end_bound_s(self) -> float:
        """Return how long it may take at most until all its units have been ended: a bound for a machine that is very busy."""
        return self.delete_timeout_s + 5.0 + 1e-4 * self.open_units()

    def busy(self) -> bool:
        """Return whether any unit of it is still open."""
        if self.pending or self.retrying or self.resting or (self.ranked and any(self.ranked.values())):
            return True
        return any(worker.forming or (worker.batches and worker.holds_open_units()) for worker in self.workers)

    @contextmanager
    def in_hand(self) -> Iterator[None]:
        """Units of it leave their places, and have ended or lie elsewhere at the end: it is not quiet meanwhile. Controller's thread."""
        self.retrying += 1
        try:
            yield
        finally:
            self.retrying -= 1

    def emit(self) -> None:
        """Write what units that have ended have printed, in their order of completion, to this process's streams."""
        self.controller.delivery.emit(self)
