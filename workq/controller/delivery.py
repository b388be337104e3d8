"""What reaches the application's own code: done-callbacks, halts, log records, output.

All of it runs in one thread of its own, one at a time, in order: a callback may take its time, raise, queue units or wait for them,
and neither the controller nor a leader is held up by it. The thread starts with the first delivery.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from workq.outcome import PENDING
from workq.transport.records import load_record

if TYPE_CHECKING:
    from workq.controller.records import Queue, Worker
    from workq.unit import Unit

logger = logging.getLogger("workq")
logger.addHandler(logging.NullHandler())

MOST_PENDING_RECORDS = 100_000  # log records that wait for their handlers; what is beyond is counted and dropped


class Delivery:
    """The thread that calls the application, and the list of what it has to call. Any thread may add."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]]] = SimpleQueue()  # may be put to in the middle of a put
        self._starting = threading.RLock()
        self._thread: threading.Thread | None = None
        self._dropped = 0
        self._delivered = 0
        self._ended = False  # closed: no thread is there any more, and none may begin
        self._over = threading.Lock()  # given back by the thread as it ends; not an Event, see `drain`
        self._over.acquire()

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have a function of the application called."""
        self._jobs.put((function, arguments))
        if self._thread is None and not self._ended:
            self._start()

    def call_surely(self, function: Callable[..., object], *arguments: Any) -> None:
        """The same; here and now where the thread has ended."""
        if not self._ended:
            self.call(function, *arguments)
            return
        try:
            function(*arguments)
        except Exception:
            logger.exception("a callback raised: %r", function)

    def record(self, worker: Worker, data: bytes) -> None:
        """Have a worker's log record handled by this process's loggers."""
        if self._jobs.qsize() < MOST_PENDING_RECORDS:
            self.call(_handle_record, worker, data)
        else:
            self._dropped += 1

    def drain(self, timeout_s: float) -> bool:
        """Wait until everything that was added before has been delivered; at once in the delivery thread itself.

        Gives up, and returns False, when nothing at all was delivered for ``timeout_s`` seconds: a handler hangs, or is that slow.
        """
        thread = self._thread
        if threading.current_thread() is thread or self._ended:
            return True
        if thread is None and self._jobs.empty():  # with jobs it has been started, and is about to say that it is there
            return True
        gate = threading.Lock()  # and not an Event, in whose Python an exception of a signal handler could strike
        gate.acquire()
        self.call(gate.release)
        delivered = -1
        while not gate.acquire(timeout=timeout_s):
            if delivered == self._delivered:
                return False
            delivered = self._delivered
        return True

    def calls_here(self) -> bool:
        """Return whether this is the delivery thread: the application has been called back."""
        return threading.current_thread() is self._thread

    def close(self, timeout_s: float) -> None:
        """Deliver what is left and end the thread."""
        thread = self._thread
        if threading.current_thread() is thread:  # a callback closes the controller: the thread ends after what is left
            self._jobs.put((_stop, ()))
            return
        if self._ended:
            return
        if thread is None and self._jobs.empty():
            self._ended = True  # a second thread that has not begun yet finds that there is nothing to begin
            return
        self._jobs.put((_stop, ()))
        if thread is None and not self._start():
            return
        if self._over.acquire(timeout=timeout_s) and thread is not None:  # one thread at a time closes, and none where it has ended
            thread.join(timeout_s)

    def _start(self) -> bool:
        try:
            threading.Thread(target=self._begin, name=f"{self._name}-delivery", daemon=True).start()
        except RuntimeError:  # the interpreter is ending, and nobody is there to be called; or no threads are left, and the next call tries
            return False
        return True

    def _begin(self) -> None:
        """Be the thread, if no other is: an exception of a signal handler, or a second thread, can have two started."""
        with self._starting:
            if self._thread is not None or self._ended:
                return
            self._thread = threading.current_thread()
        self._run()

    def _run(self) -> None:
        while True:
            function, arguments = self._jobs.get()
            if function is _stop:
                self._ended = True  # first, so that no second thread begins
                self._thread = None
                self._over.release()
                return
            try:
                function(*arguments)
            except BaseException:
                logger.exception("a callback raised: %r", function)
            del function, arguments
            self._delivered += 1
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                logger.warning("%d log records of workers were dropped: their handlers are too slow", dropped)

    # ------------------------------------------------------------ output

    def emit(self, queue: Queue) -> None:
        """Write the output of units that have ended, each whole, in order of completion, to this process's streams.

        Runs in the thread that waits (sync, result, …), so that it shows where a person looks for it: in the cell, at the prompt.
        """
        bar = queue.bar
        with queue.emission, _NOTHING if bar is None or not queue.outputs else bar.aside():
            _write_outputs(queue)


_NOTHING: contextlib.AbstractContextManager[object] = contextlib.nullcontext()


def _write_outputs(queue: Queue) -> None:
    outputs = queue.outputs
    while outputs and not queue.detached:
        try:
            unit = outputs.popleft()
        except IndexError:
            break
        if queue.output_to != "discard" and unit.extra is not None:
            write_output(unit)
            if unit.value is PENDING:
                queue.half_written[unit.id] = unit
    for unit in list(queue.half_written.values()):
        if unit.value is not PENDING:
            del queue.half_written[unit.id]
            write_output(unit)


def write_output(unit: Unit[Any]) -> None:
    """Write what a unit has printed and was not yet written. A stream that takes nothing takes nothing, and nothing is said of it.

    Of one that still runs the last line is kept back until it is whole: nothing of another unit may come into the middle of it.
    """
    extra = unit.extra
    assert extra is not None
    if unit.value is PENDING:
        _split_last_line(extra.output, extra.emitted)
    chunks = extra.output[extra.emitted :]
    if unit.value is PENDING and chunks and not _ends_whole(chunks[-1][1]):
        del chunks[-1]
    extra.emitted += len(chunks)
    for number, text in chunks:
        write_text("stderr" if number == 2 else "stdout", text)


def _ends_whole(text: str) -> bool:
    return text.endswith(("\n", "\r"))


def _split_last_line(pieces: list[tuple[int, str]], emitted: int) -> None:
    """Make what stands behind the last end of a line a piece of its own. Others may append meanwhile."""
    last = len(pieces) - 1
    if last < emitted or _ends_whole(pieces[last][1]):
        return
    number, text = pieces[last]
    whole = max(text.rfind("\n"), text.rfind("\r")) + 1
    if whole:
        pieces[last : last + 1] = [(number, text[:whole]), (number, text[whole:])]


def write_text(name: str, text: str) -> None:
    """Write to one of this process's streams, which may be None, closed, of a narrow encoding or of anybody's making."""
    try:
        stream = getattr(sys, name)
        try:
            stream.write(text)
        except UnicodeEncodeError as error:
            stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        stream.flush()
    except Exception:  # the unit has ended as it has ended, whatever becomes of its words
        return


def _handle_record(worker: Worker, data: bytes) -> None:
    record = load_record(data)
    record.workq_worker = worker.name  # that of a process that a unit has forked as well
    record.processName = worker.name
    target = logging.getLogger(record.name)
    if target.isEnabledFor(record.levelno):
        target.handle(record)


def _stop() -> None:
    """Marks the end of the list."""
