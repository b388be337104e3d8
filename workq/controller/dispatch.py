"""The hot path: from a queue's backlog to a worker's socket, and from its board back to the unit.

Two locks, always taken in this order:

* ``lead``: the right to read boards and sockets. A waiting thread holds it, else the controller (waiting.py).
* ``lock``: backlogs, batches, frames. Held for microseconds, never while user code runs, never while waiting for anything.

A signal handler of the application may raise in the main thread between any two bytecodes of this file. Therefore each step that
must be whole is one store or one call of C, and everything half done is found again by the next one who comes (`mend`):

1. units leave the backlog and enter ``worker.forming`` in one call (``list.extend`` over ``deque.popleft``);
2. the batch enters ``worker.batches``; 3. it is sent, and marked so. A frame that is sent twice is ignored by the worker, as it
   names the number of its first unit;
4. reading: the unit is settled, then ``batch.at`` moves. Whoever reads next begins there, and settles again what was settled.
"""

from __future__ import annotations

import threading
import time
from _thread import get_ident
from collections import deque
from itertools import islice, repeat, starmap
from marshal import dumps as marshal_dumps
from marshal import loads as marshal_loads
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any

from workq.config import Settings
from workq.controller import backlog as backlogs
from workq.controller import outfit, tallies
from workq.controller.backlog import place_of, put_back
from workq.controller.records import GHOST, NEVER, OWN_FIRST, Batch, Call, Large, Queue, Worker
from workq.controller.row import Row
from workq.core.batches import work_s
from workq.core.states import UnitState
from workq.outcome import ASKED, PENDING, Ended, Raw, SegmentRaw
from workq.transport.board import (
    BATCH_AT,
    CONTROLLER,
    FINISHED,
    FRAMES,
    KIND_BITS,
    KIND_ERROR,
    KIND_FALSE,
    KIND_INT,
    KIND_INTERRUPTED,
    KIND_MARSHAL,
    KIND_NONE,
    KIND_NOTED,
    KIND_PICKLE,
    KIND_SEGMENT,
    KIND_SKIPPED,
    KIND_SOCKET,
    KIND_TRUE,
    LARGE,
    LENGTH_MASK,
    LENGTH_SHIFT,
    LIMIT,
    MASK,
    NO_LIMIT,
    NOBODY,
    POSITION_SHIFT,
    READ,
    RING_MASK,
    SLOTS,
    STARTED,
    WAIT,
    barrier_everywhere,
)
from workq.transport.channel import DOWN_HEAD, DOWN_UNITS, Frame, down_frame
from workq.transport.segments import copy_out
from workq.unit import Unit

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_LONE_TIMES = 256  # that wait to be noted where nobody waits for lone units
LONG_S = 0.01  # units that take longer than this are sent with one batch of credit instead of two
LARGE_FRAME_BYTES = 256 << 10  # reading so much may itself kill a worker, for memory; it is tried so often:
MOST_DEATHS_ON_ITS_WAY = 3
MOST_ASKED = 16  # ended units that were asked for and are kept all the same, until there is more of them
READINGS_LOOKED_AT = 4  # large results that were handed out, looked at with each frame
SHARE_S = 50e-6  # waiting units are shared out among workers in portions of at least so much work
LITTLE_S = 500e-6  # not shared out where a thread queues and reads in turn: two looks' worth (POLL_S)
MOST_LAG_S = 0.01  # where nobody comes to refill a worker in time (the application computes), its batches hold work for so long
LAG_KEPT = 0.97  # of what was measured of that, with each batch that came in time
POLL_S = 250e-6  # a thread that queues reads each time it has queued so much work, but
POLL_UNITS = 64, 512  # not more often, nor more seldom, than after so many units
KIND_MASK = (1 << KIND_BITS) - 1


