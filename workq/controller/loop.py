"""The controller's thread: wait, gather facts, ask the core, perform; nothing else.

The core belongs to this thread. Everybody else appends to ``_commands`` or `look_at`, and rings the controller's bell. Core and dispatch
are brought together under the dispatch lock, so that what the core was told of backlogs and workers still holds when its grants are
performed. What needs the lead (deaths, taking back, stopping, reading when nobody waits) is done with the lead claimed.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from _random import Random  # `random` itself costs milliseconds to import
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from workq.controller import (
    alarms,
    departing,
    ends,
    facts,
    fitting,
    halts,
    limits,
    locking,
    nested,
    perform,
    poller,
    recalling,
    recycling,
    sessions,
    slow,
    stopping,
    surroundings,
    withdrawing,
)
from workq.controller.blocking import BlockedJudge
from workq.controller.dispatch import Dispatcher
from workq.controller.records import NEVER, Batch, Call, Queue, Worker
from workq.controller.waiting import Bell, Lead, expects
from workq.core.events import CategoryAdded, Event, Limits, QueueOpened, Tick, WorkerId, WorkerTook
from workq.core.scheduler import Scheduler
from workq.engines.protocol import Engine, Exited, Started, StartFailed
from workq.transport import bells
from workq.transport.board import load_barriers
from workq.transport.channel import Frame

if TYPE_CHECKING:
    from workq.category import Category
    from workq.controller.controller import Controller
    from workq.controller.gate import Gate
    from workq.controller.queuetime import QueueTimes
    from workq.controller.stuck import Stuck

logger = logging.getLogger("workq")

LOAD_AFTER_S = 0.03  # by then the first unit has ended, mostly, and nobody waits for the interpreter while it imports
LOAD_IN_ANY_CASE_S = 0.1
HEARD_S = 1.0  # the core hears of changes within microseconds; who asks goes on without it where the thread is stuck


class Loop:
    """The acting parts of one controller, and the thread that moves them."""

    def __init__(self, controller: Controller, own_bells: tuple[Bell, Bell], engine: Engine) -> None:
        self.controller = controller
        self.settings = controller.settings
        self.clock = controller.clock
        self.bell_fd = own_bells[1].fd
        self.core = Scheduler(controller.settings)
        load_barriers()
        self.engine = engine
        self.dispatcher = Dispatcher(controller.settings, self.ring, self.frame_arrived)
        self.dispatcher.look_at = self.look_at
        self.dispatcher.sweep_soon = self.sweep_soon
        self.ends = ends.Ends(self)
        self.dispatcher.too_many_kept = self.ends.too_many_kept
        self.dispatcher.tell_notes = self.ends.tell_notes
        self.dispatcher.after_end = self.ends.after_end
        self.dispatcher.failed_end = self._failed_end
        self.dispatcher.watch = self._watch_limits
        self.lead = Lead(self.dispatcher, *own_bells)
        self.by_number: dict[int, Worker] = {}
        self.recalls = recalling.Recalls(self)
        self.stops = stopping.Stops(self)
        self.withdrawals = withdrawing.Withdrawals(self)
        self.unit_limits = limits.UnitLimits(self)
        self.recycler = recycling.Recycler(self)
        self.fittings = fitting.Fittings(self)
        self.sessions = sessions.Sessions(self)
        self.judge = BlockedJudge(self)
        self.halts = halts.Halts(self)
        self.nested = nested.Nested(self)
        self.alarms = alarms.Alarms(self)
        self.departures = departing.Departures(self)
        self.random = Random().random
        self._queue_times: QueueTimes | None = None
        self._stuck: Stuck | None = None
        self.locks = locking.Locks(self)
        self.thread: threading.Thread | None = None
        self.closing = False
        self._starting = threading.RLock()
        self._events: deque[Event | threading.Event] = deque()  # for the core, from any thread
        self._commands: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()  # for us, from any thread
        self.attention: set[Queue] = set()  # queues whose backlog the core should hear of; any thread adds
        self._to_sweep: set[Queue] = set()  # queues for which `sweep_soon` was called; any thread adds, this one takes off
        self.believed_waiting: set[Queue] = set()  # queues that the core believes to be waiting
        self.crowded: list[Gate] = []  # where somebody waits for room in a queue; any thread adds, and takes its own off
        self._core_now = 0.0  # when the core was last told anything
        self._poller = poller.make(self.bell_fd, self.engine)
        self._heartbeat_due = time.monotonic() + self.settings.heartbeat_s
        self._load_at_last = time.monotonic() + LOAD_IN_ANY_CASE_S
        self._load_due: float | None = time.monotonic() + LOAD_AFTER_S
        self.environment = surroundings.environment()  # as the launcher, which is started later, has it at least
        self.turns_s = 0.0  # the cost of the controller's own turns
        for category in controller.pools.values():
            self.tell_category(category)

    # ------------------------------------------------------------ from any thread

    @property
    def queue_times(self) -> QueueTimes:
        """The units with a limit for their time in the queue; made when there is the first."""
        if self._queue_times is None:
            from workq.controller.queuetime import QueueTimes

            with self._starting:
                self._queue_times = self._queue_times or QueueTimes(self)
        return self._queue_times

    def ring(self) -> None:
        """Wake the controller."""
        self.lead.controller_bell.ring()

    def tell(self, event: Event) -> None:
        """Have the core hear of something."""
        self._events.append(event)
        self.ring()

    def tell_in_turn(self, event: Event) -> None:
        """Have the core hear of something in this turn. In the controller's thread."""
        self._events.append(event)

    def tell_category(self, category: Category) -> None:
        """Have the core hear of a category, or of its new limits."""
        limits = Limits(category.max_active_workers, category.max_total_workers, category.always_queue)
        self.tell(CategoryAdded(category.name, limits))

    def sweep_soon(self, queue: Queue) -> None:
        """Have ended units taken out of a queue's backlogs, at the controller's next turn."""
        if queue not in self._to_sweep:
            self._to_sweep.add(queue)
            self.ring()

    def settle_changes(self) -> None:
        """Wait until the core has heard all that it was told so far, and its orders hold: what was changed acts from here on.

        Bounded, and not where the thread that asks has interrupted itself in the middle of what the controller waits for.
        """
        if self.thread is None or not self.may_be_waited_for():
            return
        heard = threading.Event()
        self._events.append(heard)
        self.ring()
        heard.wait(HEARD_S)

    def may_be_waited_for(self) -> bool:
        """Return whether this thread may wait for the controller's: it is another, and has nothing that one needs."""
        lead, lock = self.lead.lock, self.dispatcher.lock
        return threading.current_thread() is not self.thread and not (lead._is_owned() or lock._is_owned())  # type: ignore[attr-defined]

    def command(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have something done in the controller's thread, with the lead."""
        self._commands.append((function, arguments))
        self.ring()

    def look_at(self, queue: Queue) -> None:
        """Have the controller look at a queue's backlog, and ring it once for all units that come before it looks: those may be thousands.

        That is noted after the bell, so that whoever finds it noted can count on it; and a look that came first has made the note stale.
        """
        look = queue.looks
        if queue.rung == look:
            return
        self.attention.add(queue)
        self.ring()
        if self.thread is None:
            self.start()
        queue.rung = look

    def begin_look(self, queue: Queue) -> None:
        """Take a queue out of those to be looked at, before its backlog is looked at. In the controller's thread."""
        self.attention.discard(queue)
        queue.looks += 1

    def start(self) -> None:
        """Start the thread, at the first unit."""
        if self.thread is None and self.controller.threaded:
            threading.Thread(target=self._begin, name=f"{self.controller.name}-controller", daemon=True).start()

    def _begin(self) -> None:
        """Be the thread, if no other is: an exception of a signal handler, or a second thread, can have two started."""
        with self._starting:
            if self.thread is not None or self.closing:
                return
            self.thread = threading.current_thread()
        self._run()

    # ------------------------------------------------------------ the loop

    def _run(self) -> None:
        try:
            self.turn([])
            while not self.closing:
                self.turn(self._wait())
                self._load_later()
        except BaseException:
            logger.critical("the controller has failed; this is a bug of workq", exc_info=True)
            self.withdrawals.fail_everything("the controller has failed; see the log of 'workq'")
        finally:
            self._end()

    def _load_later(self) -> None:
        """Load what the first unit did not need, once it has had the time to end; and try again where no descriptor is left for it."""
        if self._load_due is not None and (now := time.monotonic()) >= self._load_due:
            if now < self._load_at_last and not any(worker.units_done for worker in self.dispatcher.workers):
                self._load_due = now + LOAD_AFTER_S
                return
            self._load_due = None
            try:
                halts.load()
            except (ImportError, OSError):
                self._load_due = time.monotonic() + self.settings.heartbeat_s

    def _wait(self) -> list[tuple[int, int]]:
        """Wait until something happens or is due."""
        if self._commands or self._events or self.ends.untold or self.locks.inbox:
            return []
        due = [self._heartbeat_due if self.by_number else None, self.core.next_deadline(), self.engine.next_deadline()]
        due += [self.recalls.due, self.stops.next_check, self.judge.next_look, self.recycler.next_look, self.unit_limits.next_look]
        due.append(self._load_due)
        times = [moment for moment in due if moment is not None]
        timeout = max(0.0, min(times) - time.monotonic()) if times else -1
        while self.lead.unrung and not 0 <= timeout < self.lead.look_s:
            ready = self._poller.poll(self.lead.look_s)
            if ready or self.lead.stream_ended():
                return ready
            timeout = max(0.0, min(times) - time.monotonic()) if times else -1
        return self._poller.poll(timeout if timeout < 0 else timeout + 0.0005)

    def turn(self, ready: list[tuple[int, int]]) -> None:
        """Take in what has happened, and do what follows from it."""
        begun = self.clock()
        for fd, _ in ready:
            if fd == self.bell_fd:
                self._drain_bell()
        engine_events = list(self.engine.events())
        self.ends.tell()
        commands = [self._commands.popleft() for _ in range(len(self._commands))]
        must = (
            bool(commands or engine_events or self._to_sweep)
            or self.stops.due(begun)
            or self.unit_limits.due(begun)
            or self.recalls.is_due(begun)
        )
        must = must or any(expects(worker) for worker in self.dispatcher.workers)
        again = False
        if self.lead.take(must):
            try:
                self._with_the_lead(engine_events, commands, begun)
            finally:
                again = self.lead.give_up()
        else:
            self.lead.nudge()
            self.recalls.look_later(begun)
        if self.locks.inbox or self.locks.table.locks:
            self.locks.turn()
        self._push()
        self.judge.look(begun)
        self.recycler.look(begun)
        self._decide(begun)
        if begun >= self._heartbeat_due:
            self._heartbeat_due = begun + self.settings.heartbeat_s
            self.halts.look_for_stalled(begun)
            self.departures.look_for_inactive(begun)
            slow.look_for_slow(self, begun)
            self._look_for_stuck()
        self.departures.see_off()
        self._watch_sockets()
        if self.crowded and any(gate.has_room() for gate in tuple(self.crowded)):
            self.lead.wake_all()
        self.turns_s += self.clock() - begun
        if again or self.attention:  # what was ordered may have added some after the look
            self.ring()

    def _look_for_stuck(self) -> None:
        """Look for units that wait for each other's workers; only where a category has a hard limit there can be any."""
        if self._stuck is None:
            if all(category.max_total_workers is None for category in tuple(self.controller.pools.values())):
                return
            from workq.controller.stuck import Stuck

            self._stuck = Stuck(self)
        self._stuck.look()

    def _drain_bell(self) -> None:
        try:
            bells.silence(self.bell_fd)
        except BlockingIOError:
            pass

    def _with_the_lead(self, engine_events: list[Any], commands: list[Any], now: float) -> None:
        for event in engine_events:
            self._engine_event(event, now)
        for function, arguments in commands:
            function(*arguments)
        self._sweep()
        self.lead.pump()
        self.stops.check(now)
        self.unit_limits.check(now)
        self.recalls.look(now)

    def _sweep(self) -> None:
        while self._to_sweep:
            queue = self._to_sweep.pop()
            with self.dispatcher.lock:
                self.dispatcher.sweep(queue)

    def _decide(self, now: float) -> None:
        """Tell the core what is new, and perform what it orders, until there is nothing new."""
        later: list[Callable[[], object]] = []
        with self.dispatcher.lock:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, threading.Event):
                    event.set()
                    continue
                if type(event) is QueueOpened and event.queue in self.core.queues:
                    continue  # told twice: an exception struck whoever told it
                later += self._ask(event, now)
            for fact in facts.gather(self):  # each is found when it is told: an order may have made the next one untrue
                later += self._ask(fact, now)
            deadline = self.core.next_deadline()
            if deadline is not None and deadline <= now:
                later += self._ask(Tick(), now)
            self.dispatcher.wanted_dry = bool(self.believed_waiting) or any(
                row.restless or row.beyond > 0 for row in self.core.categories.values()
            )
        for needs_lead in later:
            self.with_lead(needs_lead)

    def _ask(self, event: Event, now: float, *, as_of_before: bool = False) -> list[Callable[[], object]]:
        """Tell the core one thing and perform its orders; return what needs the lead.

        First it hears which workers have taken units that it believes to be dry: else it might move them to another queue. It hears of
        all of them as of the time when it was last told something: else the first one could have it release the second.
        """
        later: list[Callable[[], object]] = []
        if not as_of_before:
            for worker in self.dispatcher.workers:
                if worker.told_dry and worker.announced and (worker.batches or worker.forming):
                    self.dispatcher.mend(worker)
                    worker.told_dry = False
                    later += self._ask(WorkerTook(WorkerId(int(worker.number))), self._core_now or now, as_of_before=True)
            self._core_now = now
        actions = self.core.handle(event, now)
        perform.arrange(self, actions)
        for action in actions:
            later += perform.perform(self, action, now)
        return later

    def with_lead(self, function: Callable[[], object]) -> None:
        """Do something with the lead and the lock in hand."""
        self.lead.take(must=True)
        try:
            with self.dispatcher.lock:
                function()
        finally:
            if self.lead.give_up():
                self.ring()

    # ------------------------------------------------------------ what the engine says

    def _engine_event(self, event: Any, now: float) -> None:
        match event:
            case Started(number):
                worker = self.by_number.get(number)
                if worker is not None:
                    self.controller.tallies.count(worker.category, "started")
                    logger.debug("%s started, pid %d", worker.name, worker.pid)
            case StartFailed(number, why):
                self.halts.start_failed(number, why)
            case Exited(number, code, peak_rss_bytes):
                self.halts.exited(number, code, peak_rss_bytes, now)

    def _watch_sockets(self) -> None:
        """Have the poller say when more of a frame is there that nobody leads to read, and when a socket takes more of ours."""
        for worker in self.dispatcher.workers:
            mask = (poller.READ if expects(worker) else 0) | (poller.WRITE if worker.outgoing.waiting else 0)
            worker.watched = bool(mask & poller.READ)
            if mask:
                self._poller.watch_once(worker.lane.socket.fileno(), mask)

    def _watch_limits(self, calls: list[Call]) -> None:
        """Units of these were sent, and have limits. Under the dispatch lock, any thread."""
        timeouts = [call.options.timeout for call in calls if call.options.timeout is not None]
        if timeouts:
            self.stops.watch(min(timeouts))
        if any(call.limited for call in calls):
            self.unit_limits.watch()

    def _push(self) -> None:
        """Write on where a socket did not take a whole frame."""
        for worker in self.dispatcher.workers:
            if worker.outgoing.waiting:
                with self.dispatcher.lock:
                    empty = worker.outgoing.push()
                if empty and worker.queue is not None:
                    worker.queue.room = True

    def _failed_end(self, worker: Worker, batch: Batch, at: int, kind: int, payload: Any) -> Any:
        return stopping.failed_end(self, worker, batch, at, kind, payload)

    def frame_arrived(self, worker: Worker, frame: Frame) -> None:
        """A frame other than a result; called under the lead."""
        facts.take_frame(self, worker, frame)

    def told(self, queue: Queue, units: int) -> None:
        """Note what the core believes of a queue's backlog."""
        queue.told = NEVER if units >= queue.max_workers else units
        if units:
            self.believed_waiting.add(queue)
        else:
            self.believed_waiting.discard(queue)

    # ------------------------------------------------------------ the end

    def close(self, timeout_s: float) -> None:
        """Delete all queues, end the workers, end the thread. Called by the application's thread; bounded."""
        now = time.monotonic()
        deadline = now + timeout_s
        with self._starting:  # a thread that was started and is not there yet finds that there is nothing to do
            self.closing = self.closing or self.thread is None
        if self.thread is None:
            self._end()
            return
        waits = self.may_be_waited_for()
        close_by = now  # where an exception of a signal handler ends the wait
        try:
            self._delete_all(deadline if waits else now)
            close_by = deadline
        finally:
            self._close_by = close_by
            self.closing = True
            self.ring()
        if waits:
            self.thread.join(max(0.5, deadline + 1.0 - time.monotonic()))

    def _delete_all(self, deadline: float) -> None:
        """Have all queues deleted, and wait until nothing of them runs."""
        queues = self.controller.every_queue()
        for queue in queues:
            self.command(self.withdrawals.delete_queue, queue)
        try:
            self.lead.wait(lambda: not any(queue.busy() or queue.fit for queue in queues), max(0.0, deadline - time.monotonic()))
        except RuntimeError:  # in a signal handler that interrupted a wait; or the application has closed every descriptor
            pass

    _close_by = 0.0

    def _end(self) -> None:
        """In the controller's thread, last of all: no process, descriptor or memory is left."""
        self.lead.take(must=True)
        try:
            if self.lead.closed:  # no thread was started, and another one was here first
                return
            for worker in self.dispatcher.workers:
                worker.leaving = True
            with contextlib.suppress(OSError):  # the application has closed every descriptor: what they led to ends by itself
                self.engine.close(max(self._close_by, time.monotonic() + 1.0))
            self.withdrawals.fail_everything("the controller was closed")
            self.departures.see_off_all()
            with self.dispatcher.lock:
                workers, self.dispatcher.workers = self.dispatcher.workers, []
            for worker in workers:
                worker.exited = True
                worker.let_go()
                worker.words = worker.lane.board.words  # a copy: the memory goes now, not with whoever remembers the worker
        finally:
            self.lead.close()
            self._poller.close()
            self.controller.claims.end_waits()
            self.locks.bytes.close()
