"""shutdown_on_signal: a signal that ends the program lets the units end first.

The handler itself only writes to a descriptor: whatever the main thread was in the middle of, nothing is waited for there. A thread, which
waits for that descriptor from the beginning, does the rest, and then sends the signal again, for the handler that was there before.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from workq.controller.controller import Controller
from workq.controller.draining import Shutdown, shut_down
from workq.controller.exiting import living
from workq.errors import ArgumentError, WorkqError, is_handle
from workq.given.arguments import check_seconds
from workq.transport import bells

logger = logging.getLogger("workq")


class SignalShutdown:
    """What ``shutdown_on_signal`` has put in place.

    Attributes:
        report: What became of the shutdown, see ``WorkMgr.shutdown``; None before there was one.
    """

    def __init__(self, signals: tuple[int, ...], drain_timeout: float, controllers: Callable[[], list[Controller]]) -> None:
        self.report: Shutdown | None = None
        self._drain_timeout_s = drain_timeout
        self._controllers = controllers
        self._pid = os.getpid()
        self._names = ", ".join(name_of(number) for number in signals)
        self._number = 0  # of the signal that came
        self._hurried = False
        self._passed_on = False
        self._over = threading.Event()
        self._bell, self._ring_fd = bells.make(blocking=True)
        self._thread = threading.Thread(target=self._run, name="workq-shutdown", daemon=True)
        self._thread.start()
        self._former: dict[int, Any] = {number: signal.signal(number, self._handle) for number in signals}
        atexit.register(self._at_exit)

    def uninstall(self) -> None:
        """Put the former handlers back, where nobody else has put his own since. In the main thread."""
        atexit.unregister(self._at_exit)
        for number in tuple(self._former):
            self._restore(number)
        if self._bell >= 0 and self._number == 0 and os.getpid() == self._pid:
            bells.ring(self._ring_fd)
            self._thread.join()
        elif self._over.is_set():
            self._thread.join()  # it has sent the signal again, or is about to
        if self._bell >= 0 and not self._thread.is_alive():
            for fd in {self._bell, self._ring_fd}:
                os.close(fd)
            self._bell = -1

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise is_handle(f"the shutdown on {self._names}")

    def __repr__(self) -> str:
        if self.report is not None or self._over.is_set():
            state = "done"
        elif self._number:
            state = f"{name_of(self._number)} has come"
        else:
            state = "waits" if self._former else "uninstalled"
        return f"<SignalShutdown on {self._names}, {self._drain_timeout_s:g} s to end: {state}>"

    def _restore(self, number: int) -> None:
        former = self._former.pop(number, signal.SIG_DFL)
        if signal.getsignal(number) == self._handle:
            signal.signal(number, signal.SIG_DFL if former is None else former)  # None: it was not installed from Python

    # ------------------------------------------------------------ in the main thread, in the middle of anything

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid or self._over.is_set():  # a child that the application has forked; or it is done
            self._pass_on(number, frame)
        elif self._number == 0:
            self._number = number
            bells.ring(self._ring_fd)
        else:  # the second time
            self._hurried = True
            for controller in self._controllers():
                if controller.loop is not None:
                    controller.loop.command(controller.loop.lead.wake_all)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        """Let the former handler act, or the system. A handler of the application's that was set since has called us, and acts no more."""
        self._passed_on = True
        former = self._former.get(number, signal.SIG_DFL)
        if callable(former):
            if signal.getsignal(number) == self._handle:
                signal.signal(number, former)
            former(number, frame)  # not sent once more: asyncio's loop hears of each signal by itself, and would act on it again
        else:
            signal.signal(number, signal.SIG_DFL if former is None else former)
            signal.raise_signal(number)

    def _at_exit(self) -> None:
        """The program ends by itself while units are being waited for: it ends by the signal all the same."""
        if not self._number or os.getpid() != self._pid or self._number not in self._former:
            return
        self._over.wait()  # bounded: by the drain and the end that follows
        if not self._passed_on:
            signal.raise_signal(self._number)  # to us, or to whoever has set a handler since

    # ------------------------------------------------------------ in the thread

    def _run(self) -> None:
        bells.silence(self._bell)
        if not self._number:
            return  # uninstalled
        name = name_of(self._number)
        logger.info("%s: units have %g s to end", name, self._drain_timeout_s)
        try:
            self.report = shut_down(self._controllers(), self._drain_timeout_s, lambda: self._hurried)
            if not self.report:
                logger.warning("%s: %s", name, self.report)
        except Exception:
            logger.exception("%s: the shutdown has failed", name)
        finally:
            self._over.set()
            os.kill(self._pid, self._number)


def shutdown_on_signal(*signals: int, drain_timeout: float = 10.0, controller: Controller | None = None) -> SignalShutdown:
    """Have a signal let units end before it does what it did until now.

    When it comes, nothing more can be queued; what was queued has ``drain_timeout`` seconds to end; what has not ended by then is
    interrupted, and killed after ``delete_timeout``. A second signal ends the wait at once. Which units were interrupted is logged, at
    level WARNING, and stands in ``report``. Then the signal is sent again, to the handler that was there before, or to the system, which
    ends the program. Meanwhile the main thread goes on.

    Args:
        *signals: Which signals. Default: SIGTERM.
        drain_timeout: Seconds that units have to end.
        controller: Default: all that the program has when the signal comes.

    Raises:
        ArgumentError: A value is not allowed.
        WorkqError: This is not the main thread, the only one that may set signal handlers.

    >>> import signal
    >>> handle = shutdown_on_signal(signal.SIGTERM, drain_timeout=30)
    >>> handle.uninstall()
    """
    check_seconds("drain_timeout", drain_timeout)
    numbers = signals or (signal.SIGTERM,)
    for number in numbers:
        if (
            not isinstance(number, int)
            or isinstance(number, bool)
            or number not in signal.valid_signals()
            or number in (signal.SIGKILL, signal.SIGSTOP)
        ):
            raise ArgumentError(f"signals must be signals that can be handled, such as signal.SIGTERM, not {number!r}")
    if controller is not None and not isinstance(controller, Controller):
        raise ArgumentError(f"controller must be a workq.Controller or None, not {controller!r}")
    if threading.current_thread() is not threading.main_thread():
        raise WorkqError("shutdown_on_signal must be called in the main thread: Python sets signal handlers there only")
    return SignalShutdown(tuple(numbers), float(drain_timeout), lambda: living() if controller is None else [controller])


def name_of(number: int) -> str:
    """Return a signal's name; of those of real time most have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {int(number)}"


__all__ = ["SignalShutdown", "shutdown_on_signal"]
