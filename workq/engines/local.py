"""Workers as processes on this machine, forked by a launcher.

The application makes every descriptor of a worker, and hands the worker's ends to the launcher; so a start that fails in the
launcher leaves nothing, and a worker's output is caught from its first instant.

Who tells of a death? The launcher, which reaps. A worker's pidfd is the second witness: if it fires and the launcher says nothing,
the launcher is woken (somebody may have stopped it), and after a while the death is reported without a code. If the launcher
itself dies, the kernel kills its workers (PR_SET_PDEATHSIG), we kill what they had started, and the next start makes a new launcher.

Threads: the controller's, but for ``interrupt`` and ``kill``, which any thread may call.
``_lock`` keeps those two from a lane whose end has been reported, as its descriptors may be closed, and their numbers used again. It
is reentrant because a signal handler may call them too, and is never held while anything waits.

In a fork of the application every method does nothing: the workers, and even the selector, belong to the other process.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import selectors
import signal
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from workq.core.fact import record
from workq.engines.descriptors import make_lane
from workq.engines.protocol import EngineEvent, Exited, Lane, Started, StartFailed
from workq.errors import LaunchError
from workq.process import ending, messages
from workq.process.client import REAP_S, WORKER_ENTRY, Launcher, is_readable, process_exists
from workq.process.messages import EXITED, FAILED, START, STARTED

if TYPE_CHECKING:
    from workq.process.messages import Message

logger = logging.getLogger("workq")

WIDE_PIPES = 16  # workers whose pipes are made that large: a user may have 64 MiB in all, and then gets tiny ones
NUDGE_S = 0.2  # the launcher says nothing of a death that the pidfd has told: wake it
GIVE_UP_S = 1.0  # and then report the death without a code
SILENCE_S = 5.0  # a start is not answered: the launcher is killed and replaced; it is woken after a fifth of this
FIRST_ANSWER_FACTOR = 4.0  # so much longer for a launcher that has not yet said hello: its imports may come from a slow disk
ORPHAN_CHECK_S = 0.01  # between two looks at a worker that has neither a launcher nor a pidfd
ORPHAN_S = 2.0  # it was sent SIGKILL; after this its number must belong to a zombie that nobody reaps


@record
class _Process:
    """What the engine knows of one worker that has not been reported as ended."""

    lane: Lane
    launcher: Launcher | None  # None: its launcher is gone
    asked_at: float
    started: bool = False
    kill_wanted: bool = False  # kill() came before its pid was known
    pidfd_watched: bool = False
    ended_at: float | None = None  # when its pidfd fired
    nudged: bool = False  # the launcher was woken because of it
    look_at: float | None = None  # when to look at it even if nobody says anything


class LocalEngine:
    """The engine whose workers are processes on this machine. See ``engines.protocol.Engine``."""

    def __init__(
        self,
        bells: tuple[int, int],
        *,
        interrupt_signal: int = signal.SIGUSR2,
        start_method: str = "launcher",
        launcher_argv: Sequence[str] | None = None,
        entry_point: str = WORKER_ENTRY,
        silence_s: float = SILENCE_S,
        pidfd: bool = True,
        launcher: Launcher | None = None,
    ) -> None:
        """Start nothing yet.

        Args:
            bells: The leader's and the controller's bell, two descriptors that each worker inherits.
            interrupt_signal: What ``interrupt`` sends.
            start_method: ``"launcher"``; ``"fork"``: the launcher forks from the application; ``"spawn"``: each is a new interpreter.
            launcher_argv: A command whose item ``{command}`` stands for the launcher's own, such as ``["nice", "{command}"]``.
            entry_point: What a worker runs, ``module:function``.
            silence_s: How long the launcher may leave a start unanswered.
            pidfd: False: do as on a system that has no pidfds.
            launcher: One that was made already, with the same arguments. None: the first start makes it.
        """
        self._bells = bells
        self._interrupt_signal = interrupt_signal
        self._start_method = start_method
        self._launcher_argv = launcher_argv
        self._entry_point = entry_point
        self._silence_s = silence_s
        self._pidfd_wanted = pidfd
        self._owner_pid = os.getpid()
        self._selector = selectors.DefaultSelector()
        self._launcher: Launcher | None = None
        self._lock = threading.RLock()
        self._processes: dict[int, _Process] = {}  # changed by the controller's thread, under the lock
        self._events: list[EngineEvent] = []
        self._closed = False
        if launcher is not None:
            self._adopt(launcher)

    @property
    def launcher_pid(self) -> int | None:
        """The process number of the launcher, or None while there is none."""
        return self._launcher.pid if self._launcher else None

    # ------------------------------------------------------------ the protocol

    def start(self, number: int) -> Lane:
        """Begin to start a worker; never waits. Started, StartFailed or Exited will follow. OSError: no descriptors, no memory."""
        failure = ""
        try:
            launcher = self._need_launcher()  # first, as it takes longest: it comes up while we make the descriptors
        except LaunchError as error:
            launcher, failure = None, str(error)
        lane, worker_ends = make_lane(number, wide=len(self._processes) < WIDE_PIPES)
        if launcher is None:
            messages.close_all(worker_ends)
            self._events.append(StartFailed(number, failure))
            return lane
        with self._lock:
            now = time.monotonic()
            self._processes[number] = _Process(lane, launcher, now, look_at=now + self._silence_s / 5)
        launcher.outbox.post((START, number, lane.name), worker_ends)
        self._watch_channel(launcher)
        return lane

    def fileno(self) -> int:
        """Return a descriptor that is readable while the launcher or a pidfd has something to say. It never changes."""
        fileno = getattr(self._selector, "fileno", None)
        return -1 if fileno is None else int(fileno())

    def watched(self) -> list[tuple[int, int]]:
        """Return what the launcher and the pidfds are heard by."""
        return [(key.fd, key.events) for key in self._selector.get_map().values()]

    def events(self) -> Sequence[EngineEvent]:
        """Return what has happened since the last call, in order, without waiting."""
        if self._not_ours():
            return ()
        for key, _ in self._selector.select(0):
            self._react(key)
        self._look_at_clock()
        happened, self._events = self._events, []
        return happened

    def _react(self, key: selectors.SelectorKey) -> None:
        """Call who waits for this descriptor, unless an earlier one of the same batch has ended that, and the number may be another's."""
        current = self._selector.get_map().get(key.fd)
        if current is not None and current.data is key.data:
            key.data()

    def next_deadline(self) -> float | None:
        """Return when (time.monotonic) to call ``events()`` even if nothing became readable, or None."""
        if self._not_ours():
            return None
        if self._events:
            return time.monotonic()
        return min([process.look_at for process in self._processes.values() if process.look_at is not None], default=None)

    def interrupt(self, lane: Lane) -> None:
        """Send the interrupt signal to the worker's process; no error if it has ended."""
        with self._lock:
            process = self._processes.get(lane.number)
            if self._not_ours() or process is None or process.lane is not lane or not process.started:
                return
            try:
                if lane.pidfd >= 0:
                    signal.pidfd_send_signal(lane.pidfd, self._interrupt_signal)
                else:
                    os.kill(lane.pid, self._interrupt_signal)
            except OSError:
                pass

    def kill(self, lane: Lane) -> None:
        """SIGKILL the worker and its process group, and what left the group; no error if gone. One not yet started dies as it starts."""
        with self._lock:
            process = self._processes.get(lane.number)
            if self._not_ours() or process is None or process.lane is not lane:
                return
            process.kill_wanted = True
            if process.started:
                ending.kill_tree(lane.pid, lane.pidfd)

    def close(self, deadline: float) -> None:
        """End every process that is left, by time.monotonic() ``deadline`` at the latest, and close every descriptor of ours."""
        if self._closed:
            return
        self._closed = True
        if os.getpid() == self._owner_pid:
            self._end_processes(deadline)
            self._selector.close()

    # ------------------------------------------------------------ the launcher

    def _not_ours(self) -> bool:
        return self._closed or os.getpid() != self._owner_pid

    def _need_launcher(self) -> Launcher:
        """Return the launcher; make it if there is none."""
        if self._launcher is None:
            return self._adopt(Launcher(self._bells, self._entry_point, self._start_method, self._launcher_argv, self._pidfd_wanted))
        return self._launcher

    def _adopt(self, launcher: Launcher) -> Launcher:
        """Hear what this launcher says from now on."""
        self._launcher = launcher
        self._selector.register(launcher.channel, selectors.EVENT_READ, lambda: self._hear(launcher))
        self._selector.register(launcher.error_fd, selectors.EVENT_READ, lambda: self._read_stderr(launcher))
        return launcher

    def _watch_channel(self, launcher: Launcher) -> None:
        """Wait for room in the channel exactly while messages wait for it."""
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if launcher.outbox.waiting else 0)
        key = self._selector.get_key(launcher.channel)
        if key.events != wanted:
            self._selector.modify(launcher.channel, wanted, key.data)

    def _hear(self, launcher: Launcher) -> None:
        """Take in what the launcher says, and send what it has room for."""
        while launcher is self._launcher:
            try:
                message, descriptors = launcher.receive()
            except BlockingIOError:
                launcher.outbox.flush()
                return self._watch_channel(launcher)
            if message is None:
                return self._lose_launcher(launcher)
            self._take_in(message, descriptors)

    def _take_in(self, message: Message, descriptors: list[int]) -> None:
        """Turn one message of the launcher into an event."""
        kind, number, *rest = message
        process = self._processes.get(number)
        if kind == STARTED and process is not None:
            self._note_start(process, rest[0], descriptors)
        elif kind == FAILED and process is not None:
            self._forget(process, StartFailed(number, rest[0]))
            self._replace_poor_launcher(rest[1])
        elif kind == EXITED and process is not None:
            self._forget(process, Exited(number, rest[0], rest[1]))
        messages.close_all(descriptors)

    def _read_stderr(self, launcher: Launcher) -> None:
        if not launcher.read_stderr():
            self._selector.unregister(launcher.error_fd)

    def _lose_launcher(self, launcher: Launcher) -> None:
        """The launcher is gone: kill what its workers had started, and report those that it never started."""
        self._launcher = None
        launcher.kill()  # it may have closed the channel only
        launcher.wait_ended(time.monotonic() + REAP_S)
        why = launcher.why_gone()
        logger.debug("%s", why)
        for descriptor in (launcher.channel, launcher.error_fd):
            if descriptor in self._selector.get_map():
                self._selector.unregister(descriptor)
        for process in [one for one in self._processes.values() if one.launcher is launcher]:
            process.launcher = None
            self._orphan(process, why)
        launcher.close()

    def _replace_poor_launcher(self, error: int) -> None:
        """A launcher that has no descriptors for its first worker was made under a low limit, and keeps it: the next one has today's."""
        launcher = self._launcher
        if error == errno.EMFILE and launcher is not None and all(one.launcher is not launcher for one in self._processes.values()):
            self._lose_launcher(launcher)

    def _orphan(self, process: _Process, why: str) -> None:
        """Do what is to be done for one worker whose launcher is gone."""
        if not process.started:
            return self._forget(process, StartFailed(process.lane.number, why))
        ending.kill_tree(process.lane.pid, process.lane.pidfd)
        if process.ended_at is not None:
            return self._forget_orphan(process)
        process.asked_at = time.monotonic()  # to die, this time
        process.look_at = None if process.pidfd_watched else process.asked_at

    # ------------------------------------------------------------ processes

    def _note_start(self, process: _Process, pid: int, descriptors: list[int]) -> None:
        """The worker exists: note who it is, and watch it."""
        lane = process.lane
        with self._lock:
            lane.pid = pid
            lane.pidfd = descriptors.pop() if descriptors else -1
            process.started = True
            process.look_at = None
            if process.kill_wanted:
                ending.kill_tree(lane.pid, lane.pidfd)
        if lane.pidfd >= 0:
            self._selector.register(lane.pidfd, selectors.EVENT_READ, lambda: self._note_end(process))
            process.pidfd_watched = True
        self._events.append(Started(lane.number))

    def _note_end(self, process: _Process) -> None:
        """Its pidfd says that it has ended. There is nothing more to hear from the pidfd; the launcher will say how it ended."""
        if not is_readable(process.lane.pidfd):
            return
        self._selector.unregister(process.lane.pidfd)
        process.pidfd_watched = False
        process.ended_at = time.monotonic()
        if process.launcher is None:
            self._forget_orphan(process)
        else:
            process.look_at = process.ended_at + NUDGE_S

    def _forget_orphan(self, process: _Process) -> None:
        """Report a worker that ended after its launcher. What it had started may have left its group, and has no parent to tell."""
        ending.kill_group(process.lane.pid, process.lane.pidfd)
        ending.sweep({process.lane.name})
        self._forget(process, Exited(process.lane.number, code_of_own_child(process.lane.pidfd)))

    def _forget(self, process: _Process, event: StartFailed | Exited) -> None:
        """Report the end of a worker. From here on its descriptors are the controller's to close, and nobody signals it."""
        with self._lock:
            del self._processes[process.lane.number]
        if process.pidfd_watched:
            self._selector.unregister(process.lane.pidfd)
        self._events.append(event)

    # ------------------------------------------------------------ when nobody says anything

    def _look_at_clock(self) -> None:
        """Look at each worker whose time has come."""
        now = time.monotonic()
        for process in list(self._processes.values()):
            if process.look_at is not None and process.look_at <= now and process.lane.number in self._processes:
                self._look_at(process, now)

    def _look_at(self, process: _Process, now: float) -> None:
        """Do what is due for one worker."""
        if process.launcher is None:
            self._look_at_orphan(process, now)
        elif process.ended_at is not None:
            self._look_at_unreported(process, process.launcher, now)
        elif not process.started:
            self._look_at_unanswered(process, process.launcher, now)
        else:
            process.look_at = None

    def _look_at_orphan(self, process: _Process, now: float) -> None:
        """It has neither a launcher nor a pidfd: all that can be asked is whether the number is still in use."""
        process.look_at = now + ORPHAN_CHECK_S
        if not process_exists(process.lane.pid) or now > process.asked_at + ORPHAN_S:
            self._forget_orphan(process)

    def _look_at_unreported(self, process: _Process, launcher: Launcher, now: float) -> None:
        """It has ended, and the launcher has not said so: wake it, and later do without it."""
        if process.nudged:
            return self._forget(process, Exited(process.lane.number, None))
        launcher.resume()
        process.nudged = True
        process.look_at = now + GIVE_UP_S

    def _look_at_unanswered(self, process: _Process, launcher: Launcher, now: float) -> None:
        """Its start is not answered: wake the launcher, and later replace it."""
        patience_s = self._silence_s if launcher.ready else self._silence_s * FIRST_ANSWER_FACTOR
        gives_up_at = max(process.asked_at, launcher.heard_at) + patience_s
        if now >= gives_up_at:
            return self._lose_launcher(launcher)
        launcher.resume()
        process.look_at = min(now + patience_s / 5, gives_up_at)

    # ------------------------------------------------------------ the end

    def _end_processes(self, deadline: float) -> None:
        """Have the launcher end everything, or do it ourselves if it does not by the deadline."""
        launcher, self._launcher = self._launcher, None
        with self._lock:
            left, self._processes = list(self._processes.values()), {}
        if launcher is not None:
            launcher.begin_end()
            if not launcher.wait_ended(deadline):
                launcher.kill()
                launcher.wait_ended(time.monotonic() + REAP_S)
        started = [process for process in left if process.started]
        for process in started:
            ending.kill_tree(process.lane.pid, process.lane.pidfd)
        wait_for_pidfds([process.lane.pidfd for process in started], max(deadline, time.monotonic() + REAP_S))
        if started:
            ending.sweep({process.lane.name for process in started})
        if launcher is not None:
            launcher.close()


def wait_for_pidfds(pidfds: Sequence[int], deadline: float) -> None:
    """Wait until all these processes have ended, or until the deadline."""
    for pidfd in pidfds:
        if pidfd >= 0:
            waiting = select.poll()
            waiting.register(pidfd, select.POLLIN)
            waiting.poll(max(0.0, deadline - time.monotonic()) * 1000)


def code_of_own_child(pidfd: int) -> int | None:
    """Return the exit code of a worker that became our own child when its launcher died (we are process 1, or a subreaper)."""
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG) if pidfd >= 0 else None
    except OSError:
        return None
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
