"""Interrupts: a signal plus a board word that names the unit.

The race that this settles: the parent decides to interrupt unit n while the worker may be ending n and beginning n + 1.
1. The parent writes TARGET = n, then sends the signal.
2. The worker's main thread has ``armed[0] = n`` just while the code of unit n runs (unpickling, the call, pickling).
3. The handler raises only if ``armed[0] == TARGET``, and disarms before it raises: at most one raise for each arming, never in the
   worker's own code, never in another unit.
4. A signal that comes between the announcement of n and its arming is not lost: whoever arms looks at TARGET right afterwards.
A ``__del__`` or a weakref callback swallows the exception; `on_unraisable` arms again, and the parent repeats the signal.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # `signal` itself brings enum and functools: 3 ms of each start
import sys

from workq.interruption import ExternalInterrupt
from workq.transport.board import STARTED, TARGET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set
    from types import CodeType, FrameType

LEAVING_FRAMES = 6  # how far below the giving back of a lock its deepest call is
SIGNAL = signal.SIGUSR2  # coalesces, exists on every POSIX system, and is not taken by faulthandler, asyncio or Celery


class Interrupts:
    """The armed word and the handlers. Owned by the worker's main thread.

    Attributes:
        armed: A list of one: the unit whose code runs, or 0.
        below: The units on whose stack it runs, as they wait for it (hosts/children.py): their interrupts strike here too, and go on down.
    """

    def __init__(self, words: memoryview) -> None:
        self.armed = [0]
        self.entering: Set[CodeType] = frozenset()  # what takes locks: no interrupt strikes in its own lines
        self.leaving: Set[CodeType] = frozenset()  # what gives them back: nor in what it calls
        self.below: tuple[int, ...] = ()
        self._inner: list[int] = []  # the units that run while another waits, the innermost last
        self._words = words

    def install(self) -> None:
        """Take the interrupt signal and SIGINT. Called once, and again where a unit has changed them."""
        signal.signal(SIGNAL, self.on_signal)
        signal.signal(signal.SIGINT, self.on_keyboard)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (SIGNAL, signal.SIGINT))
        sys.unraisablehook = self.on_unraisable

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        """Raise in the unit that is meant, if it still runs."""
        number = self.armed[0]
        if number:
            target = self._words[TARGET]
            if (target == number or target in self.below) and not (self.leaving and self._in_the_middle(frame)):
                self.armed[0] = 0
                raise ExternalInterrupt(target)

    def _in_the_middle(self, frame: FrameType | None) -> bool:
        """Return whether a lock is just being taken or given back, where no exception may stand between the deed and its note.

        It strikes a moment later: whoever gives a lock back looks (`unshield`), and the parent repeats the signal.
        """
        if frame is not None and frame.f_code in self.entering:
            return True
        for _ in range(LEAVING_FRAMES):
            if frame is None:
                return False
            if frame.f_code in self.leaving:
                return True
            frame = frame.f_back
        return False

    def on_keyboard(self, signum: int, frame: FrameType | None) -> None:
        """A SIGINT sent to this very process is for the unit, never for the worker's own code."""
        if self.armed[0]:
            raise KeyboardInterrupt

    def on_unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Arm again where a ``__del__`` has swallowed our exception; the rest goes the ordinary way."""
        error = unraisable.exc_value
        if isinstance(error, ExternalInterrupt) and error.args:
            self.armed[0] = self._inner[-1] if self._inner else error.args[0]
        else:
            sys.__unraisablehook__(unraisable)

    def shield(self) -> int:
        """Disarm for a few steps that must not be cut in two, and return what `unshield` wants."""
        number, self.armed[0] = self.armed[0], 0
        return number

    def unshield(self, number: int) -> None:
        """Arm again; an interrupt that came meanwhile strikes now."""
        self.armed[0] = number
        if number:
            target = self._words[TARGET]
            if target == number or target in self.below:
                self.armed[0] = 0
                raise ExternalInterrupt(target)

    def enter(self, number: int) -> tuple[int, tuple[int, ...]]:
        """Let another unit run on the stack of this one, disarmed; return what `leave` wants."""
        armed, below = self.armed[0], self.below
        self.armed[0] = 0
        self.below = (*below, self._inner[-1] if self._inner else self._words[STARTED])
        self._inner.append(number)
        return armed, below

    def leave(self, before: tuple[int, tuple[int, ...]], struck: bool) -> None:
        """Go back to the one that waited; an interrupt of its own that came meanwhile strikes now, unless one has ``struck`` already."""
        armed, self.below = before
        self._inner.pop()
        if not struck:
            self.unshield(armed)
