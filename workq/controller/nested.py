"""Queues that units make: they live here, in the parent, and their outcomes go back to the worker whose unit waits for them.

The worker's side is ``workq.hosts.nested``. Both speak in marshalled tuples: requests come up with `UP_REQUEST`, outcomes go down with
`DOWN_REPLY`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count
from marshal import dumps as marshal_dumps
from marshal import loads as marshal_loads
from typing import TYPE_CHECKING, Any

from workq.category import packed
from workq.controller.children import ANSWERED, NEWS, POOLS_NEWS, Children
from workq.controller.outfit import Outfit
from workq.controller.records import Call, Options, Queue, Worker
from workq.core.events import QueueId, QueueOpened, QueuePaused, QueueResumed
from workq.core.states import UnitState
from workq.outcome import Ended, Raw, SegmentRaw
from workq.transport import codec
from workq.transport.board import WAIT_NUMBER, WAIT_QUEUE
from workq.transport.channel import DOWN_REPLY, Frame, down_frame
from workq.unit import Unit

if TYPE_CHECKING:
    from workq.controller.loop import Loop

VALUE, PICKLED, ENDED = range(3)  # what a reply holds
FIRST_NUMBER = 1 << 40  # of nested queues, apart from those that the application makes


class Nested:
    """The nested queues of all workers. ``_ended`` may be appended to by any thread, the rest belongs to the controller's."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._queues: dict[tuple[int, int], Queue] = {}  # by worker and the worker's number of the queue
        self._calls: dict[tuple[int, int], Call] = {}
        self._open_units: dict[tuple[Queue, int], Unit[Any]] = {}  # that are open, by queue and number
        self._requests: deque[tuple[Worker, Any]] = deque()
        self._ended: deque[Unit[Any]] = deque()
        self._stillness: dict[tuple[int, int], tuple[Worker, int, Queue]] = {}  # by queue: who asked when no unit of it runs
        self._next_number = FIRST_NUMBER
        self.children = Children(loop)

    # ------------------------------------------------------------ requests

    def request(self, worker: Worker, frame: Frame) -> None:
        """Keep what a unit asks for until the controller comes. Under the lead."""
        request = worker, marshal_loads(frame.payload)
        keep = self._requests.append
        frame.taken = True
        keep(request)
        self._loop.command(self.answer)

    def answer(self) -> None:
        """Do what units have asked for."""
        while self._requests:
            worker, (what, number, *rest) = self._requests.popleft()
            if worker.exited:
                continue
            key = int(worker.number), number
            if what == "pools":
                self._tell_pools(worker)
            elif what == "open":
                self._open(worker, key, *rest)
            elif what == "withdraw":  # of a queue that may have been closed meanwhile
                self.children.withdraw(worker, self._queues.get(key), *rest)
            elif what == "begun":
                self.children.begun(worker, number, *rest)
            elif what == "ended":
                self.children.ended(worker, number, *rest)
            elif what == "offer":
                if key in self._queues:
                    self.children.offer(self._queues[key], number, *rest)
            elif key in self._queues:
                answers: dict[str, Callable[..., None]] = {
                    "units": self._units,
                    "cancel": self._cancel,
                    "pause": self._pause,
                    "drop": self._drop,
                    "unbegun": self._drop_unbegun,
                    "stop": self._stop,
                    "close": self._close,
                    "resize": self._resize,
                    "drop_oldest": self._drop_oldest,
                }
                answers[what](worker, self._queues[key], key, *rest)
            elif what in ("pause", "drop", "close") and rest[-1]:
                self._answer_question(worker, rest[-1])

    def _open(
        self,
        worker: Worker,
        key: tuple[int, int],
        name: str,
        category: str,
        max_workers: int,
        delete_timeout_s: float,
        outfit: tuple[Any, Any] | None,
        session: bool,
    ) -> None:
        limits = self._loop.controller.pools.get(category)
        if limits is None:  # deleted, and only a thread that a unit has left may ask
            return
        self._next_number += 1
        queue = Queue(self._loop.controller, QueueId(self._next_number), name, category, max_workers, delete_timeout_s)
        queue.max_workers = limits.clamp(max_workers)  # which may have changed since the unit has looked
        queue.owner = worker
        queue.outfit = Outfit(*outfit) if outfit is not None else None
        queue.session = session
        queue.opened = True
        queue.output_to = "discard"  # the unit that waits writes it, as its own
        self._queues[key] = queue
        self._loop.controller.queues[queue.number] = queue
        queue.depth_of_nest = 1 + (worker.queue.depth_of_nest if worker.queue is not None else 0)
        tears_down = outfit is not None and outfit[1] is not None
        opened = QueueOpened(
            queue.number,
            category,
            queue.max_workers,
            queue.depth_of_nest,
            owner=worker.number,
            session=session,
            tears_down=tears_down,
        )
        self._loop.tell(opened)

    def _tell_pools(self, worker: Worker) -> None:
        """Say what the categories are now."""
        controller = self._loop.controller
        version = controller.pools_version  # first: what changes in between is asked for again
        self.send(worker, (NEWS, POOLS_NEWS, version, packed(list(controller.pools.values()))))

    def tell_owners(self) -> None:
        """The categories have changed: units that wait may have to run their own units from now on."""
        for number in {number for number, _ in self._queues}:
            worker = self._loop.by_number.get(number)
            if worker is not None and not worker.outgoing.waiting:  # else it does not read, and looks by itself when it does
                self._tell_pools(worker)

    def _drop_oldest(self, worker: Worker, queue: Queue, key: tuple[int, int], why: str) -> None:
        self._loop.controller.drop_oldest(queue, why)

    def _resize(self, worker: Worker, queue: Queue, key: tuple[int, int], wanted: int) -> None:
        category = self._loop.controller.pools.get(queue.category)
        queue.wanted_workers = wanted
        if category is not None:
            self._loop.controller.resize_queue(queue, category.clamp(wanted))

    def send(self, worker: Worker, reply: tuple[Any, ...]) -> None:
        """Send a reply down, in its turn."""
        with self._loop.dispatcher.lock:
            worker.outgoing.send(down_frame(DOWN_REPLY, marshal_dumps(reply)))

    def _units(self, worker: Worker, queue: Queue, key: tuple[int, int], calls: list[Any], units: list[Any]) -> None:
        for number, pickled, keywords, name, options in calls:
            call_number = next(self._loop.controller.call_numbers)
            self._calls[int(worker.number), number] = Call(queue, call_number, pickled, keywords, name, Options.of_plain(options))
        for unit_id, number, data, queued_ns in units:
            call = self._calls[int(worker.number), number]
            unit: Unit[Any] = Unit(call, data, unit_id, queued_ns)
            unit.need_extra().waiters.append(self)
            self._open_units[queue, unit_id] = unit
            queue.backlog(call.options.priority).append(unit)
            if queue.lost_by is not None:  # a session: lost before this one came
                queue.backlog(call.options.priority).remove(unit)
                self._loop.sessions.fail(unit)
            if call.options.queue_timeout is not None:
                self._loop.controller.watch_queue_time(unit)
            queue.ids = count(unit_id + 1)  # the worker numbers them
        self._loop.look_at(queue)

    def _cancel(self, worker: Worker, queue: Queue, key: tuple[int, int], unit_id: int) -> None:
        unit = self._open_units.get((queue, unit_id))
        if unit is not None:
            self._loop.controller.cancel(unit)

    def _pause(self, worker: Worker, queue: Queue, key: tuple[int, int], paused: bool, question: int) -> None:
        queue.paused = paused
        queue.told = 0
        self._loop.tell(QueuePaused(queue.number) if paused else QueueResumed(queue.number))
        if paused:
            self._loop.recalls.hold_back(queue)
        self._loop.look_at(queue)
        self._stillness[key] = worker, question, queue
        self._tell_stillness()

    def _tell_stillness(self) -> None:
        """Answer those who asked when no unit of a queue that was paused or deleted runs any more."""
        for key, (worker, question, queue) in list(self._stillness.items()):
            if self._loop.controller.is_still(queue):
                del self._stillness[key]
                self._answer_question(worker, question)

    def _drop(self, worker: Worker, queue: Queue, key: tuple[int, int], why: str, last: int, question: int) -> None:
        queue.cleared = last
        self._loop.withdrawals.drop_waiting(queue, why, last)
        self.reply()  # those that were dropped, before the answer
        self._answer_question(worker, question)

    def _drop_unbegun(self, worker: Worker, queue: Queue, key: tuple[int, int], unit_id: int) -> None:
        unit = self._open_units.get((queue, unit_id))
        if unit is not None:
            self._loop.withdrawals.drop_unbegun(unit)

    def _stop(self, worker: Worker, queue: Queue, key: tuple[int, int], why: str, last: int) -> None:
        self._loop.withdrawals.stop_running(queue, why, last)

    def _answer_question(self, worker: Worker, question: int) -> None:
        if not worker.exited:
            self.send(worker, (NEWS, ANSWERED, question))

    def _close(self, worker: Worker, queue: Queue, key: tuple[int, int], question: int) -> None:
        del self._queues[key]
        for number in [number for number, call in self._calls.items() if call.queue is queue]:
            del self._calls[number]
        self._loop.withdrawals.delete_queue(queue)
        self._stillness.pop(key, None)
        if question:  # the unit waits until none of its runs any more
            self._stillness[key] = worker, question, queue
            self._tell_stillness()

    def units_of(self, worker: Worker, number: int, unit_id: int) -> list[Unit[Any]]:
        """Return the units that a worker's unit waits for: the one of this number, or all that run (0). For the search for circles."""
        queue = self._queues.get((int(worker.number), number))
        if queue is None:
            return []
        running = [self._loop.dispatcher.running(one) for one in list(queue.workers)]
        return [one[0] for one in running if one is not None and unit_id in (0, one[0].id)]

    def waited_for(self, worker: Worker) -> list[Queue]:
        """Return the queue whose units a worker's unit waits for; where its board does not say, those it has made that are busy."""
        if worker.words[WAIT_NUMBER] & 1:
            queue = self._queues.get((int(worker.number), int(worker.words[WAIT_QUEUE])))
            return [queue] if queue is not None else []
        return [queue for queue in self._queues.values() if queue.owner is worker and queue.busy()]

    def worker_gone(self, worker: Worker) -> None:
        """Nobody waits any more for what a dead worker's unit had queued."""
        for key in [key for key in self._queues if key[0] == int(worker.number)]:
            self._loop.withdrawals.delete_queue(self._queues.pop(key))
        for key in [key for key in self._calls if key[0] == int(worker.number)]:
            del self._calls[key]

    # ------------------------------------------------------------ outcomes (a waiter, as concurrent.futures has them)

    def add_result(self, unit: Unit[Any]) -> None:
        """A unit of a nested queue has ended."""
        self._ended.append(unit)
        self._loop.command(self.reply)

    add_cancelled = add_exception = add_result

    def reply(self) -> None:
        """Send the outcomes back."""
        while self._ended:
            unit = self._ended.popleft()
            self._open_units.pop((unit.call.queue, unit.id), None)
            owner = unit.call.queue.owner
            key = next((key for key, queue in self._queues.items() if queue is unit.call.queue), None)
            unit.call.queue.ended.clear()
            unit.call.queue.outputs.clear()
            if owner is None or owner.exited or key is None:
                continue
            self.send(owner, (key[1], unit.id, *outcome(unit)))
        self._tell_stillness()


def outcome(unit: Unit[Any]) -> tuple[Any, ...]:
    """Return what the worker has to know of a unit that has ended."""
    value = unit.value
    times = unit.started_ns, unit.ended_ns, [tuple(attempt) for attempt in unit.attempts[:-1]]
    name = unit.worker_record.name if unit.worker_record is not None else ""
    output = unit.extra.output if unit.extra is not None else []
    if type(value) is SegmentRaw:
        return PICKLED, value.payload(), UnitState.DONE.value, output, times, name
    if type(value) is Raw:
        return PICKLED, bytes(value.payload), UnitState.DONE.value, output, times, name
    if type(value) is Ended:
        data = bytes(value.payload) if value.error is None else codec.dump_error(value.error, unit.label)
        return ENDED, data, value.state.value, output, times, name
    return VALUE, value, UnitState.DONE.value, output, times, name
