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
    facts,
    fitting,
    halts,
    limits,
    locking,
    nested,
    perform,
    poller,
    recycling,
    sessions,
    slow,
    stopping,
    surroundings,
)
from workq.controller.blocking import BlockedJudge
from workq.controller.dispatch import Dispatcher
from workq.controller.records import NEVER, Batch, Call, Queue, Worker
from workq.controller.waiting import STREAM_S, Bell, Lead, expects
from workq.core.events import CategoryAdded, Event, Limits, QueueClosed, QueueOpened, Tick, WorkerId, WorkerTook
from workq.core.scheduler import Scheduler
from workq.engines.protocol import Engine, Exited, Started, StartFailed
from workq.transport import bells
from workq.transport.board import STARTED, load_barriers
from workq.transport.channel import Frame
from workq.unit import PENDING, Ended, Unit, cancelled

if TYPE_CHECKING:
    from workq.category import Category
    from workq.controller.controller import Controller
    from workq.controller.gate import Gate
    from workq.controller.queuetime import QueueTimes

logger = logging.getLogger("workq")

LOAD_AFTER_S = 0.1  # by then the first units have ended, and nobody waits for the interpreter while it imports
LOCK_S = 1.0  # a unit's lock is held for microseconds; who holds it for longer was struck by an exception, and will not give it back


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
        self.dispatcher.too_many_kept = self._too_many_kept
        self.dispatcher.tell_notes = self._tell_notes
        self.dispatcher.after_end = self.after_end
        self.dispatcher.failed_end = self._failed_end
        self.dispatcher.watch = self._watch_limits
        self.lead = Lead(self.dispatcher, *own_bells)
        self.by_number: dict[int, Worker] = {}
        self.stops = stopping.Stops(self)
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
        self.locks = locking.Locks(self)
        self.thread: threading.Thread | None = None
        self.closing = False
        self._starting = threading.RLock()
        self._events: deque[Event | threading.Event] = deque()  # for the core, from any thread
        self._commands: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()  # for us, from any thread
        self.attention: set[Queue] = set()  # queues whose backlog the core should hear of; any thread adds
        self._to_sweep: set[Queue] = set()  # queues for which `sweep_soon` was called; any thread adds
        self._told: set[Queue] = set()  # queues that the core believes to be waiting
        self.crowded: list[Gate] = []  # where somebody waits for room in a queue; any thread adds, and takes its own off
        self._ends: deque[Unit[Any]] = deque()  # units of which somebody must be told, from any thread
        self._core_now = 0.0  # when the core was last told anything
        self._poller = poller.make(self.bell_fd, self.engine)
        self._heartbeat_due = time.monotonic() + self.settings.heartbeat_s
        self._recall_due: float | None = None
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

    def tell_category(self, category: Category) -> None:
        """Have the core hear of a category, or of its new limits."""
        limits = Limits(category.max_active_workers, category.max_total_workers, category.always_queue)
        self.tell(CategoryAdded(category.name, limits))

    def sweep_soon(self, queue: Queue) -> None:
        """Have ended units taken out of a queue's backlogs. Asked for again before that was done, it is done once."""
        if queue not in self._to_sweep:
            self._to_sweep.add(queue)
            self.command(self._sweep, queue)

    def _sweep(self, queue: Queue) -> None:
        self._to_sweep.discard(queue)
        with self.dispatcher.lock:
            self.dispatcher.sweep(queue)

    def settle_changes(self) -> None:
        """Wait until the core has heard all that it was told so far, and its orders hold: what was changed acts from here on.

        Bounded, and not where the thread that asks has interrupted itself in the middle of what the controller waits for.
        """
        lead, lock = self.lead.lock, self.dispatcher.lock
        if self.thread is None or threading.current_thread() is self.thread or lead._is_owned() or lock._is_owned():  # type: ignore[attr-defined]
            return
        heard = threading.Event()
        self._events.append(heard)
        self.ring()
        heard.wait(LOCK_S)

    def command(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have something done in the controller's thread, with the lead."""
        self._commands.append((function, arguments))
        self.ring()

    def look_at(self, queue: Queue) -> None:
        """Have the controller look at a queue's backlog."""
        self.attention.add(queue)
        self.ring()
        if self.thread is None:
            self.start()

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
            self._fail_everything("the controller has failed; see the log of 'workq'")
        finally:
            self._end()

    def _load_later(self) -> None:
        """Load what the first unit did not need, once it has had the time to end; and try again where no descriptor is left for it."""
        if self._load_due is not None and time.monotonic() >= self._load_due:
            self._load_due = None
            try:
                halts.load()
            except (ImportError, OSError):
                self._load_due = time.monotonic() + self.settings.heartbeat_s

    def _wait(self) -> list[tuple[int, int]]:
        """Wait until something happens or is due."""
        if self._commands or self._events or self._ends or self.locks.inbox:
            return []
        due = [self._heartbeat_due if self.by_number else None, self.core.next_deadline(), self.engine.next_deadline()]
        due += [self._recall_due, self.stops.next_check, self.judge.next_look, self.recycler.next_look, self.unit_limits.next_look]
        due.append(self._load_due)
        times = [moment for moment in due if moment is not None]
        timeout = max(0.0, min(times) - time.monotonic()) if times else -1
        while self.lead.streaming and not (0 <= timeout < STREAM_S):
            ready = self._poller.poll(STREAM_S)
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
        while self._ends:
            self._tell_end(self._ends.popleft())
        commands = [self._commands.popleft() for _ in range(len(self._commands))]
        must = bool(commands or engine_events) or self.stops.due(begun) or self.unit_limits.due(begun)
        must = must or (self._recall_due is not None and self._recall_due <= begun) or self._recall_possible()
        must = must or any(expects(worker) for worker in self.dispatcher.workers)
        again = False
        if self.lead.take(must):
            try:
                self._with_the_lead(engine_events, commands, begun)
            finally:
                again = self.lead.give_up()
        else:
            self.lead.kick_lone()
            if self.dispatcher.watched and self._recall_due is None:  # whoever leads is left alone until it may be time
                self._recall_due = begun + min(self.settings.long_after_s, self.settings.silent_after_s)
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
        self.departures.see_off()
        self._watch_sockets()
        if self.crowded and any(gate.has_room() for gate in tuple(self.crowded)):
            self.lead.wake_all()
        self.turns_s += self.clock() - begun
        if again:
            self.ring()

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
        self.lead.pump()
        self.stops.check(now)
        self.unit_limits.check(now)
        self._recall(now)

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
            self.dispatcher.wanted_dry = bool(self._told) or any(row.restless or row.beyond > 0 for row in self.core.categories.values())
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

    # ------------------------------------------------------------ units that wait behind a long one

    def _recall(self, now: float) -> None:
        """Take back units that were sent behind one that turns out long: soon where another worker could run them, else later.

        Later, as nobody can run them yet; but the core has to know that they wait, or it would not look whether the long one is blocked.
        """
        due = []
        for worker in self._holders():
            queue = worker.queue
            moment = self._recall_moment(worker, now)
            if moment > now:
                due.append(moment)
                continue
            with self.dispatcher.lock:
                self.dispatcher.recall(worker)
                self.dispatcher.dispatch(queue)
            self.attention.add(queue)
        if not due and self.dispatcher.watched:  # one more look before we say that we do not look: to be asked again costs a wake-up
            last = now + self.settings.long_after_s if self._recall_due is None else self._recall_due
            due = [last] if last > now else []
        self._recall_due = min(due, default=None)
        self.dispatcher.watched = bool(due)

    def _recall_possible(self) -> bool:
        """Return whether another worker could run what one holds behind a unit: then it is taken back soon."""
        return any(facts.could_run_elsewhere(self, worker.queue, worker) for worker in self._holders())

    def _holders(self) -> list[Any]:
        """Return the workers that hold units which they have not begun, of queues that have no others waiting; the oldest units first."""
        holders = [
            worker
            for worker in self.dispatcher.workers
            if (queue := worker.queue) is not None
            and not (worker.limited or queue.paused or queue.depth())
            and facts.holds_more_than_one(worker)
        ]
        return sorted(holders, key=facts.oldest_held) if len(holders) > 1 else holders

    def _recall_moment(self, worker: Any, now: float) -> float:
        running = self.dispatcher.running(worker)
        if running is None:  # it has begun nothing of what it was sent: about to wake, or stopped by a signal
            reading_s = sum(batch.size_bytes for batch in worker.batches) / self.settings.slowest_bytes_per_s
            return float(worker.silent_since(now) + self.settings.silent_after_s + reading_s)
        if facts.could_run_elsewhere(self, worker.queue, worker):
            return float(running[1] + self.settings.recall_after_s)
        return float(running[1] + self.settings.long_after_s)

    def take_back(self, worker: Worker) -> None:
        """Take back what a worker has not begun: it is blocked, or is to come free. With the lead."""
        with self.dispatcher.lock:
            if worker.batches and not worker.limited:
                self.dispatcher.recall(worker)
            if worker.queue is not None:
                worker.queue.told = 0
                self.dispatcher.dispatch(worker.queue)
                self.attention.add(worker.queue)

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

    # ------------------------------------------------------------ ends of units

    def after_end(self, unit: Unit[Any]) -> None:
        """A unit that has an `extra` has ended: have those told that wait in another way. Any thread, and more than once does no harm."""
        extra = unit.extra
        if extra is not None and extra.untold:
            large = extra.large
            if large is None:
                return  # nobody waits for it in another way, and who comes from now on sees that it has ended
            if self.controller.segments.give_back(large.segment, large.turn):
                extra.large = None
                return
        if threading.current_thread() is self.thread:
            self._tell_end(unit)
        else:
            self._ends.append(unit)  # not here: an exception of a signal handler could stop us between two of those who wait
            self.ring()

    def _tell_end(self, unit: Unit[Any]) -> None:
        """Wake who waits for a unit in another way, and hand its callbacks over. Runs no user code."""
        extra = unit.extra
        if extra is None or unit.value is PENDING:
            return
        held = extra.lock.acquire(timeout=LOCK_S)  # unless concurrent.futures was struck while it held it
        try:
            if extra.notified:
                return
            extra.notified = True
            if held:
                extra.notify()
            for waiter in extra.to_tell:
                if unit.cancelled():
                    waiter.add_cancelled(unit)
                elif type(unit.value) is Ended:
                    waiter.add_exception(unit)
                else:
                    waiter.add_result(unit)
            callbacks, extra.callbacks = extra.callbacks, []
        finally:
            if held:
                extra.lock.release()
        for callback in callbacks:
            self.controller.delivery.call(callback, unit)
        if extra.history:
            from workq.controller import retrying  # loaded already, by whoever asked for retries

            retrying.forget(self, unit)
        extra.handles.clear()
        if extra.large is not None:
            if extra.large.turn == extra.large.segment.turn:
                self.controller.segments.free(extra.large.segment)
            extra.large = None
        if extra.stopping is not None:
            self.ring()

    def _tell_notes(self, unit: Unit[Any], notes: list[str]) -> None:
        """Log what a unit has left behind in its worker. Under the lead, so another thread does it."""
        if logger.isEnabledFor(logging.INFO):
            self.controller.delivery.call(logger.info, "unit %s: %s", unit.label, "; ".join(notes))

    def _too_many_kept(self, queue: Queue) -> None:
        """Nobody collects a queue's units: say so, once."""
        if not queue.warned:
            queue.warned = True
            logger.warning(
                "queue %s keeps %d ended units that nobody has collected; the oldest successes are let go. "
                "Call sync(), wait_one() or result().",
                queue.name,
                self.settings.uncollected_units,
            )

    def settle(self, unit: Unit[Any], value: Any) -> None:
        """End a unit from here: cancelled, lost or failed before it ran."""
        if unit.value is PENDING:
            if unit.extra is None:
                unit.value = value
            else:
                unit.extra.end(unit, value)
            unit.call.queue.ended.append(unit)
            if unit.extra is not None:
                self.after_end(unit)

    def _failed_end(self, worker: Worker, batch: Batch, at: int, kind: int, payload: Any) -> Any:
        return stopping.failed_end(self, worker, batch, at, kind, payload)

    def frame_arrived(self, worker: Worker, frame: Frame) -> None:
        """A frame other than a result; called under the lead."""
        facts.take_frame(self, worker, frame)

    # ------------------------------------------------------------ commands

    def stop_unit(self, unit: Unit[Any]) -> None:
        """A unit was cancelled that is in a worker's hands."""
        self.stops.stop(unit, "it was asked to")

    def break_off(self, queue: Queue, unit: Unit[Any] | None, kill: bool, last: int) -> None:
        """Cancel a unit, or all of a queue's that are open, up to a number; kill those that were asked to end before, or all."""
        for one in queue.open_list() if unit is None else (unit,):
            if one.value is PENDING and one.id <= last:
                again = one.extra is not None and one.extra.stopping is not None
                self.stops.stop(one, "somebody pressed Ctrl-C")
                if kill or again:
                    self.stops.kill_now(one)

    def delete_queue(self, queue: Queue) -> None:
        """Drop what waits, stop what runs, and tell the core."""
        queue.closed = True
        for one in tuple(queue.recurring):
            one.stop()
        self.drop_waiting(queue, queue.why_deleted)
        with self.dispatcher.lock:
            self.dispatcher.forget(queue)
        self.stop_running(queue, queue.why_deleted)
        self.nested.children.forget(queue)
        if queue.cleanups:
            self.departures.add(queue)
        if queue.opened and not queue.gone:
            queue.gone = True
            self._told.discard(queue)
            self.attention.discard(queue)
            self._events.append(QueueClosed(queue.number))
        self.lead.wake_ready()

    def drop_waiting(self, queue: Queue, why: str, last: int = NEVER, spared: int = 0) -> None:
        """Cancel the units of a queue that have not begun, of the numbers above ``spared``, up to ``last``. With the lead."""
        with queue.in_hand():
            with self.dispatcher.lock:
                for worker in queue.workers:
                    if not worker.limited:
                        self.dispatcher.recall(worker)
                dropped = self.dispatcher.drop_all(queue)
                self.dispatcher.put_back(queue, [unit for unit in dropped if not spared < unit.id <= last])
            for unit in dropped:
                if not spared < unit.id <= last:
                    continue
                queue.cancelled += 1
                self.settle(unit, cancelled(unit, why))
        self.attention.add(queue)

    def drop_unbegun(self, unit: Unit[Any]) -> None:
        """Cancel a unit if it has not begun. With the lead."""
        queue = unit.call.queue
        with self.dispatcher.lock:
            place = self.dispatcher.find(unit)
            if place is not None and place[1] > place[0].words[STARTED]:
                self.dispatcher.recall(place[0])
            waits = self.dispatcher.waits(unit)
        if waits:
            queue.unusual = True
            queue.cancelled += 1
            self.settle(unit, cancelled(unit, "before it had begun"))
            with self.dispatcher.lock:
                self.dispatcher.trim(queue)
        self.attention.add(queue)
        self.lead.wake_ready()

    def stop_running(self, queue: Queue, why: str, last: int = NEVER) -> None:
        """Stop the units of a queue that have begun, up to a number. With the lead."""
        for worker in list(queue.workers):
            for batch in list(worker.batches):
                for unit in batch.units[batch.at :]:
                    if unit is not None and unit.value is PENDING and unit.id <= last:
                        self.stops.stop(unit, why)
        for unit in self.nested.children.of_queue(queue):
            if unit.id <= last:
                self.stops.stop(unit, why)

    def hold_back(self, queue: Queue) -> None:
        """A queue was paused: take back what its workers have not begun. With the lead."""
        with self.dispatcher.lock:
            for worker in queue.workers:
                if worker.batches and not worker.limited:
                    self.dispatcher.recall(worker)

    def told(self, queue: Queue, units: int) -> None:
        """Note what the core believes of a queue's backlog."""
        queue.told = NEVER if units >= queue.max_workers else units
        if units:
            self._told.add(queue)
        else:
            self._told.discard(queue)

    # ------------------------------------------------------------ the end

    def close(self, timeout_s: float) -> None:
        """Delete all queues, end the workers, end the thread. Called by the application's thread; bounded."""
        deadline = time.monotonic() + timeout_s
        with self._starting:  # a thread that was started and is not there yet finds that there is nothing to do
            self.closing = self.closing or self.thread is None
        if self.thread is None:
            self._end()
            return
        for queue in self.controller.every_queue():
            self.command(self.delete_queue, queue)
        queues = self.controller.every_queue()
        try:
            self.lead.wait(lambda: not any(queue.busy() or queue.fit for queue in queues), max(0.0, deadline - time.monotonic()))
        except RuntimeError:
            pass  # called from a signal handler that interrupted a wait: no waiting here
        self.closing = True
        self._close_by = deadline
        self.ring()
        if threading.current_thread() is not self.thread:
            self.thread.join(max(0.5, deadline + 1.0 - time.monotonic()))

    _close_by = 0.0

    def _end(self) -> None:
        """In the controller's thread, last of all: no process, descriptor or memory is left."""
        self.lead.take(must=True)
        try:
            for worker in self.dispatcher.workers:
                worker.leaving = True
            with contextlib.suppress(OSError):  # the application has closed every descriptor: what they led to ends by itself
                self.engine.close(max(self._close_by, time.monotonic() + 1.0))
            self._fail_everything("the controller was closed")
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

    def _fail_everything(self, why: str) -> None:
        """Nothing stays open: P1."""
        for queue in self.controller.every_queue():
            queue.closed = True
            with queue.in_hand():
                for unit in self.dispatcher.drop_all(queue):
                    self.settle(unit, cancelled(unit, why))
            for worker in queue.workers:
                for batch in (*worker.batches, *([worker.forming] if worker.forming else [])):
                    for unit in batch.units[batch.at :]:
                        if unit is not None:
                            self.settle(unit, cancelled(unit, why))
                worker.batches.clear()
                worker.forming = None
            for unit in self.nested.children.of_queue(queue):
                self.settle(unit, cancelled(unit, why))
        self.lead.wake_ready()
