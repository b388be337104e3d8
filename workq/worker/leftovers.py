"""What a unit leaves behind in its worker: noticed when it ends, told with its result, and put back where that is possible.

Put back: the working directory, the signal mask, the signal handlers, logging where it was disabled, and what processwide.py looks at.
Named, once: threads and child processes that live on. Only counted: changes of the environment, as libraries make them on import.
Locks that are still held are seen to in claims.py. Not looked at: what is the interpreter's alone, such as warnings' filters or hooks.

A look costs 5 us, and three times that between units that fill the caches: the worker takes it only after a unit that had the time to
do any of this.
"""

from __future__ import annotations

import os
import sys
from _signal import SIG_BLOCK, SIG_SETMASK, getsignal, pthread_sigmask, valid_signals  # type: ignore[import-not-found]
from _signal import signal as set_handler  # `signal` itself makes an enum of each answer, which costs 30 us for all
from _thread import _count as count_threads

from workq.worker import stack
from workq.worker.processwide import ProcessWide

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from workq.worker.interrupt import Interrupts

SIGNALS = tuple(sorted(valid_signals()))
OWN_THREADS = "workq-"  # how the names of ours begin


class Watcher:
    """Compares the process with how it was before its first unit. Owned by the worker's main thread."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts
        self._folder = folder()
        self._handlers = handlers()
        self._environment = environment()
        self._thread_count = count_threads()
        self._threads = {thread.ident for thread in threads()}
        self._children = {*children()} if has_children() else set()
        self._process_wide = ProcessWide()

    def mend(self) -> list[str] | None:
        """Put back what was changed, and return a sentence for each, or None."""
        found: list[str] = []
        if folder() != self._folder:
            found.append(f"it changed the working directory to {folder()!r}; put back")
            self._go_back()
        if handlers() != self._handlers or pthread_sigmask(SIG_BLOCK, ()):
            found += self._signals_put_back()
        if count_threads() != self._thread_count:
            found += self._new_threads()
        if has_children():
            found += self._new_children()
        now = environment()
        if now != self._environment:
            changed = len(now.items() ^ self._environment.items() if now and self._environment else (1,))
            found.append(f"it changed the environment (changes: {changed}); left as it is")
            self._environment = now
        if "logging" in sys.modules and sys.modules["logging"].root.manager.disable:
            sys.modules["logging"].disable(0)
            found.append("it disabled logging; put back")
        found += self._process_wide.mend()
        return found or None

    def _go_back(self) -> None:
        try:
            os.chdir(self._folder)
        except OSError:
            self._folder = folder()  # the folder is gone: the new one is home from now on

    def _signals_put_back(self) -> list[str]:
        found = []
        changed = [number for number, now, before in zip(SIGNALS, handlers(), self._handlers, strict=True) if now != before]
        for number, before in zip(SIGNALS, self._handlers, strict=True):
            if number in changed and before is not None:  # None: set by C code, and not ours to know
                set_handler(number, before)
        if changed:
            found.append(f"it changed the handlers of {names(changed)}; put back")
        blocked = pthread_sigmask(SIG_SETMASK, ())
        if blocked:
            found.append(f"it blocked {names(blocked)}; put back")
        self._interrupts.install()
        stack.offer_again()
        self._handlers = handlers()
        return found

    def _new_threads(self) -> list[str]:
        """Name the threads that were not here before."""
        self._thread_count = count_threads()
        alive = {thread.ident: thread.name for thread in threads()}
        new = [name for ident, name in alive.items() if ident not in self._threads and not name.startswith(OWN_THREADS)]
        self._threads = {*alive}
        return [f"it left threads that live on: {', '.join(sorted(new)[:10])}" + more(new)] if new else []

    def _new_children(self) -> list[str]:
        """Name the child processes that were not here before."""
        alive = children()
        new = [f"{name} (pid {pid})" for pid, name in alive.items() if pid not in self._children]
        self._children = {*alive}
        return [f"it left child processes that live on: {', '.join(new[:10])}" + more(new)] if new else []


def more(names: list[str]) -> str:
    """Return how many are not shown."""
    return f" and {len(names) - 10} more" if len(names) > 10 else ""


def names(numbers: Any) -> str:
    """Return the names of signals; all of them in one word."""
    import signal

    shown = [getattr(number, "name", None) or _name(signal, number) for number in sorted(numbers)]
    return ", ".join(shown) if len(shown) <= 6 else f"{len(shown)} signals"


def _name(signal: Any, number: int) -> str:
    try:
        return str(signal.Signals(number).name)
    except ValueError:
        return f"signal {number}"


def folder() -> str:
    """Return the working directory, or nothing where it is gone."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def handlers() -> tuple[Any, ...]:
    """Return the handler of every signal (3 us)."""
    return tuple(map(getsignal, SIGNALS))


def environment() -> dict[bytes, bytes]:
    """Return a copy of the environment (0.5 us): the dictionary itself, without decoding it."""
    return dict(getattr(os.environ, "_data", None) or {})


def threads() -> list[Any]:
    """Return the living threads that `threading` knows, the main one left out."""
    threading = sys.modules.get("threading")
    return [thread for thread in threading.enumerate() if thread is not threading.main_thread()] if threading is not None else []


def has_children() -> bool:
    """Return whether this process has any child, dead or alive (1 us)."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except OSError:
        return False
    return True


def children() -> dict[int, str]:
    """Return the living children of this process, with their names; nothing where /proc does not tell."""
    found: dict[int, str] = {}
    try:
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/children") as file:
                for pid in map(int, file.read().split()):
                    with open(f"/proc/{pid}/stat", errors="replace") as stat:
                        name, _, state = stat.read().partition("(")[2].rpartition(")")
                    if not state.startswith(" Z"):
                        found[pid] = name
    except (OSError, ValueError):
        pass
    return found
