"""The worker's loop: takes batches of units from its socket, runs them, and leaves their results on its board.

This is the hot path's other end, so `serve` is one long function with everything in locals; each place says what it saves.
Thread: the worker's main thread, the only one that runs units.
"""

from __future__ import annotations

import _pickle
import faulthandler
import os
import sys
import time
from _socket import socket
from _thread import RLock, get_ident
from marshal import dumps as marshal_dumps
from marshal import loads as marshal_loads

from workq import context
from workq.interruption import ExternalInterrupt
from workq.transport import bells, codec, mainmodule, segments
from workq.transport.board import (
    BATCH_AT,
    BLOCKED,
    CONTROLLER,
    EXIT_LOCKED,
    EXIT_MAIMED,
    FENCE_EACH_UNIT,
    FINISHED,
    FRAMES,
    INT_LIMIT,
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
    LENGTH_SHIFT,
    LIMIT,
    LONE,
    MASK,
    POSITION_MASK,
    POSITION_SHIFT,
    PROGRESS_BYTES,
    READ,
    RING_BYTES,
    RING_MASK,
    RING_PAYLOAD_BYTES,
    STARTED,
    TARGET,
    WAIT,
    Board,
    fence,
    register_for_barriers,
)
from workq.transport.channel import (
    DOWN_CONFIG,
    DOWN_REPLY,
    DOWN_TEAR_DOWN,
    DOWN_UNITS,
    UP_KEPT,
    UP_LOG,
    UP_OUTPUT,
    UP_READY,
    UP_RESULT,
    UP_SEGMENT,
    Inbox,
    Upward,
)
from workq.transport.codec import NO_ARGUMENTS
from workq.transport.segments import LARGE_BYTES, POSSIBLE
from workq.worker import fitting, leftovers, logs, stack, surroundings, watch
from workq.worker.interrupt import Interrupts
from workq.worker.output import Output, identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from workq.worker.claims import WorkerClaims
    from workq.worker.replies import Replies

LOOK_NS = 2_500  # a unit that took longer is looked at for descriptor-level output; shorter ones have no time to write any
LEFTOVERS_NS = 100_000  # a unit that took longer is looked at for what it left behind
FIRST_UNITS_LOOKED_AT = 64  # of each function, whatever their time, for both
NOT_LOADED = "The unit's arguments could not be unpickled in the worker; its function was not called."
NOT_CALLED = "The unit's function could not be loaded in the worker; it was not called."
UNDER_GUARD = "a worker imports the script without what stands under its guard: define it above that"
SCALARS = frozenset({float, str, bytes})


class Stop(Exception):
    """The parent has asked the worker to leave, or is gone."""