class Dispatcher:
    """Sends units and reads results for all workers of one controller."""

    def __init__(self, settings: Settings, post: Callable[[], None], frame_arrived: Callable[[Worker, Frame], None]) -> None:
        self.settings = settings
        self.lock = threading.RLock()  # re-entrant only so that its owner can be told; nobody enters it twice
        self.lone_times: deque[tallies.LoneTimes] = deque()  # of units that were alone, to be taken in when there is time
        self.workers: list[Worker] = []  # replaced whole, by the controller, under the lock
        self.want = CONTROLLER  # whom workers are to ring: the leader while there is one
        self.row = Row()
        self.wanted_dry = False  # a queue waits for a worker: the controller wants to hear of each that runs dry
        self.post = post  # wakes the controller
        self.look_at: Callable[[Queue], None] = lambda queue: None  # has it look at a queue's backlog
        self.sweep_soon: Callable[[Queue], None] = lambda queue: None  # has it take ended units out of a queue's backlogs
        self.frame_arrived = frame_arrived  # takes a frame other than a result; called under the lead, runs no user code
        self.after_end: Callable[[Unit[Any]], None] = lambda unit: None  # callbacks, waiters: for units that have an `extra`
        self.watch: Callable[[list[Call]], None] = lambda calls: None  # units of these, which have limits, were sent
        self.tell_notes: Callable[[Unit[Any], list[str]], None] = lambda unit, notes: None  # what it has left behind
        self.too_many_kept: Callable[[Queue], None] = lambda queue: None
        self.watched = False  # the controller looks from time to time who holds units behind a long one
        self.failed_end: Callable[[Worker, Batch, int, int, Any], Any] = lambda worker, batch, at, kind, payload: None

    # ------------------------------------------------------------ sending

    def dispatch(self, queue: Queue) -> None:
        """Give waiting units to the queue's workers, as many as their credit allows. Under the lock.

        Idle workers get a unit at once. While workers are busy units pile up, and the next frame takes as many as fit in
        ``batch_target_s`` of measured work, or more where many wait: two batches of credit while units are short, one when they are long.
        Little work of a thread that goes on queueing goes to one worker, a busy one before an idle one: to wake the other costs more.
        """
        if self._dispatch_lone(queue):
            return
        if self.row.thread:
            self.row.end(self.workers)
            self.post()
        else:
            self.row.stop()
        settings = self.settings
        estimate = queue.estimate_s
        credit = 2 if estimate < LONG_S else 1
        most = 1  # of unknown length: others would wait behind it
        if estimate:
            target_s = work_s(settings.batch_target_s, queue.lag_s, 0.0 if queue.ranked else len(queue.pending) * estimate)
            most = min(settings.batch_units, int(target_s / estimate) or 1, int(settings.batch_bytes / queue.bytes_each) or 1)
        workers = queue.workers
        streaming = self.want == NOBODY  # a thread queues and reads in turn, and is soon here again
        little = streaming and queue.depth() * estimate < LITTLE_S and not any(map(self._takes_long, workers))
        turns = workers if len(workers) == 1 else sorted(workers, key=_batches_in_flight, reverse=little)
        if queue.lag_s > settings.batch_target_s:
            turns = [*turns, *reversed(turns)]  # nobody comes in time to bring the second batch: both go now
        for worker in turns:
            pending = queue.front()
            if not pending or queue.paused:
                break
            if not self._may_take(worker, credit, estimate):
                continue
            share = len(pending) if little else -(-len(pending) // queue.max_workers)
            if share * estimate < SHARE_S:
                share = int(SHARE_S / estimate) if estimate else share  # a frame costs more than so little work is worth
            number = min(most, share, len(pending))
            if worker.allowance is not None:
                number = min(number, worker.allowance)
                worker.allowance -= number
            if worker.quota is not None:
                number = min(number, worker.quota)
                worker.quota = max(0, worker.quota - number)  # whoever reads may have set it to 0 just now
            self._form(queue, worker, pending, number)
        queue.room = self._has_room(workers, streaming, credit, estimate)
        self._tell_waiting(queue)

    def _has_room(self, workers: list[Worker], streaming: bool, credit: int, estimate: float) -> bool:
        """Return whether units are to be sent as they come; else they wait for who reads next, and go together."""
        if streaming and any(map(_batches_in_flight, workers)):
            return False
        for worker in workers:  # a loop, as a generator takes longer to make than this
            if self._may_take(worker, credit, estimate):
                return True
        return False

    def _takes_long(self, worker: Worker) -> bool:
        """Return whether a worker is at a unit that takes longer than it was to."""
        running = self.running(worker)
        return running is not None and time.monotonic() - running[1] > LITTLE_S

    def _dispatch_lone(self, queue: Queue) -> bool:
        """The short way of one unit to an idle worker that knows its function: no arithmetic of batches."""
        workers, pending = queue.workers, queue.pending
        if not workers or len(pending) != 1 or queue.ranked or queue.unusual or queue.paused:
            return False
        worker = workers[0]
        if worker.batches or worker.limited or worker.forming:
            return False
        call = pending[0].call
        if call not in worker.known or call.watched:
            return False
        if worker.lent or worker.freed or type(pending[0].data) is not bytes:
            return False
        if worker.told_blocked or worker.outgoing.waiting or worker.leaving or worker.exited or worker.allowance is not None:
            return False
        if worker.quota is not None:
            return False
        batch = worker.forming = Batch(queue, worker.next_number)
        batch.tried = True
        units = batch.units
        units.extend(starmap(pending.popleft, _ONCE))
        worker.next_number = batch.first + 1
        worker.batches.append(batch)
        worker.forming = None
        unit = units[0]
        caller, row = get_ident(), self.row  # first: nothing is called in the next line, so that no thread changes what it reads
        worker.words[WAIT] = NOBODY if row.thread == caller else self.want
        payload = marshal_dumps((batch.first, call.number, (unit.data,), (unit.id,), None), 2)
        worker.outgoing.send(DOWN_HEAD.pack(len(payload)) + payload)
        queue.bytes_down += len(payload)
        batch.sent = True
        return True

    def _may_take(self, worker: Worker, credit: int, estimate: float) -> bool:
        if worker.limited and not worker.batches:  # all that it was given has ended: it may begin anything again
            worker.words[LIMIT] = NO_LIMIT
            worker.limited = False
        flying = len(worker.batches)
        if flying >= credit or (flying and not estimate) or worker.limited or worker.told_blocked:
            return False
        if worker.outgoing.waiting or worker.leaving or worker.exited:
            return False
        return worker.allowance != 0 and worker.quota != 0

    def _form(self, queue: Queue, worker: Worker, pending: Any, number: int) -> None:
        """Move units from a backlog to a worker, in steps that can be taken up again."""
        batch = worker.forming
        if batch is None:
            batch = worker.forming = Batch(queue, worker.next_number)
        waiting = len(pending) if not queue.ranked else queue.depth()
        if waiting > queue.peak_depth:  # it falls only here: so this is where its peaks are
            queue.peak_depth = waiting
        try:
            batch.units.extend(starmap(pending.popleft, repeat((), number)))
        except IndexError:
            pass  # somebody else's hand in the backlog: fewer than there seemed
        self.mend(worker)

    def mend(self, worker: Worker) -> None:
        """Complete what was begun with a worker's batches: now, or after an exception struck between two steps."""
        batch = worker.forming
        if batch is not None:
            if batch.units and not batch.sent:
                worker.next_number = batch.first + len(batch.units)  # first: the next batch begins behind it, whatever strikes
                if batch not in worker.batches:  # one call of C: whoever reads may take some off
                    worker.batches.append(batch)
            worker.forming = None
        for batch in tuple(worker.batches):
            if not batch.sent:
                if batch.tried and (batch.at or GHOST in batch.units):  # it was read from, so it was sent; only that was not noted
                    batch.sent = True
                    continue
                batch.tried = True
                worker.words[WAIT] = self.want
                calls = set(map(_call_of, batch.units))
                worker.outgoing.send(self._frame(worker, batch, calls))
                worker.known |= calls
                batch.sent = True
                if worker.outgoing.waiting:
                    self.post()  # the controller writes on
                elif (len(worker.batches) > 1 or len(batch.units) > 1) and self._has_to_be_watched(batch.queue):
                    self.watched = True
                    self.post()  # the controller sees to it that what is behind a long unit comes back
                watched = [call for call in calls if call.watched]
                if watched:
                    self.watch(watched)

    def _has_to_be_watched(self, queue: Queue) -> bool:
        return not self.watched or len(queue.workers) < queue.max_workers

    def _frame(self, worker: Worker, batch: Batch, calls: set[Call]) -> bytes:
        """Return a batch as bytes. marshal frames a list of bytes at 10 ns each and keeps no memo between units."""
        units = batch.units
        same = len(calls) == 1
        if same:
            number = units[0].call.number
            items: list[Any] = [unit.data for unit in units]
        else:
            number = 0
            items = [(unit.call.number, unit.data) for unit in units]
        news: dict[str, Any] | None = None
        if not calls <= worker.known:
            unknown = calls - worker.known
            if len(worker.known) >= MOST_KNOWN:
                self._forget_idle(worker)
            news = {"functions": list(map(_introduction, unknown))}
            if limited := [call.number for call in unknown if call.limited]:
                news["measured"] = limited
            if batch.queue.outfit is not None:
                news["fitted"] = list(map(outfit.told, unknown))
        if worker.to_forget:
            news = {**(news or {}), "forget": worker.to_forget}
            worker.to_forget = []
        if worker.lent or worker.freed:
            freed = self._freed(worker)
            if freed:
                news = {**(news or {}), "free": freed}
        if batch.queue.large:
            _pack_large(worker, units, items, same)
        if batch.queue.unusual:
            news = self._mark_unusual(units, items, news)
        payload = marshal_dumps((batch.first, number, items, [unit.id for unit in units], news), 2)
        batch.size_bytes = len(payload)
        batch.queue.bytes_each = len(payload) / len(units) + 1
        batch.queue.bytes_down += len(payload)
        return down_frame(DOWN_UNITS, payload)

    @staticmethod
    def _forget_idle(worker: Worker) -> None:
        """A worker knows too many functions: it forgets all but those of the units that it has."""
        held = {unit.call for batch in tuple(worker.batches) for unit in tuple(batch.units) if unit is not GHOST}
        idle = worker.known - held
        worker.known -= idle
        worker.to_forget += [call.number for call in idle]

    @staticmethod
    def _freed(worker: Worker) -> list[int]:
        """Return the segments that a worker may write again: nobody has a view of them any more. Looks at a few only, in turn."""
        for _ in range(min(len(worker.lent), READINGS_LOOKED_AT)):
            reading = worker.lent.popleft()
            if reading.over():
                worker.freed.append(reading)
            else:
                worker.lent.append(reading)
        freed = []
        while worker.freed:
            last = worker.freed.popleft()
            worker.unread.discard(last)
            if last.number:
                freed.append(last.number)
        return freed

    @staticmethod
    def _mark_unusual(units: list[Any], items: list[Any], news: dict[str, Any] | None) -> dict[str, Any] | None:
        """Some are not as the others: cancelled ones, which the worker is to skip, and those that come again."""
        for index, unit in enumerate(units):
            if unit.value is not PENDING:
                items[index] = None
            elif unit.attempt > 1:
                news = news or {}
                news.setdefault("attempts", {})[unit.id] = unit.attempt
        return news

    def forget(self, queue: Queue) -> None:
        """A queue is deleted: neither we nor its workers keep its functions. Each hears of it with its next units. Under the lock."""
        for worker in self.workers:
            gone = {call for call in worker.known if call.queue is queue}
            if gone:
                worker.known -= gone
                worker.to_forget += [call.number for call in gone]

    def _tell_waiting(self, queue: Queue) -> None:
        """Have the core know of units that the workers of a queue cannot take now."""
        if queue.pending or queue.ranked:
            if queue.depth() > queue.told and not queue.paused:
                self.look_at(queue)

    # ------------------------------------------------------------ reading (under the lead)

    def read(self, worker: Worker) -> int:
        """Settle the units that a worker has ended since the last look; return how many."""
        words = worker.words
        ended = max(words[FINISHED], words[STARTED] - 1)
        if words[LARGE] > ended:
            ended = words[LARGE]  # its bytes are on their way
        if words[FRAMES] != worker.incoming.counted or worker.incoming.others or worker.waits_for_large or worker.incoming.partial:
            self._take_frames(worker)  # after the words: what a unit has sent before it ended is heard before its end
        total = 0
        while worker.batches:
            batch = worker.batches[0]
            at, units = batch.at, batch.units
            upto = min(ended - batch.first + 1, len(units))
            if at < upto:
                if worker.queue is not None:
                    worker.queue.room = True
                total += self._settle(worker, batch, at, upto)
                if batch.at < upto:
                    break  # a large result is not there yet
            if batch.at < len(units):
                break
            self._measure(worker, batch)
            worker.batches.popleft()
        if len(self.lone_times) > MOST_LONE_TIMES:
            tallies.note_lone(self.lone_times)
        if total:
            worker.waits_for_large = worker.waits_for_large and bool(worker.batches)
            worker.units_done += total
            queue = worker.queue
            if queue is not None:
                queue.room = True
            if queue is not None and (len(queue.ended) > queue.prune_at or queue.asked > max(MOST_ASKED, len(queue.ended) // 2)):
                self._prune(queue)
            if words[READ] != worker.read_at:
                words[READ] = worker.read_at
        return total

    def read_lone(self, worker: Worker) -> float | None:
        """The short way of one plain result, as `_dispatch_lone` is of one unit: return how long such units take, seconds.

        None where it is not that; then `read` has to come, also after an exception of a signal handler: it takes up what was begun here.
        """
        words, incoming = worker.words, worker.incoming
        if not worker.batches or words[FRAMES] != incoming.counted or incoming.others or incoming.partial or worker.waits_for_large:
            return None
        batch = worker.batches[0]
        first, unit, queue = batch.first, batch.units[0], batch.queue
        if words[FINISHED] != first or batch.at or unit is GHOST or unit.value is not PENDING:
            return None
        board, slot = worker.lane.board, first & MASK
        begun, ended = words[BATCH_AT], board.ends[slot]
        if begun > ended or len(queue.ended) > queue.prune_at or queue.asked > max(MOST_ASKED, len(queue.ended) // 2):
            return None
        header = board.headers[slot]
        kind = header & KIND_MASK
        if kind == KIND_NONE:
            value: Any = None
        elif kind == KIND_INT:
            value = header >> KIND_BITS
        elif kind in (KIND_PICKLE, KIND_MARSHAL):
            length, position = header >> LENGTH_SHIFT & LENGTH_MASK, header >> POSITION_SHIFT
            offset = position & RING_MASK
            payload = bytes(board.ring[offset : offset + length])
            value = Raw(payload) if kind == KIND_PICKLE else marshal_loads(payload)
            worker.read_at = position + length
            queue.bytes_up += length
        elif kind in (KIND_TRUE, KIND_FALSE):
            value = kind == KIND_TRUE
        else:
            return None
        queue.room = True
        batch.begun_ns = unit.started_ns = begun
        unit.ended_ns = ended
        unit.worker_record = worker
        batch.done += 1
        if unit.extra is None:  # nothing is called between this and the store, so nobody makes one meanwhile
            unit.value = value
        else:
            unit.extra.end(unit, value)
        queue.ended.append(unit)
        if unit.extra is not None:
            self.after_end(unit)
        batch.at = 1
        queue.done += batch.done
        batch.done = 0
        self.lone_times.append((queue.times, unit.call.usual, unit.queued_ns, begun, ended))
        took = (ended - begun) / 1e9
        queue.estimate_s = (queue.estimate_s + took) / 2 if queue.estimate_s else took
        queue.lag_s *= LAG_KEPT
        worker.batches.popleft()
        worker.units_done += 1
        words[READ] = worker.read_at
        return queue.estimate_s

    def _settle(self, worker: Worker, batch: Batch, at: int, upto: int) -> int:
        """Settle units `at` to `upto` of a batch; stop early where a result has not arrived whole."""
        board = worker.lane.board
        first = (batch.first + at) & MASK
        stop = first + upto - at
        if stop <= SLOTS:
            heads, ends = board.headers[first:stop].tolist(), board.ends[first:stop].tolist()
        else:
            heads = board.headers[first:].tolist() + board.headers[: stop - SLOTS].tolist()
            ends = board.ends[first:].tolist() + board.ends[: stop - SLOTS].tolist()
        units, ring, queue, ended = batch.units, board.ring, batch.queue, batch.queue.ended
        large = worker.incoming.results
        before = self.begun_ns(worker, batch, at, ends[0])
        if not at:
            batch.begun_ns = before
        received = 0
        start = at
        for header, now in zip(heads, ends, strict=True):
            unit = units[at]
            kind = header & KIND_MASK
            if kind == KIND_NONE:
                value: Any = None
            elif kind == KIND_INT:
                value = header >> KIND_BITS
            elif kind == KIND_PICKLE:
                length, position = header >> LENGTH_SHIFT & LENGTH_MASK, header >> POSITION_SHIFT
                offset = position & RING_MASK
                value = Raw(bytes(ring[offset : offset + length]))
                worker.read_at = position + length
                received += length
            elif unit is GHOST or kind == KIND_SKIPPED:
                if unit is not GHOST and unit.value is PENDING:
                    self._take_up_again(batch, at)
                elif kind == KIND_SOCKET and not self._large_is_there(worker):
                    break
                worker.units_done -= 1  # `read` counts it, but it did not run here
                batch.skipped += 1
                at += 1
                batch.at = at
                if kind == KIND_SOCKET:
                    large.popleft()
                continue
            else:
                value = self._value(worker, batch, at, header)
                if value is PENDING:
                    break
                if value is GHOST_VALUE:  # it comes again: `retries`
                    at += 1
                    batch.at = at
                    if kind == KIND_SOCKET:
                        large.popleft()
                    before = now
                    continue
            if unit.value is PENDING:
                unit.started_ns = before
                unit.ended_ns = now
                unit.worker_record = worker
                if value.__class__ is not Ended:
                    batch.done += 1
                if unit.extra is None:  # nothing is called between this and the store, so nobody makes one meanwhile
                    unit.value = value
                else:
                    unit.extra.end(unit, value)
                ended.append(unit)
            before = now
            if unit.extra is not None:
                self.after_end(unit)
            at += 1
            batch.at = at
            if kind == KIND_SOCKET:
                large.popleft()  # no call returns between this and the store before: neither is done without the other
        queue.done += batch.done
        batch.done = 0
        queue.bytes_up += received
        return at - start

    def begun_ns(self, worker: Worker, batch: Batch, at: int, ended_ns: int = NEVER) -> int:
        """Return when the unit at this place of a batch began, ``time.monotonic_ns()``; one that has ended, no later than that.

        The board says when the last batch was taken. Where that is another by now, the worker had this one before it had ended the one
        before it, or took it when it came.
        """
        begun, before = worker.words[BATCH_AT], worker.lane.board.ends[(batch.first + at - 1) & MASK]
        if begun > ended_ns:
            unit = batch.units[at]
            begun = min(ended_ns, max(before, int(worker.ready_at * 1e9), unit.queued_ns if unit is not GHOST else 0))
        return int(max(begun, before) if at else begun)

    def _large_is_there(self, worker: Worker) -> bool:
        """Return whether the next large result has arrived whole."""
        if not worker.incoming.results:
            self._take_frames(worker)
        worker.waits_for_large = not worker.incoming.results
        return not worker.waits_for_large

    def _value(self, worker: Worker, batch: Batch, at: int, header: int) -> Any:
        """Return the value of a less common kind of result; PENDING where it has not arrived whole."""
        kind = header & KIND_MASK
        if kind == KIND_TRUE:
            return True
        if kind == KIND_FALSE:
            return False
        if kind == KIND_SOCKET:
            if not self._large_is_there(worker):
                return PENDING
            frame = worker.incoming.results[0]  # it is taken off when the unit has been settled
            kind, payload = frame[0], frame[1:]
            batch.queue.bytes_up += len(payload)
        else:
            length, position = header >> LENGTH_SHIFT & LENGTH_MASK, header >> POSITION_SHIFT
            offset = position & RING_MASK
            payload = bytes(worker.lane.board.ring[offset : offset + length])
            worker.read_at = position + length
            batch.queue.bytes_up += length
        return self.value_of(worker, batch, at, kind, payload)

    def value_of(self, worker: Worker, batch: Batch, at: int, kind: int, payload: Any) -> Any:
        """Return the value of a unit from its kind and payload; GHOST_VALUE where it comes again."""
        unit = batch.units[at]
        if kind == KIND_MARSHAL:
            return marshal_loads(payload)
        if kind == KIND_SEGMENT:
            number, lengths = marshal_loads(payload)
            batch.queue.bytes_up += sum(lengths)
            if number not in worker.segments:
                self._take_frames(worker)
            return SegmentRaw(worker, number, worker.segments[number], lengths)
        if kind == KIND_PICKLE:
            return Raw(payload)
        if kind == KIND_NOTED:
            header, inner, chunks, notes = marshal_loads(payload)
            extra = unit.need_extra()
            if unit.value is PENDING and extra.noted != extra.attempt:
                keep = unit.call.queue.outputs.append
                extra.output += chunks or ()
                if notes:
                    extra.notes += notes
                    self.tell_notes(unit, notes)
                extra.noted = extra.attempt
                if extra.output:
                    keep(unit)
            inner_kind = header & KIND_MASK
            if inner_kind == KIND_NONE:
                return None
            if inner_kind == KIND_INT:
                return header >> KIND_BITS
            if inner_kind in (KIND_TRUE, KIND_FALSE):
                return inner_kind == KIND_TRUE
            return self.value_of(worker, batch, at, inner_kind, inner)
        assert kind in (KIND_ERROR, KIND_INTERRUPTED), kind
        return self.failed_end(worker, batch, at, kind, payload)

    def _take_frames(self, worker: Worker) -> None:
        """Read what has arrived on a worker's socket: large results are kept in order, the rest is handed on."""
        incoming = worker.incoming
        incoming.receive()
        while incoming.others:
            frame = incoming.others[0]
            if not frame.taken:
                self.frame_arrived(worker, frame)
            incoming.others.popleft()

    def _measure(self, worker: Worker, batch: Batch) -> None:
        """Take a batch that has ended into the estimate of its queue's units."""
        number = len(batch.units)
        last = worker.lane.board.ends[(batch.first + number - 1) & MASK]
        ran = max(1, number - batch.skipped)
        took = (last - worker.words[BATCH_AT]) / 1e9 / ran  # below 0 where it has taken another since
        if number == 1 and (unit := batch.units[0]) is not GHOST:  # no call: it is on the way of a lone round trip
            self.lone_times.append((batch.queue.times, unit.call.usual, unit.queued_ns, batch.begun_ns, last))
        else:
            tallies.note_batch(worker, batch, batch.begun_ns, last)
        if 0 < took:
            queue = batch.queue
            queue.estimate_s = (queue.estimate_s + took) / 2 if queue.estimate_s else took
            queue.poll_each = max(POLL_UNITS[0], min(POLL_UNITS[1], int(POLL_S / queue.estimate_s)))
            if len(worker.batches) == 1 and queue.pending:  # it has run dry while units waited: we came late
                queue.lag_s = min(MOST_LAG_S, max((time.monotonic_ns() - last) / 1e9, queue.lag_s * LAG_KEPT))
            else:
                queue.lag_s *= LAG_KEPT

    def _prune(self, queue: Queue) -> None:
        """Let go of ended units that somebody has asked, and of the oldest successes where too many are kept for nobody."""
        ended = queue.ended
        queue.asked = 0
        for _ in range(len(ended)):
            try:
                unit = ended.popleft()
            except IndexError:
                break
            if unit.data is not ASKED:
                ended.append(unit)
        over = len(ended) - self.settings.uncollected_units
        if over > 0:
            kept = [unit for unit in islice(ended, over) if type(unit.value) is Ended]
            for _ in range(over):
                ended.popleft()
            ended.extendleft(reversed(kept))
            self.too_many_kept(queue)
        queue.prune_at = min(self.settings.uncollected_units, max(1024, 2 * len(ended)))

    def _take_up_again(self, batch: Batch, at: int) -> None:
        """A unit that the worker did not begin goes back to where it stood in its backlog. Its place is left in the same breath."""
        unit = batch.units[at]
        backlog = batch.queue.backlog(unit.call.options.priority)
        place, insert = place_of(backlog, unit.id), backlog.insert
        batch.queue.room = True
        batch.units[at] = GHOST
        insert(place, unit)

    # ------------------------------------------------------------ taking back (under lead and lock, by the controller)

    def recall(self, worker: Worker) -> int:
        """Take back the units that a worker has not begun; return how many.

        1. Lower LIMIT to what is announced. 2. Fence, here and there. 3. Look at what is announced now: nothing beyond it can begin.
        A unit between the two looks is in doubt: it stays, and the worker says whether it ran or was skipped.
        """
        self.mend(worker)
        if worker.queue is None:
            return 0
        with worker.queue.in_hand():
            return self._recall(worker)

    def _recall(self, worker: Worker) -> int:
        words = worker.words
        words[LIMIT] = max(words[STARTED], words[FINISHED])
        worker.limited = True
        barrier_everywhere()
        begun = words[STARTED]
        back = []
        for batch in tuple(worker.batches):
            for index in range(max(0, begun + 1 - batch.first), len(batch.units)):
                unit = batch.units[index]
                if unit is not GHOST:
                    batch.units[index] = GHOST
                    if unit.value is PENDING:
                        back.append(unit)
        for unit in reversed(back):
            put_back(unit.call.queue.backlog(unit.call.options.priority), unit)
        if worker.quota is not None and not worker.told_spent:
            worker.quota += len(back)
        return len(back)

    def abandon(self, worker: Worker) -> list[Unit[Any]]:
        """A worker has ended and was read to its end: return the unit that it had begun; the rest goes back. Under both locks.

        What has ended there, and whose result is not here, went astray with its socket. It has run, so it does not go back either.
        """
        begun = max(worker.words[STARTED], worker.words[FINISHED])
        lost: list[Unit[Any]] = []
        back = []
        if worker.forming is not None:
            back += worker.forming.units
            worker.forming = None
        for batch in tuple(worker.batches):
            for index, unit in islice(enumerate(batch.units), batch.at, None):
                if unit is GHOST or unit.value is not PENDING:
                    continue
                if batch.first + index <= begun or _kills_on_its_way(unit, batch, begun):
                    lost.append(unit)
                else:
                    back.append(unit)
        worker.batches.clear()
        for unit in reversed(back):
            put_back(unit.call.queue.backlog(unit.call.options.priority), unit)
        return lost

    # ------------------------------------------------------------ looking (under the lock)

    def find(self, unit: Unit[Any]) -> tuple[Worker, int] | None:
        """Return the worker that holds a unit, and its number there; None where no worker holds it."""
        queue = unit.call.queue
        for worker in self.workers:
            for batch in (*worker.batches, *worker.own, *((worker.forming,) if worker.forming else ())):
                if batch.queue is queue and unit in batch.units:
                    return worker, batch.first + batch.units.index(unit)
        return None

    def waits(self, unit: Unit[Any]) -> bool:
        """Return whether an open unit is in its backlog."""
        return unit.value is PENDING and self.find(unit) is None

    def state_of(self, unit: Unit[Any]) -> UnitState:
        """Return the state of an open unit. It is derived from where it lies. Takes the lock."""
        with self.lock:
            place = self.find(unit)
        if place is None:
            return UnitState.RESTING if unit in unit.call.queue.resting else UnitState.QUEUED
        worker, number = place
        if number >= OWN_FIRST:
            if not any(batch.first == number and batch.begun_ns for batch in worker.own):
                return UnitState.SENT
        elif number > worker.words[STARTED]:
            return UnitState.SENT
        return UnitState.STOPPING if unit.extra is not None and unit.extra.stopping is not None else UnitState.RUNNING

    def running(self, worker: Worker) -> tuple[Unit[Any], float] | None:
        """Return the unit that a worker runs and when that began, ``time.monotonic()`` seconds."""
        begun = worker.words[STARTED]
        if begun <= worker.words[FINISHED]:
            return None
        for batch in tuple(worker.batches):
            at = begun - batch.first
            if 0 <= at < len(batch.units):
                unit = batch.units[at]
                return None if unit is GHOST else (unit, self.begun_ns(worker, batch, at) / 1e9)
        return None

    def begun(self) -> set[Unit[Any]]:
        """Return the units that workers have begun: all at once, as to look for one after the other takes long where many wait."""
        found: set[Any] = set()
        for worker in self.workers:
            started = worker.words[STARTED]
            for batch in tuple(worker.batches):
                found.update(batch.units[batch.at : max(0, started + 1 - batch.first)])
            found.update(batch.units[0] for batch in worker.own if batch.begun_ns)
        found.discard(GHOST)
        return found

    def innermost(self, worker: Worker) -> tuple[Unit[Any], float] | None:
        """The same, but where the unit waits for one of its own that its worker runs meanwhile, that one."""
        for batch in reversed(worker.own):
            if batch.begun_ns and batch.units[0] is not GHOST:
                return batch.units[0], batch.begun_ns / 1e9
        return self.running(worker)

    def oldest(self, queue: Queue) -> Unit[Any] | None:
        """Return the unit that has waited longest in the backlog of the lowest priority that has one. Under the lock."""
        for _, backlog in sorted([*queue.ranked.items(), (0, queue.pending)], key=itemgetter(0)):
            backlogs.trim(backlog)
            if backlog:
                return backlog[0]  # nobody takes it off but with the lock
        return None

    def trim(self, queue: Queue) -> None:
        """A unit that waited has ended: take it out now if it stands at an end of its backlog, else with many others. Under the lock."""
        taken_off = sum(map(backlogs.trim, (queue.pending, *queue.ranked.values())))
        queue.ended_inside = max(0, queue.ended_inside + 1 - taken_off)
        if backlogs.is_worth_a_sweep(queue.ended_inside, queue.depth()):
            self.sweep_soon(queue)

    def sweep(self, queue: Queue) -> None:
        """Take all units that have ended out of a queue's backlogs. Under the lock, and with the lead: who reads may put units in front."""
        queue.ended_inside = 0
        for backlog in (queue.pending, *queue.ranked.values()):
            backlogs.sweep(backlog)

    def drop_all(self, queue: Queue) -> list[Unit[Any]]:
        """Empty a queue's backlogs and return the open units that were in them. Takes the lock.

        Any thread may append meanwhile, to a backlog that it has looked up before. So each is emptied and none replaced, and nothing but
        calls of C runs through them.
        """
        with self.lock:
            queue.peak_depth = max(queue.peak_depth, queue.depth())
            taken: list[Unit[Any]] = []
            for backlog in (queue.pending, *queue.ranked.values()):
                try:
                    taken.extend(starmap(backlog.popleft, repeat((), len(backlog))))
                except IndexError:
                    pass  # somebody else's hand in the backlog: fewer than there seemed
            taken += tuple(queue.resting)
            queue.resting.clear()
        return [unit for unit in taken if unit.value is PENDING]

    def put_back(self, queue: Queue, units: list[Unit[Any]]) -> None:
        """Put units that were taken off a queue's backlogs before those that were queued meanwhile. Under the lock."""
        for unit in reversed(units):
            queue.backlog(unit.call.options.priority).appendleft(unit)


MOST_KNOWN = 4096  # functions, each under its options, that a worker keeps
GHOST_VALUE = object()
_ONCE = ((),)
_call_of = attrgetter("call")


def _kills_on_its_way(unit: Unit[Any], batch: Batch, begun: int) -> bool:
    """Count a large unit's workers that died while it was sent to them; after some it is its own fault, and it goes back no more."""
    if batch.first <= begun or len(batch.units) > 1 or type(unit.data) is not bytes or len(unit.data) < LARGE_FRAME_BYTES:
        return False
    extra = unit.need_extra()
    extra.deaths_on_its_way += 1
    return extra.deaths_on_its_way >= MOST_DEATHS_ON_ITS_WAY


def _pack_large(worker: Worker, units: list[Any], items: list[Any], same: bool) -> None:
    """Say where large arguments lie; a worker that cannot look there gets them whole."""
    for index, unit in enumerate(units):
        if type(unit.data) is Large:
            segment, lengths = unit.data.segment, unit.data.lengths
            unit.call.queue.bytes_down += sum(lengths)
            if worker.sees_segments:
                where: list[Any] = [segment.number, segment.fd, segment.inode, lengths]
            else:
                where = [copy_out(segment, lengths)]
            items[index] = where if same else (unit.call.number, where)


def _batches_in_flight(worker: Worker) -> int:
    return len(worker.batches)


def _introduction(call: Any) -> tuple[int, bytes, bool, str, str]:
    return call.number, call.pickled, call.keywords, call.name, call.queue.name


__all__ = ["GHOST_VALUE", "Dispatcher"]
