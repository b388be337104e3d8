"""What is wrapped around the functions of some units in their worker: the queue's set-up, and measuring for units with limits.

Only functions that need it are wrapped, when they are first heard of: all others, and the loop, pay nothing. A set-up runs within the
unit that meets it: so that unit's time-out, interrupt, output and error are those of the set-up too. Where it fails, the units behind it
are not begun (`NotBegun`): the parent hears of it first, and gives them to others.

Owned by the worker's main thread.
"""

from __future__ import annotations

import os
import time
from marshal import dumps as marshal_dumps

from workq.interruption import ExternalInterrupt
from workq.transport import codec
from workq.transport.board import MEASURED, STARTED, UNIT_CPU, UNIT_RSS
from workq.transport.channel import SET_UP_CUT_SHORT, SET_UP_FAILED, SET_UP_WELL, UP_SET_UP, UP_TORE_DOWN
from workq.worker import leftovers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from workq.worker.main import Worker

    Deed = tuple[bytes, bytes]  # a function and its arguments, pickled

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
NEW, READY, UNFIT = range(3)


class NotBegun(BaseException):
    """This worker is unfit for the unit's queue: the unit was not begun."""


class Outfit:
    """What one queue wants done in this worker, and how far that is."""

    __slots__ = ("functions", "number", "queue", "set_up", "state", "tear_down")

    def __init__(self, number: int, queue: str, set_up: Deed | None, tear_down: Deed | None) -> None:
        self.number = number
        self.queue = queue
        self.set_up = set_up
        self.tear_down = tear_down
        self.state = NEW
        self.functions: set[int] = set()  # the numbers of the functions that are wrapped: it is forgotten with the last


class Fitting:
    """The outfits of this worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._outfits: dict[int, Outfit] = {}

    # ------------------------------------------------------------ wrapping

    def dress(self, news: dict[str, Any]) -> None:
        """Wrap the functions that the parent has just told of and that need it."""
        functions = self._worker.functions
        for number in news.get("measured", ()):
            functions[number] = measured(self._worker.words, functions[number])
        for number, queue_number, queue, set_up, tear_down in news.get("fitted", ()):
            outfit = self._outfits.get(queue_number)
            if outfit is None:
                outfit = self._outfits[queue_number] = Outfit(queue_number, queue, set_up, tear_down)
            outfit.functions.add(number)
            functions[number] = self._fitted(outfit, functions[number])

    def forget(self, number: int) -> None:
        """The queue of a function is gone."""
        for outfit in [outfit for outfit in self._outfits.values() if number in outfit.functions]:
            outfit.functions.discard(number)
            if not outfit.functions:
                del self._outfits[outfit.number]

    def _fitted(self, outfit: Outfit, function: Callable[..., Any]) -> Callable[..., Any]:
        def after_set_up(*arguments: Any, **named: Any) -> Any:
            if outfit.state != READY:
                self._set_up(outfit)
            return function(*arguments, **named)

        return after_set_up

    # ------------------------------------------------------------ setting up and tearing down

    def _set_up(self, outfit: Outfit) -> None:
        """Do what the queue wants done first, within the unit that has met it."""
        if outfit.state == UNFIT:
            raise NotBegun
        try:
            do(outfit.set_up)
            outfit.state = READY
        except BaseException as error:
            self._fail(outfit, error)
        self._worker.leftovers = leftovers.Watcher(self._worker.interrupts)  # what it has changed is how it shall be
        self._say(outfit, SET_UP_WELL)

    def _fail(self, outfit: Outfit, error: BaseException) -> None:
        """Say that this worker is unfit, whole, whatever interrupts come; then fail the unit."""
        if outfit.state == READY:  # an interrupt struck just after it had gone well
            self._say(outfit, SET_UP_WELL)
            raise error
        outfit.state = UNFIT
        if type(error) is ExternalInterrupt:
            self._say(outfit, SET_UP_CUT_SHORT)
            raise error
        from workq.transport import failures  # where something has gone wrong

        number = self._worker.interrupts.shield()
        failure = failures.setup_failed(outfit.queue, self._where(), error)
        self._say(outfit, SET_UP_FAILED, codec.dump_error(failure))
        self._worker.interrupts.unshield(number)
        raise failure from error

    def _where(self) -> str:
        return f"{self._worker.name} (pid {self._worker.pid})"

    def _say(self, outfit: Outfit, how: int, error: bytes = b"") -> None:
        self._worker.say(UP_SET_UP, marshal_dumps((outfit.number, how, error)))

    def tear_down(self, number: int) -> None:
        """Do what a queue wants done last, and say so, with what was written meanwhile."""
        outfit = self._outfits.get(number)
        error = b""
        if outfit is not None and outfit.state == READY:
            outfit.state = NEW
            try:
                do(outfit.tear_down)
            except BaseException as problem:
                error = codec.dump_error(problem, f"teardown of queue {outfit.queue} in {self._where()}")
        self._worker.say(UP_TORE_DOWN, marshal_dumps((number, error, self._worker.output.take(True))))

    def tear_down_all(self) -> None:
        """The worker leaves: do it for all queues."""
        for outfit in [outfit for outfit in self._outfits.values() if outfit.state == READY and outfit.tear_down is not None]:
            self.tear_down(outfit.number)


def do(deed: Deed | None) -> None:
    """Call a pickled function with its pickled arguments."""
    if deed is not None:
        function, arguments = codec.load(deed[0]), codec.load(deed[1])
        function(*arguments)


# ---------------------------------------------------------------- measuring


def measured(words: memoryview, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with a note on the board of what the worker held and had used when it was called."""

    def noting(*arguments: Any, **named: Any) -> Any:
        words[UNIT_RSS] = held_bytes()
        words[UNIT_CPU] = used_ns()
        words[MEASURED] = words[STARTED]
        return function(*arguments, **named)

    return noting


def held_bytes() -> int:
    """Return the resident memory of this process."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return 0


def used_ns() -> int:
    """Return the CPU time of this process and of the children that it has waited for."""
    times = os.times()
    return time.process_time_ns() + int((times.children_user + times.children_system) * 1e9)