class Worker:
    """What a worker has, apart from the locals of the loop. The object that `workq.context` shows to units."""

    def __init__(self, socket_fd: int, board_fd: int, output_fd: int, error_fd: int, leader_bell: int, controller_bell: int) -> None:
        self.pid = os.getpid()
        self.main_thread = get_ident()
        self.socket = socket(fileno=socket_fd)
        self.board = Board.attach(board_fd)
        self.words = self.board.words
        self.inbox = Inbox(self.socket.recv_into)
        self.upward = Upward(self.socket)
        self.bells = (0, leader_bell, controller_bell)
        self.own_descriptors = {fd: identity(fd) for fd in (socket_fd, leader_bell, controller_bell)}
        self.maimed = False  # a unit has closed some of these; what has their numbers now is its own
        self.interrupts = Interrupts(self.words)
        self.output_fds = (output_fd, error_fd)
        self.readings: list[segments.Reading] = []  # the arguments of the running unit that lie in segments
        self.pool = segments.Pool()  # for large results
        self.known_segments: set[int] = set()  # of ours: those that the parent has been handed
        self.large_types: set[type] = set()  # what was large once is written to segments from then on
        self.functions: dict[int, Callable[..., Any]] = {}
        self.labels: dict[int, tuple[str, str]] = {}  # of each function number: the unit's name, its queue's name
        self.attempts: dict[int, int] = {}  # of the batch: unit number to attempt, where it is not the first
        self.ids: list[int] = []  # of the batch
        self.batch: list[Any] = []
        self.function_number = 0
        self.first = 0  # the batch's first unit is number first + 1
        self.fitting = fitting.Fitting(self)
        self.forked = False
        self._telling = RLock()  # of units' threads that tell their progress
        self.own: list[tuple[int, context.UnitInfo]] = []  # units of a unit that run while it waits, the innermost last
        self.on_reply: Callable[[tuple[Any, ...]], None] | None = None  # of queues that units have made
        self.claims: WorkerClaims | None = None  # of locks; made when a unit has the first
        self.locked = False  # a unit has ended and holds a lock: this worker ends
        self._replies: Replies | None = None

    # ------------------------------------------------------------ start

    def configure(self) -> None:
        """Take the first frame, and be ready for units: the streams, the handlers, the category's preload and initializer."""
        frame = self.inbox.next()
        if frame is None or frame[0] != DOWN_CONFIG:
            raise Stop
        config = marshal_loads(frame[1])
        self.name, self.process_info_id, self.category = config["name"], config["process_info_id"], config["category"]
        self.pools = config["pools"]  # the categories, as `workq.hosts.nested` reads them
        self.parent_pid, self.parent_fd = config["parent"]
        self.rank = config["surroundings"]["rank"]
        context.enter(self)
        self.output = Output(*self.output_fds, config["output_bytes"])
        self.output.install()
        surroundings.take(config["surroundings"], config["work_folder"])
        self.interrupts.install()
        _write_crashes_to_stderr()
        stack.offer(self.words)
        logs.install(self.send_record, config["log_level"], config["log_levels"])
        os.register_at_fork(after_in_child=self._in_child)
        mainmodule.set_main(_pickle.loads(config["main"]) if config["main"] else None)
        mainmodule.set_managers_key(config["managers_key"])
        self.barriers_reach_us = register_for_barriers()  # before there is a second thread: else the kernel takes 10 ms for it
        watch.start(self.board, self.output, os.getppid(), config["heartbeat_s"])
        for module in config["preload"]:
            __import__(module)
        surroundings.reseed()
        mainmodule.after_run = surroundings.reseed
        if config["initializer"]:
            function, arguments = _initializer(config["initializer"])
            function(*arguments)
        self.interrupts.install()  # whatever those have done to it
        self.leftovers = leftovers.Watcher(self.interrupts)

    def ready(self) -> None:
        """Say that units may come."""
        self.say(UP_READY, b"\1" if self._sees_segments() else b"\0")

    def _sees_segments(self) -> bool:
        """Return whether we may map what the parent has in memory."""
        try:
            os.readlink(f"/proc/{self.parent_pid}/fd/{self.parent_fd}")
        except OSError:
            return False
        return segments.POSSIBLE

    def _in_child(self) -> None:
        """A unit has forked. The child shares our board and socket, and must touch neither: its unit ends it (`_end`)."""
        self.forked = True
        self.interrupts.armed[0] = 0
        self.output.pending.append((1, ""))  # sends the loop the long way round, where `forked` is looked at

    # ------------------------------------------------------------ bells and frames

    def whole(self) -> bool:
        """Return whether the descriptors are still ours (3 us). Nothing of ours may ever be written to a file of a unit's."""
        if not self.maimed:
            own = list(self.own_descriptors.items())  # a copy: a thread of the unit may be adding one
            self.maimed = any(identity(fd) != known for fd, known in own)
        return not self.maimed

    def ring(self) -> None:
        """Wake whoever waits for this worker, if anybody does."""
        who = self.words[WAIT]
        if who == LONE:  # the word stays: the waiter may have read already, and whoever is armed for its next unit is not to be cleared
            self.upward.bell()
        elif who:
            self.words[WAIT] = 0
            bells.ring(self.bells[who])

    def say(self, kind: int, payload: bytes, fd: int = -1) -> None:
        """Send a frame from inside a unit: whole, whatever interrupts come, and with the controller awake."""
        if get_ident() != self.main_thread:
            self._say(kind, payload, fd)
            return
        number = self.interrupts.shield()
        self._say(kind, payload, fd)
        self.interrupts.unshield(number)

    def _say(self, kind: int, payload: bytes, fd: int) -> None:
        if os.getpid() == self.pid and self.whole():
            item, keep, words = self.upward.item(kind, payload, fd=fd), self.upward.left.append, self.words
            words[FRAMES] += 1
            keep(item)  # no call returns between this and the count before: a signal handler of a unit may raise
            self.ring()  # first: a frame larger than the socket's buffer needs its reader
            self.upward.push()
            bells.ring(self.bells[CONTROLLER])

    def send_record(self, record: bytes) -> None:
        """Hand a log record to the parent's loggers."""
        self.say(UP_LOG, record)

    # ------------------------------------------------------------ what units may ask (context.Side)

    def locks(self) -> WorkerClaims:
        """Return the locks that are held and asked for here. Loaded when a unit has the first: most have none."""
        if self.claims is None:
            from workq.worker.claims import WorkerClaims

            self.__dict__.setdefault("_claims", WorkerClaims(self))  # one call of C: two threads may come here at once
            self.claims = self.__dict__["_claims"]
        return self.claims

    @property
    def replies(self) -> Replies:
        """Who reads what the parent answers to units."""
        if self._replies is None:
            from workq.worker.replies import Replies

            self.__dict__.setdefault("_reading", Replies(self))
            self._replies = self.__dict__["_reading"]
        return self._replies

    def replied(self, reply: tuple[Any, ...]) -> None:
        """Hand over what the parent has answered: to a request about locks, or for queues that units have made."""
        if reply[0] is None:
            if self.claims is not None:
                self.claims.take(reply)
        elif self.on_reply is not None:
            self.on_reply(reply)

    def current_unit(self) -> context.UnitInfo | None:
        """Return what runs. Worked out when asked for, so that the loop pays nothing."""
        if self.own:
            return self.own[-1][1]
        index = self.words[STARTED] - self.first - 1
        if not 0 <= index < len(self.ids) or self.words[STARTED] <= self.words[FINISHED]:
            return None
        number = self.function_number or self.batch[index][0]
        name, queue = self.labels[number]
        unit = self.ids[index]
        return context.UnitInfo(unit, name, queue, self.attempts.get(unit, 1), self.name)

    def flush(self) -> None:
        """Hand over what the unit has written so far."""
        info = self.current_unit()
        chunks = self.output.flush()
        if chunks and info is not None:
            who = (None, self.own[-1][0]) if self.own else (info.queue, info.id)
            self.say(UP_OUTPUT, marshal_dumps((who, chunks)))

    def progress(self, fraction: float | None, text: str) -> None:
        """Tell on the board how far the running unit is; the parent reads it when somebody looks."""
        number = self.words[STARTED]
        if self.forked or number <= self.words[FINISHED]:
            return
        said = text.encode("utf-8", "replace")[:PROGRESS_BYTES]
        shielded = get_ident() == self.main_thread
        armed = self.interrupts.shield() if shielded else 0
        try:
            with self._telling:
                self.board.say_progress(number, fraction, said)
        finally:
            if shielded:
                self.interrupts.unshield(armed)

    def block(self) -> None:
        """Declare a wait of the main thread."""
        if get_ident() == self.main_thread and not self.forked:
            self.words[BLOCKED] += 1
            if self.words[BLOCKED] == 1 and self.whole():
                bells.ring(self.bells[CONTROLLER])

    def unblock(self) -> None:
        """End it."""
        if get_ident() == self.main_thread and not self.forked and self.words[BLOCKED]:  # 0: its unit has ended by an exception
            self.words[BLOCKED] -= 1
            if self.words[BLOCKED] == 0 and self.whole():
                bells.ring(self.bells[CONTROLLER])

    def ring_controller(self) -> None:
        """Have the controller look whether we are blocked."""
        if self.whole():
            bells.ring(self.bells[CONTROLLER])

    # ------------------------------------------------------------ units

    def dump(self, value: object, number: int) -> bytes:
        """Pickle a result; where pickle cannot, cloudpickle may."""
        try:
            return _pickle.dumps(value, 5)
        except (ExternalInterrupt, KeyboardInterrupt, SystemExit):  # an exit is the unit's own, wherever it says so
            raise
        except BaseException:
            return codec.dump_result(value, self.where(number))

    def where(self, number: int) -> str:
        """Return a unit's label and this worker, as messages name them."""
        index = number - self.first - 1
        name, queue = self.labels.get(self.function_number or self.batch[index][0], ("unit", ""))
        return f"{queue}:{self.ids[index]} {name}, in {self.name} (pid {self.pid})"

    def learn(self, news: dict[str, Any]) -> None:
        """Take in the functions and the labels that the parent has not sent before, and forget those of queues that are gone."""
        for number in news.get("forget", ()):
            self.functions.pop(number, None)
            self.labels.pop(number, None)
            self.fitting.forget(number)
        for number, pickled, keywords, name, queue in news.get("functions", ()):
            self.functions[number] = _callable(pickled, keywords)
            self.labels[number] = name, queue
        if "measured" in news or "fitted" in news:
            self.fitting.dress(news)
        self.attempts = news.get("attempts", {})
        for segment in news.get("free", ()):
            self.pool.free_number(segment)

    def load(self, data: Any) -> Any:
        """Unpickle arguments that lie in a segment, or did in the parent's."""
        if len(data) == 1:
            pickled, *buffers = data[0]
        else:
            number, fd, inode, lengths = data
            reading = segments.Reading(number, segments.map_of(self.parent_pid, fd, inode, lengths), lengths)
            self.readings.append(reading)
            pickled, *buffers = reading.pieces()
        try:
            return _pickle.loads(pickled, buffers=buffers)
        except Exception:
            codec.prepare_for(pickled)
        return _pickle.loads(pickled, buffers=buffers)

    def give_back(self) -> None:
        """The unit has ended: tell the parent of segments that it has kept views of."""
        while self.readings:
            reading = self.readings.pop()
            if not reading.over():
                self.say(UP_KEPT, marshal_dumps(reading.number))

    def dump_large(self, value: Any, number: int) -> tuple[int, bytes]:
        """Pickle a result of a type that was large before: into a segment, if it is large again."""
        try:
            pieces = segments.dump(value)
            if segments.total_bytes(pieces) > segments.LARGE_BYTES:
                segment, lengths = self.pool.write(pieces)
                if segment.number not in self.known_segments:
                    self.say(UP_SEGMENT, marshal_dumps(segment.number), segment.fd)
                    self.known_segments.add(segment.number)
                return KIND_SEGMENT, marshal_dumps((segment.number, lengths))
        except (ExternalInterrupt, KeyboardInterrupt):
            raise
        except BaseException:
            pass  # the ordinary way says what is wrong, or has a way
        return KIND_PICKLE, self.dump(value, number)

    def end(self, kind: int, payload: bytes, took_ns: int, look: bool) -> tuple[int, bytes]:
        """End a unit the long way: what it wrote and what it left behind goes with its result."""
        if self.forked:
            self.end_child()
        if self.readings:
            self.give_back()
        if kind == KIND_SKIPPED:
            return kind, payload
        logs.keep()
        chunks = self.output.take(look or self.output.waiting())
        notes = self.leftovers.mend() if look or took_ns > LEFTOVERS_NS else None
        if (look or took_ns > LEFTOVERS_NS) and not self.whole():
            notes = [*(notes or ()), "it closed descriptors of the worker, which is replaced"]
        if self.claims is not None and self.claims.held:
            notes = [*(notes or ()), *self._left_locked(self.claims)]
        if not chunks and not notes:
            return kind, payload
        return KIND_NOTED, marshal_dumps((kind, payload, chunks, notes))

    def _left_locked(self, claims: WorkerClaims) -> list[str]:
        """Say which locks the unit still holds. They come free with our end: its threads may still touch what they guard."""
        names = claims.left_locked()
        self.locked = bool(names)
        return [f"it ended and still held lock {name!r}, which is freed; its worker is replaced" for name in names]

    def end_child(self) -> NoReturn:
        """We are the child that a unit has forked, and its function has returned: nothing of ours is left to do here."""
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(0)

    def put(self, number: int, kind: int, payload: bytes, position: int) -> int:
        """Leave a payload in the ring, or send it where it is too large; return the ring's new position."""
        length = len(payload)
        start = position if (position & RING_MASK) + length <= RING_BYTES else (position | RING_MASK) + 1
        if length <= RING_PAYLOAD_BYTES and (start + length - self.words[READ]) & POSITION_MASK <= RING_BYTES:
            offset = start & RING_MASK
            self.board.ring[offset : offset + length] = payload
            self.board.headers[number & MASK] = (start & POSITION_MASK) << POSITION_SHIFT | length << LENGTH_SHIFT | kind
            return start + length
        if not self.whole():
            self.leave_maimed(number, kind, payload, position, time.monotonic_ns())
        self.board.headers[number & MASK] = KIND_SOCKET
        self.words[LARGE] = number
        fence()
        self.ring()
        self.upward.frame(UP_RESULT, kind.to_bytes(1, "big"), payload)
        return position

    def leave_maimed(self, number: int, kind: int, payload: bytes, position: int, now: int) -> NoReturn:
        """Leave the last result in the ring, and end: our death is the bell. The parent reads the board, the next unit runs elsewhere."""
        self.maimed = True
        if len(payload) > RING_PAYLOAD_BYTES:
            kind, payload = self.fail(number, codec.unsent_result(len(payload)), True)
        if (position + 2 * RING_PAYLOAD_BYTES - self.words[READ]) & POSITION_MASK <= RING_BYTES:  # else it is lost, and its halt says why
            self.put(number, kind, payload, position)
            self.board.ends[number & MASK] = now
            self.words[FINISHED] = number
        os._exit(EXIT_MAIMED)

    def leave_locked(self, number: int, kind: int, payload: bytes, position: int, now: int) -> NoReturn:
        """Leave the last result as always, and end: a lock is still held, and nothing of its unit may go on when it is given to another."""
        self.put(number, kind, payload, position)
        self.board.ends[number & MASK] = now
        self.words[FINISHED] = number
        os._exit(EXIT_LOCKED)

    def fail(self, number: int, error: BaseException, loaded: bool) -> tuple[int, bytes]:
        """Return the kind and the payload of a unit that raised, or whose arguments could not be ``loaded``."""
        if type(error) is fitting.NotBegun:
            return KIND_SKIPPED, b""
        self.words[BLOCKED] = 0  # what was raised may have struck between a declared wait's begin or end and its note
        kind = KIND_INTERRUPTED if type(error) is ExternalInterrupt and error.args == (number,) else KIND_ERROR
        return kind, codec.dump_error(error, self.where(number), "" if loaded else NOT_LOADED)


