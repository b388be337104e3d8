"""Log records of a worker, on their way to the parent's loggers of the same name.

`logging` costs 20 ms, and most units do not log: nothing is imported here until somebody imports it. A finder on ``sys.meta_path``
waits for that import, puts one handler on the root logger right after it, and goes away, so that the very first record arrives.

Processes that a unit forks: multiprocessing-logging's handler and thread carry their records to the worker. Three things of it are
done differently here, because units do what they like:

1. Its queue is multiprocessing's, with a lock that a killed child would leave held, a thread in each child that loses
   what it has not written yet when the child ends by ``os._exit``, and a start method that is settled by it. Ours is a socket pair of
   datagrams: one system call for each record, nothing to be left held.
2. Records of the worker itself do not go through it: they would arrive after their unit had ended.
3. It is put in place just before the first fork, as it costs a thread.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # `signal` itself brings enum and functools: 3 ms of each start
import os
import sys

from workq import context

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

_relay: Relay | None = None


def install(send: Callable[[bytes], None], level: int, levels: dict[str, int] | None = None) -> None:
    """Hand each record of this process from ``level`` on to ``send``, as bytes for `records.load_record`.

    ``send`` is called by whichever thread logs; ``levels`` are those of single loggers, by name. Call this once, in the worker,
    before any unit runs.
    """
    global _relay
    _relay = Relay(send, level, levels or {})
    if "logging" in sys.modules:
        _relay.attach(sys.modules["logging"])
    else:
        sys.meta_path.insert(0, LoggingFinder(_relay.attach))
    os.register_at_fork(before=_relay.before_fork, after_in_child=_relay.after_in_child)


def keep() -> None:
    """Put our handler back where a unit has taken it away (``logging.basicConfig(force=True)``, ``dictConfig``). Cheap."""
    if _relay is not None and _relay.handler is not None:
        _relay.stay(sys.modules["logging"])


class Relay:
    """The worker's one handler, and the way of its children's records. Lives as long as the process."""

    def __init__(self, send: Callable[[bytes], None], level: int, levels: dict[str, int]) -> None:
        self.send = send
        self.level = level
        self.levels = levels
        self.pid = os.getpid()
        self.handler: logging.Handler | None = None
        self.children: Any = None  # multiprocessing-logging's handler, from the first fork on
        self.forked_in: str | None = None  # the unit that has forked this process
        self.worker = ""

    def attach(self, logging: ModuleType) -> None:
        """Become the only handler of the root logger: what was inherited would write everything twice."""
        self.handler = make_handler(logging, self.emit)
        logging.root.handlers[:] = [self.handler]
        logging.root.setLevel(self.level)
        for name, level in self.levels.items():
            logging.getLogger(name).setLevel(level)

    def stay(self, logging: ModuleType) -> None:
        if self.handler not in logging.root.handlers:
            logging.root.addHandler(self.handler)

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record of this process."""
        from workq.transport.records import dump_record

        if os.getpid() == self.pid:
            self.send(dump_record(record, unit_label(), worker_name()))
        elif self.children is not None:
            self.children.queue.put_nowait(dump_record(record, self.forked_in, self.worker))

    def before_fork(self) -> None:
        """Note who forks, and open the way for the child's records if there is none yet."""
        if os.getpid() != self.pid:
            return  # a child of a child: the way is open
        self.forked_in, self.worker = unit_label(), worker_name()
        if self.children is None:
            known = "logging" in sys.modules
            self.children = open_way_for_children(self.send)
            if not known and "logging" in sys.modules:
                sys.modules["logging"]._lock.acquire()  # imported in mid-fork, it gives back after it what it has not taken

    def after_in_child(self) -> None:
        """Give up the reading end: a worker that has died must be noticed, not waited for. The thread that reads is not here."""
        if self.children is not None:
            self.children.queue.close_reader()


def unit_label() -> str | None:
    """Return the label of the unit that runs, as in its errors, or None."""
    unit = context.current_unit()
    return f"{unit.queue}:{unit.id} {unit.name}" if unit is not None else None


def worker_name() -> str:
    """Return the worker's name (empty where there is none, in tests)."""
    side = context.side()
    return side.name if side is not None else ""


def make_handler(logging: Any, emit: Callable[[Any], None]) -> logging.Handler:
    """Return a handler that hands its records to ``emit``; a record that cannot be sent is told on stderr, as logging does."""

    class ParentHandler(logging.Handler):  # type: ignore[misc]
        def emit(self, record: Any) -> None:
            try:
                emit(record)
            except Exception:
                self.handleError(record)

    return ParentHandler()


class LoggingFinder:
    """Waits for the first import of `logging`."""

    def __init__(self, then: Callable[[ModuleType], None]) -> None:
        self._then = then

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Find it with the other finders, and have ``then`` called once it has been loaded."""
        if name != "logging":
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        for finder in sys.meta_path:
            spec: Any = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = ThenLoader(spec.loader, self._then)
                return spec
        return None


class ThenLoader:
    """Loads as another loader does, then gives itself up and calls a function."""

    def __init__(self, loader: Any, then: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._then = then

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._then(module)


def open_way_for_children(send: Callable[[bytes], None]) -> Any:
    """Start multiprocessing-logging's handler, over a socket pair; return it, or None where it cannot be."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # inherited by the thread: interrupts are not for it
    try:
        import multiprocessing_logging

        multiprocessing_logging.multiprocessing = QueueMaker
        handler = multiprocessing_logging.MultiProcessingHandler("workq-logs", sub_handler=make_sender(send))
        handler.close = do_nothing  # `logging.shutdown` in a unit would wait for its thread, which waits for records
        return handler
    except Exception as error:  # no descriptors, no threads: the fork itself must not fail for it
        os.write(2, f"workq: log records of forked processes will not arrive: {error!r}\n".encode(errors="replace"))
        return None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def do_nothing() -> None:
    """Stands in for a ``close``."""


def make_sender(send: Callable[[bytes], None]) -> Any:
    """Return the handler at the end of the way: what it is given are bytes already."""
    import logging

    return make_handler(logging, send)


class RecordQueue:
    """The queue that multiprocessing-logging works with, over datagrams: no lock, no feeding thread, no start method."""

    def __init__(self, maxsize: int = 0) -> None:
        import socket

        self._reader, self._writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def put_nowait(self, data: bytes) -> None:
        """Send one record whole; waits where the worker does not read fast enough. Without a worker it is lost."""
        try:
            self._writer.send(data)
        except OSError:
            return

    def close_reader(self) -> None:
        """In a child: close the end that is not its own."""
        self._reader.close()

    def get(self, timeout: float | None = None) -> bytes:
        """Wait for the next record. Does not look at the time: nothing happens in between that would have to be noticed."""
        return self._reader.recv(1 << 20)

    def qsize(self) -> int:
        return 0

    def close(self) -> None:
        """Called when reading has failed, as a unit has closed the descriptors: by now they may be somebody else's."""
        self._reader.detach()
        self._writer.detach()

    def join_thread(self) -> None:
        """There is no thread."""


class QueueMaker:
    """Stands in multiprocessing-logging for the module it makes its queue with."""

    Queue = RecordQueue
