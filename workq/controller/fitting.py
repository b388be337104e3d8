"""Queues that want something done in each worker before its first and after its last unit: what workers tell of that.

Called under the lead, by whoever reads; the core is told, and decides. The worker's side is ``worker/fitting.py``.
"""

from __future__ import annotations

import logging
from marshal import dumps as marshal_dumps
from marshal import loads as marshal_loads
from typing import TYPE_CHECKING, Any

from workq.core.events import WorkerFit, WorkerToreDown, WorkerUnfit, WorkTaken
from workq.core.states import UnitState
from workq.errors import SetupFailed
from workq.outcome import Ended
from workq.transport import codec
from workq.transport.channel import DOWN_TEAR_DOWN, SET_UP_FAILED, SET_UP_WELL, down_frame

if TYPE_CHECKING:
    from workq.controller.loop import Loop
    from workq.controller.records import Queue, Worker
    from workq.core.ids import QueueId
    from workq.errors import Halt

logger = logging.getLogger("workq")


class Fittings:
    """What the workers of one controller have told. With the lead."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    # ------------------------------------------------------------ set-up

    def set_up(self, worker: Worker, payload: Any) -> None:
        """A worker has been set up for its queue, or could not be."""
        number, how, error = marshal_loads(payload)
        queue = worker.queue
        if queue is None or queue.number != number:  # deleted meanwhile
            return
        if how == SET_UP_WELL:
            worker.set_up_for.add(queue.number)
            if queue.outfit is not None and queue.outfit.tear_down is not None:
                queue.fit.add(worker)
                worker.has_to_tear_down[queue.number] = queue
            self._loop.tell(WorkerFit(worker.number, queue.number))
            return
        worker.quota = 0  # whatever the core decides: it takes nothing more
        worker.told_spent = True
        if how == SET_UP_FAILED:
            _keep(queue, error)
        if queue.session:  # first: the core must not look for another worker
            self._loop.command(self._loop.sessions.lose, queue, None)
        self._loop.tell(WorkerUnfit(worker.number, queue.number, how == SET_UP_FAILED))

    @staticmethod
    def awaits_set_up(worker: Worker, queue: Queue) -> bool:
        """Return whether a worker has yet to be set up for a queue, as far as it has told."""
        return queue.outfit is not None and queue.outfit.set_up is not None and queue.number not in worker.set_up_for

    def died(self, worker: Worker, queue: Queue | None, halt: Halt) -> None:
        """A worker has ended under a unit of a queue. If it had not been set up for it yet, that is as a set-up that fails."""
        if queue is not None and worker.killed_for is None and self.awaits_set_up(worker, queue):
            _keep(queue, codec.dump_error(SetupFailed(f"workers end while they are set up for queue {queue.name}: {halt}")))
            self._loop.tell(WorkerUnfit(worker.number, queue.number, failed=True))

    def fail_queue(self, number: QueueId) -> None:
        """No worker can be set up for a queue: its units that waited when the last set-up failed fail with its error.

        One that was queued since is tried: whoever queued it may have heard of that failure, and mended what the set-up needs.
        """
        loop, queue = self._loop, self._loop.controller.queues.get(number)
        if queue is None:
            return
        with queue.in_hand():
            with loop.dispatcher.lock:
                dropped = loop.dispatcher.drop_all(queue)
                loop.dispatcher.put_back(queue, [unit for unit in dropped if unit.id > queue.set_up_failed_at])
            for unit in dropped:
                if unit.id <= queue.set_up_failed_at:
                    queue.failed += 1
                    loop.ends.settle(unit, Ended(UnitState.FAILED, payload=queue.set_up_error))
        loop.told(queue, 0)
        loop.tell(WorkTaken(number))
        loop.look_at(queue)
        loop.lead.wake_ready()

    # ------------------------------------------------------------ tear-down

    def tear_down(self, worker: Worker, number: QueueId) -> None:
        """Have a worker do what a queue wants done last. It serves no queue until it says that it has. Under the lock."""
        queue = worker.tears_down = worker.has_to_tear_down[number]
        worker.set_up_for.discard(queue.number)
        worker.outgoing.send(down_frame(DOWN_TEAR_DOWN, marshal_dumps(int(queue.number))))

    def tore_down(self, worker: Worker, payload: Any) -> None:
        """A worker has done it, well or not."""
        number, error, chunks = marshal_loads(payload)
        worker.tears_down = None
        queue = worker.has_to_tear_down.get(number)
        if queue is not None:
            if chunks:
                queue.outputs.append(Words(chunks))  # type: ignore[arg-type]  # whoever writes them looks at `extra` only
            if error:
                self._loop.controller.delivery.call(_tell_failure, queue.name, worker.name, worker.pid, error)
            self._done(worker, queue)
        self._loop.tell(WorkerToreDown(worker.number))

    def gone(self, worker: Worker) -> None:
        """A worker has exited: nobody waits for it any more."""
        if worker.tears_down is not None:
            logger.warning("%s (pid %d) has ended before its teardown of queue %s had", worker.name, worker.pid, worker.tears_down.name)
        worker.tears_down = None
        for queue in list(worker.has_to_tear_down.values()):
            self._done(worker, queue)

    def _done(self, worker: Worker, queue: Queue) -> None:
        queue.fit.discard(worker)
        worker.has_to_tear_down.pop(queue.number, None)
        self._loop.lead.wake_ready()


def _keep(queue: Queue, error: bytes) -> None:
    """Keep how a set-up has failed, and which units were queued by then."""
    queue.set_up_error = error
    queue.set_up_failed_at = next(queue.ids)


class Words:
    """What was written during a teardown: stands where a unit with output would, for whoever writes the outputs."""

    def __init__(self, chunks: list[tuple[int, str]]) -> None:
        self.extra = self
        self.value = None  # it has ended
        self.output = chunks
        self.emitted = 0


def _tell_failure(queue: str, worker: str, pid: int, error: bytes) -> None:
    """In the delivery thread: to read an exception may run code of anybody."""
    logger.error("the teardown of queue %s failed in %s (pid %d)", queue, worker, pid, exc_info=codec.load_error(error))