def serve(worker: Worker) -> None:
    """Run units until the parent says to leave."""
    words, headers, ends, ring = worker.words, worker.board.headers, worker.board.ends, worker.board.ring
    functions, pending, armed = worker.functions, worker.output.pending, worker.interrupts.armed
    load, dump_large, large_types = worker.load, worker.dump_large, worker.large_types
    inbox_lock = worker.inbox.lock
    inbox_next, learn, fail, end, put, dump = worker.inbox.next, worker.learn, worker.fail, worker.end, worker.put, worker.dump
    loads, prepare_for, clock = _pickle.loads, codec.prepare_for, time.monotonic_ns
    guard = fence if FENCE_EACH_UNIT or not worker.barriers_reach_us else None
    looked_at: dict[int, int] = {}
    stdout = sys.stdout
    count = position = 0
    arguments = None
    while True:
        with inbox_lock:
            frame = inbox_next()
            if frame is None:
                return
            kind, data = frame
            if kind != DOWN_UNITS and kind != DOWN_REPLY and kind != DOWN_TEAR_DOWN:
                return
            message = marshal_loads(data)  # here: another thread that receives (a unit's, left behind) writes over the frame
            if kind == DOWN_REPLY:  # of a nested queue, after the unit that made it: one of its threads may still wait
                worker.replies.take(message)
        if kind != DOWN_UNITS:
            if kind == DOWN_REPLY:
                worker.replies.tell()
            else:
                worker.fitting.tear_down(message)
            continue
        first, number, batch, ids, news = message
        if first != count + 1:
            continue  # sent twice: an exception of a signal handler struck the parent between sending it and noting that
        if news is not None:
            words[BATCH_AT] = clock()  # says that the frame was taken: to load a function may take seconds
            learn(news)
        worker.function_number, worker.batch, worker.ids, worker.first = number, batch, ids, count
        function = functions.get(number)
        look = looked_at.get(number, 0)  # how many of this function's units were looked at for output
        words[BATCH_AT] = before = clock()
        for data in batch:
            count += 1
            words[STARTED] = count  # announces this one, and says that the one before has ended
            if guard is not None:
                guard()
            if count > words[LIMIT] or data is None:
                headers[count & MASK] = KIND_SKIPPED
                ends[count & MASK] = before  # the next one begins when the one before has ended
                continue
            try:
                try:
                    armed[0] = count
                    if words[TARGET] == count:
                        raise ExternalInterrupt(count)
                    if function is None:
                        which, data = data
                        call = functions[which]
                    else:
                        call = function
                    try:
                        arguments = () if data == NO_ARGUMENTS else loads(data)
                    except TypeError:
                        if type(data) is not list:
                            raise
                        arguments = load(data)
                    except Exception:
                        prepare_for(data)
                        arguments = loads(data)
                    value = call(*arguments)
                    what = type(value)
                    if value is None:
                        header, payload = KIND_NONE, None
                    elif what is int and 0 <= value < INT_LIMIT:
                        header, payload = value << 4 | KIND_INT, None
                    elif what is bool:
                        header, payload = KIND_TRUE if value else KIND_FALSE, None
                    elif what in SCALARS and (what is float or len(value) < LARGE_BYTES):
                        header, payload = KIND_MARSHAL, marshal_dumps(value)
                    elif what in large_types:
                        header, payload = dump_large(value, count)
                    else:
                        header, payload = KIND_PICKLE, dump(value, count)
                        if len(payload) > LARGE_BYTES and POSSIBLE:
                            large_types.add(what)
                    armed[0] = 0
                except BaseException as error:
                    armed[0] = 0
                    header, payload = fail(count, error, arguments is not None)
            except ExternalInterrupt as error:  # it struck while the unit's own exception was being caught; it cannot strike again
                header, payload = fail(count, error, True)
            value = arguments = None  # not kept alive through the next unit
            now = clock()
            if now - before > LOOK_NS or pending or look < FIRST_UNITS_LOOKED_AT:
                look += 1
                if payload is None:
                    kind, payload = end(header, b"", now - before, look <= FIRST_UNITS_LOOKED_AT)
                    if kind == header:
                        payload = None
                    else:
                        header = kind
                else:
                    header, payload = end(header, payload, now - before, look <= FIRST_UNITS_LOOKED_AT)
                if worker.maimed:
                    worker.leave_maimed(count, header, payload or b"", position, now)
                if worker.locked:
                    worker.leave_locked(count, header, payload or b"", position, now)
            if payload is None:
                headers[count & MASK] = header
            else:
                length = len(payload)
                offset = position & RING_MASK
                if length < 4096 and offset + length <= RING_BYTES and (position + length - words[READ]) & POSITION_MASK <= RING_BYTES:
                    ring[offset : offset + length] = payload
                    headers[count & MASK] = (position & POSITION_MASK) << POSITION_SHIFT | length << LENGTH_SHIFT | header
                    position += length
                else:
                    position = put(count, header, payload, position)
            ends[count & MASK] = before = now
        looked_at[number] = look
        if sys.__dict__.get("stdout") is not stdout:
            worker.output.restore_streams()  # a short unit has left its own: what the next ones print must not go there
        words[FINISHED] = count
        fence()  # once a batch: finished first, then look whether somebody waits
        if words[WAIT]:
            worker.ring()


