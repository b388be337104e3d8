"""The launcher: a small single-threaded process that forks the workers, reaps them, and lets none outlive the application.

1. It imports what every worker needs, once, and forks on request. The application is never forked.
2. It reports each worker's start (with a pidfd that it opened before it could reap), and its end (status and peak memory).
3. When a worker ends it kills its group and what had left the group. It is a subreaper, so it sees those.
4. It watches the application by a pidfd: end-of-file is not enough, as a child that the application forked holds our socket too.
   When the application is gone it kills everything below itself and leaves.

It has no death signal of its own: PR_SET_PDEATHSIG belongs to the thread that forked, and the application's thread that happened
to start the launcher may end long before the application. The workers have it, towards the launcher, which has one thread only.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # `signal` itself brings enum and functools: 3 ms of each start
import errno
import gc
import os
import select
import sys
import time

from workq.process import ending
from workq.process.become import Ends, become_worker, name_process
from workq.process.messages import EXITED, FAILED, HELLO, START, STARTED, Outbox, close_all, receive
from workq.process.spawn import execute_worker
from workq.process.title import show_title

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable
    from typing import Any

    from workq.process.messages import Message

PR_SET_CHILD_SUBREAPER = 36
END_S = 1.5  # how long it tries to see everything dead at the end
APPLICATION_CHECK_S = 0.5  # between two looks at the parent's number, where there is no pidfd
RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


def main(channel: socket, config: dict[str, Any]) -> None:
    """Be the launcher until the application ends or closes its end of the channel. Never returns."""
    gc.disable()  # a worker enables it
    code = 1
    try:
        Launcher(channel, config).run()
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())  # to the pipe that the application reads
    finally:
        os._exit(code)


class Launcher:
    """The state of the launcher process."""

    def __init__(self, channel: socket, config: dict[str, Any]) -> None:
        self.channel = channel
        self.config = config
        self.outbox = Outbox(channel)
        self.pid = os.getpid()
        self.application_fd: int = config["application_fd"]
        self.workers: dict[int, tuple[int, str]] = {}  # pid -> number, name
        self.swept: dict[int, str] = {}  # pid of an orphan that was killed -> name of the worker that it came from
        self.entry_point: Callable[..., Any] = int
        self.parent_is_application = os.getppid() == config["application_pid"]  # not so with a wrapper that forks
        self.prctl: Callable[..., int] | None = None
        self.child_ended = -1  # readable when SIGCHLD came
        config["launcher_life_fd"], self.life_fd = os.pipe()  # the second is held by this process alone, see watch_life

    def run(self) -> None:
        """Prepare, then serve until the end."""
        self.take_place()
        self.load()
        self.say_hello()
        while self.wait():
            self.reap()
            self.outbox.flush()
        self.end_everything()

    # ------------------------------------------------------------ preparation

    def take_place(self) -> None:
        """Be a process of our own: what the application was started with (ignored or blocked signals) must not reach the workers."""
        if os.getsid(0) != self.pid:
            os.setsid()
        for number in signal.valid_signals():
            if number not in (signal.SIGPIPE, getattr(signal, "SIGXFSZ", 0)) and signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the application
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.child_ended, wakeup_fd = os.pipe()
        os.set_blocking(self.child_ended, False)
        os.set_blocking(wakeup_fd, False)
        signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # the wake-up descriptor needs a handler
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        name_process("workq_launcher")
        show_title(f"launcher of {self.config['application_pid']}")

    def load(self) -> None:
        """Import what every worker needs, and freeze it, so that no collection in a worker touches and copies these pages.

        None is made here before: there is next to nothing to be found, and it would be 2 ms of each start.
        """
        if sys.platform == "linux":
            from workq.transport import clibrary

            self.prctl = clibrary.function("prctl")
            self.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        if self.config["spawn"]:
            return  # each worker loads it for itself
        module, _, function = self.config["entry_point"].partition(":")
        __import__(module)
        self.entry_point = getattr(sys.modules[module], function)
        sys.argv[:] = self.config["argv"]
        gc.freeze()

    def say_hello(self) -> None:
        """Tell the application who we are: between it and us there may be a wrapper (``launcher_argv``)."""
        self.outbox.post((HELLO, self.pid), self.open_pidfd(self.pid))

    def open_pidfd(self, pid: int) -> list[int]:
        """Return a pidfd, or nothing where there is none to be had."""
        if not self.config["pidfd"]:
            return []
        try:
            return [os.pidfd_open(pid)]
        except (AttributeError, OSError):
            return []

    # ------------------------------------------------------------ serving

    def wait(self) -> bool:
        """Wait for something to do, and start what is to be started. Return False when everything is to end."""
        poller = select.poll()
        poller.register(self.channel.fileno(), select.POLLIN | (select.POLLOUT if self.outbox.waiting else 0))
        poller.register(self.child_ended, select.POLLIN)
        if self.application_fd >= 0:
            poller.register(self.application_fd, select.POLLIN)
        ready = dict(poller.poll(None if self.application_fd >= 0 else APPLICATION_CHECK_S * 1000))
        if self.child_ended in ready:
            drain(self.child_ended)
        if self.application_fd in ready or self.application_is_gone():
            return False
        return self.channel.fileno() not in ready or self.serve_requests()

    def application_is_gone(self) -> bool:
        """Where there is no pidfd: say whether we were given to another parent."""
        return self.application_fd < 0 and self.parent_is_application and os.getppid() != self.config["application_pid"]

    def serve_requests(self) -> bool:
        """Take in all requests that are there; False at end-of-file."""
        while True:
            try:
                message, descriptors = receive(self.channel)
            except BlockingIOError:
                return True
            if message is None:
                return False
            if message[0] == START:
                self.start(message, descriptors)

    def start(self, message: Message, descriptors: list[int]) -> None:
        """Fork one worker, and tell what came of it."""
        _, number, name = message
        try:
            if len(descriptors) != len(Ends._fields):
                raise OSError(errno.EMFILE, "the launcher has no descriptors left")
            pid = self.fork(name, Ends(*descriptors))
        except OSError as error:
            self.outbox.post((FAILED, number, f"{error.strerror} (errno {error.errno})", error.errno), [])
            return
        finally:
            close_all(descriptors)
        self.workers[pid] = number, name
        self.outbox.post((STARTED, number, pid), self.open_pidfd(pid))

    def fork(self, name: str, ends: Ends) -> int:
        """Fork; the child never returns. No signal reaches it before it has put away the handlers that are ours."""
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                self.channel.detach()  # its number is about to be closed, and must not be closed a second time
                if self.config["spawn"]:
                    execute_worker(name, ends, self.config, self.pid, self.prctl)
                become_worker(name, ends, self.config, self.pid, self.prctl, self.entry_point)
            return pid
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())

    # ------------------------------------------------------------ deaths

    def reap(self) -> None:
        """Reap every child that has ended: workers, and orphans that came to us.

        The group comes before the wait: as long as the leader is a zombie its number, which is the group's, is given to nobody.
        """
        while peeked := self.peek_dead_child():
            if peeked in self.workers:
                ending.kill_group(peeked)
            try:
                pid, status, usage = os.wait4(peeked, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self.workers:
                if peeked == -1:
                    ending.kill_group(pid)  # late, but no earlier moment is known
                self.bury_worker(pid, status, usage.ru_maxrss * RSS_UNIT_BYTES)
            else:
                self.bury_orphan(pid)

    def peek_dead_child(self) -> int:
        """Return the pid of a child that has ended, without reaping it; 0: there is none; -1: one cannot look without reaping."""
        if not self.config["pidfd"] or not hasattr(os, "waitid"):
            return -1
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return 0
        return found.si_pid if found else 0

    def bury_worker(self, pid: int, status: int, peak_rss_bytes: int) -> None:
        """Report a death, and kill what the worker has left outside of its group."""
        number, name = self.workers.pop(pid)
        self.outbox.post((EXITED, number, os.waitstatus_to_exitcode(status), peak_rss_bytes), [])
        self.sweep(name)

    def bury_orphan(self, pid: int) -> None:
        """A process that had lost its parent is gone. If we killed it, its own children have come to us now: sweep again."""
        name = self.swept.pop(pid, None)
        if name is not None:
            self.sweep(name)

    def sweep(self, name: str) -> None:
        """Kill what a dead worker left behind in sessions of its own; it has become our child by now."""
        for pid in ending.children(self.pid):
            if pid not in self.workers and pid not in self.swept and ending.owner_of(pid) == name:
                self.swept[pid] = name
                ending.kill_process(pid)

    def end_everything(self) -> None:
        """Kill all workers and all that comes to us when they die, until nothing is left or END_S has passed."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        deadline = time.monotonic() + END_S
        for pid in self.workers:
            ending.kill_tree(pid)
        while time.monotonic() < deadline:
            for pid in ending.children(self.pid):
                ending.kill_process(pid)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                return
            select.select([self.child_ended], [], [], 0.02)
            drain(self.child_ended)


def drain(descriptor: int) -> None:
    """Empty a pipe that does not block."""
    try:
        while os.read(descriptor, 4096):
            pass
    except BlockingIOError:
        pass