def _callable(pickled: bytes, keywords: bool) -> Callable[..., Any]:
    """Return the function behind a number. One that cannot be loaded here fails each unit of it, and nothing else."""
    try:
        function: Callable[..., Any] = codec.load(pickled)
    except BaseException as error:
        return _raiser(error)
    if keywords:
        return lambda arguments, named: function(*arguments, **named)
    return function


def _initializer(pickled: bytes) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return the initializer and its arguments."""
    try:
        function, arguments = codec.load(pickled)
    except AttributeError as error:
        _name_guard(error)
        raise
    return function, arguments


def _name_guard(error: BaseException) -> None:
    """Say in an error why a worker has not found a name of the script."""
    text = codec.guarded(lambda: str(error)) or ""
    if type(error) is AttributeError and "__mp_main__" in text:
        error.args = (f"{text}; {UNDER_GUARD}",)


def _raiser(error: BaseException) -> Callable[..., Any]:
    def cannot_be_loaded(*arguments: object, **named: object) -> None:
        raise error.with_traceback(trace)  # else it would grow with each unit that raises it

    trace = error.__traceback__
    _name_guard(error)
    codec.guarded(lambda: error.add_note(NOT_CALLED))  # type: ignore[arg-type,return-value]
    return cannot_be_loaded


def _write_crashes_to_stderr() -> None:
    """Have the Python stack written to descriptor 2 where the process dies of a fault."""
    faulthandler.enable(file=2, all_threads=True)


def run(socket_fd: int, board_fd: int, output_fd: int, error_fd: int, leader_bell: int, controller_bell: int) -> int:
    """Be a worker until told to leave; return the exit code. Called in the process that the launcher has just forked."""
    worker = Worker(socket_fd, board_fd, output_fd, error_fd, leader_bell, controller_bell)
    try:
        worker.configure()
        worker.ready()
        serve(worker)
        worker.fitting.tear_down_all()
    except Stop:
        pass
    return 0
