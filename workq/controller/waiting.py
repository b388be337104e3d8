"""Who reads: the thread that waits, else the controller. Leader and followers.

A hop from one thread to another costs 7-30 us, and 5 ms where the main thread computes. So whoever waits for a unit reads the boards
itself (it *leads*); others that wait follow it, and it wakes those whose wait is over. The controller reads when nobody leads.

The hand-over, and the race that it settles. Workers ring whoever the board's WAIT word names, once.
1. A leader sets ``want = LEADER``, writes WAIT = LEADER on every busy board, fences, *then* looks, and only then blocks.
2. A leader that leaves sets ``want = CONTROLLER`` and WAIT = CONTROLLER everywhere under the lock (dispatch writes ``want`` to WAIT under
   it too), gives the lead back, and looks once more: what a worker rang for in between, the controller is woken for.
3. A follower registers itself, then tries to lead, and only then waits. A leader gives the lead back, then wakes the first follower.
   Either the follower got the lead, or the leader sees the follower.
4. The controller, for what only it does (deaths, taking back, stopping), *claims* the lead: it sets ``claimed``, rings the leader's bell
   and waits for the lock; the leader leaves, and follows until the controller has left.

Where one thread queues units one by one and waits for each, their workers ring nobody but it (row.py).

Signal handlers may raise in the main thread after any call that it makes: the lead is an RLock, whose owner can be asked for, and is
given back by two nested ``finally``, the inner one a single call of C, so that no exception can leave it held. A leader that is struck
rings the controller, which completes what was begun. The other locks are taken by ``with`` alone, which is never left half done.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from _socket import MSG_DONTWAIT
from _thread import get_ident
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from workq.controller.row import ROW_S
from workq.controller.tallies import MOST_LATER, note_lone
from workq.errors import QueueClosed, WaitError
from workq.transport import bells
from workq.transport.board import CONTROLLER, FINISHED, FRAMES, LARGE, LEADER, LONE, NOBODY, STARTED, WAIT, fence
from workq.transport.channel import BELL

if TYPE_CHECKING:
    from workq.controller.dispatch import Dispatcher
    from workq.controller.records import Worker


LOOK_S = 1.0  # the bound of each single wait: an application may close descriptors under it, and then no bell can wake it; and a signal
# that came right before the call does not end it, so that its handler (Ctrl-C) would wait with us
STREAM_S = 0.002  # between two looks whether a thread that queued and read still does; results may lie unread for two of them


class Bell:
    """May be rung by anybody at any time, also after it was closed: its number may be somebody else's by then.

    Attributes:
        fd: The descriptor to wait on.
        ring_fd: The one to ring, for workers.
    """

    def __init__(self, *, blocking: bool) -> None:
        self.fd, self.ring_fd = bells.make(blocking=blocking)
        self._to_close = [{self.fd, self.ring_fd}]  # taken out by the one who closes them
        self._ringing: list[None] = []  # an item for each thread that is about to write
        self._open = True

    def ring(self) -> None:
        """Wake whoever reads it. Without a lock: a signal handler that interrupts it may wait for one that somebody holds who rings."""
        self._ringing.append(None)  # first this, then the look; `close` does it the other way round, so that either sees the other
        try:
            if self._open:
                bells.ring(self.ring_fd)
        except OSError:  # the application has closed everything: whoever waits finds that out by himself (`LOOK_S`)
            self._open = False
        finally:
            self._ringing.pop()
        if not self._open:
            self.close()

    def close(self) -> None:
        """Give the descriptor back, or leave that to the last who rings. Nobody may be reading it."""
        self._open = False
        if not self._ringing:
            try:
                for fd in self._to_close.pop():
                    os.close(fd)
            except (IndexError, OSError):  # somebody else did; or the application has closed everything
                pass

    def __del__(self) -> None:
        if hasattr(self, "_open"):  # whoever made it may have failed right afterwards
            self._ringing = []
            self.close()


class Follower:
    """A thread that waits while another leads."""

    __slots__ = ("gate", "ready")

    def __init__(self, ready: Callable[[], bool]) -> None:
        self.ready = ready
        self.gate = threading.Lock()
        self.gate.acquire()

    def wake(self) -> None:
        """Let it look again. Twice is once."""
        try:
            self.gate.release()
        except RuntimeError:
            pass


class Visitor(Protocol):
    """Somebody who waits in a way of his own: a coroutine."""

    ready: Callable[[], bool]

    def wake(self) -> None:
        """Have him look again. Any thread, more than once, and never with user code."""


class Lead:
    """The right to read, and the waiting of everybody who has it not."""

    def __init__(self, dispatcher: Dispatcher, leader_bell: Bell, controller_bell: Bell) -> None:
        self.lock = threading.RLock()
        self._dispatcher = dispatcher
        self._leader_bell = leader_bell
        self.controller_bell = controller_bell
        self.closed = False  # under the lead
        self.streaming = False  # a thread that queues also reads, so that workers ring nobody; under the dispatch lock
        self._lone: Worker | None = None  # whose socket a lone waiter blocks in
        self._polled = False
        self._followers: deque[Follower | Visitor] = deque()
        self._claimed = False
        self._poll = select.poll()
        self._poll.register(leader_bell.fd, select.POLLIN)
        self._sockets: set[int] = set()  # of workers whose large frame has arrived in part; belongs to the lead

    # ------------------------------------------------------------ waiting threads

    def wait(self, ready: Callable[[], bool], timeout_s: float | None) -> bool:
        """Wait until `ready()`; return False where the time ran out. Any thread but the controller's; runs no user code."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not ready():  # asked once each time: a signal handler may queue a unit right afterwards
            if self.closed:
                return ready()
            if not self._lead(ready, deadline):
                self._follow(ready, deadline)
            if deadline is not None and time.monotonic() >= deadline:
                self.hand_on()  # we may have been the one that was to lead next
                return ready()
        return True

    def wait_lone(self, ready: Callable[[], bool]) -> bool:
        """Wait for a lone unit: one worker is busy and nobody else waits. Return False where that is not so, or no longer.

        Blocks in that worker's own socket: of all descriptors it is the one whose reader the kernel wakes fastest. ``want`` stays as it
        is, so whatever others dispatch meanwhile rings the controller, and that kicks us (`kick_lone`).
        """
        lock = self.lock
        if lock._is_owned() or self._claimed:  # type: ignore[attr-defined]
            return False
        try:
            if not lock.acquire(False):
                return False
            worker = self._only_busy()
            if worker is not None and not self.closed:
                self._dispatcher.row.yield_to(get_ident())
                self._lone = worker
                worker.words[WAIT] = LONE
                fence()
                if len(self._dispatcher.lone_times) > MOST_LATER:
                    note_lone(self._dispatcher.lone_times)  # while the worker is at it
                if not unread(worker) and not self._claimed and self._only_busy() is worker:
                    worker.incoming.wait_one_byte()
                self._lone = None
                self._read_lone(worker)
            return ready()
        except BaseException:
            self.controller_bell.ring()
            raise
        finally:
            try:
                self._leave_lone()
            finally:
                try:
                    lock.release()
                except RuntimeError:  # it was given back already
                    pass

    def _read_lone(self, worker: Worker) -> None:
        dispatcher = self._dispatcher
        estimate_s = dispatcher.read_lone(worker)
        if estimate_s is None:
            dispatcher.read(worker)
        elif dispatcher.row.count(estimate_s) and dispatcher.want == CONTROLLER:
            dispatcher.row.thread = get_ident()
            self.controller_bell.ring()  # from now on it looks whether the row goes on

    def _only_busy(self) -> Worker | None:
        """Return the worker that has units, if it is the only one, has but one and nobody follows."""
        if self._followers or self.streaming:
            return None
        busy = None
        for worker in self._dispatcher.workers:
            if worker.batches:
                if busy is not None:
                    return None
                busy = worker
        if busy is None or len(busy.batches) != 1 or len(busy.batches[0].units) != 1 or expects(busy):
            return None
        if busy.queue is not None and busy.queue.depth():
            return None
        return busy

    def _leave_lone(self) -> None:
        """Give the lead back, if we have it; nothing has to be handed over where nothing is under way."""
        if not self.lock._is_owned():  # type: ignore[attr-defined]
            return  # and `_lone` is another thread's
        self._lone = None
        for worker in self._dispatcher.workers:
            if worker.batches or expects(worker):
                self.leave()
                return
        self._release()
        if self._followers:
            self.hand_on()

    def kick_lone(self) -> None:
        """Wake a lone waiter: others have work under way by now."""
        worker = self._lone
        if worker is not None:
            with contextlib.suppress(OSError):  # full, or closed: it is awake, or about to be
                worker.lane.peer.send(BELL, MSG_DONTWAIT)

    def _waits_alone(self) -> bool:
        """Return whether somebody waits for the only unit that is under way."""
        worker = self._lone
        try:
            return worker is not None and self._only_busy() is worker
        except IndexError:  # it was read just now
            return False

    def nudge(self) -> None:
        """The controller was rung while another thread has the lead: wake that one, unless all that is under way is to ring it.

        A worker that was about to ring the controller when the leader armed its board has cleared the word after that.
        """
        if not self._waits_alone():
            self.kick_lone()
        if any(worker.batches and worker.words[WAIT] == NOBODY for worker in self._dispatcher.workers):
            self._leader_bell.ring()

    def try_pump(self) -> None:
        """Read what there is, if nobody else does. For a thread that queues while all workers are busy."""
        self._try_pump(self._stream)

    def try_read(self) -> None:
        """The same, for a thread that only looks."""
        self._try_pump(lambda: None)

    def _try_pump(self, afterwards: Callable[[], None]) -> None:
        lock = self.lock
        if lock._is_owned() or self._dispatcher.lock._is_owned():  # type: ignore[attr-defined]
            return  # a signal handler or a finalizer, in the middle of our own work
        try:
            if lock.acquire(False):
                self.pump()
                afterwards()
        except BaseException:
            self.controller_bell.ring()
            raise
        finally:
            try:
                lock.release()
            except RuntimeError:  # somebody else has it
                pass
            if self._followers or self._claimed:
                self.hand_on()

    def _stream(self) -> None:
        """Spare the controller its bells while a thread queues and reads in turn: it would be woken for each batch, to find it read.

        The controller looks every `STREAM_S` whether that thread still reads (`stream_ended`), and takes over where it does not.
        """
        self._polled = True
        if not self.streaming:
            with self._dispatcher.lock:
                if self._dispatcher.want == CONTROLLER:
                    self._dispatcher.want = NOBODY
                    self.streaming = True
            self.controller_bell.ring()

    @property
    def unrung(self) -> bool:
        """True while workers ring nobody, so that the controller has to look whether somebody reads (`stream_ended`)."""
        return self.streaming or self._dispatcher.row.thread != 0

    @property
    def look_s(self) -> float:
        """How long it may be until then."""
        return STREAM_S if self.streaming else ROW_S

    def stream_ended(self) -> bool:
        """Return whether the thread that queued and read has ceased to; then bells are armed again. The controller's thread."""
        row = self._dispatcher.row
        if self._polled or row.went_on:
            self._polled = row.went_on = False
            return False
        with self._dispatcher.lock:
            if self.streaming:
                self._end_stream()
                if self._dispatcher.want == NOBODY:
                    self._dispatcher.want = CONTROLLER
            row.end(self._dispatcher.workers)
        return True

    def _lead(self, ready: Callable[[], bool], deadline: float | None) -> bool:
        lock = self.lock
        if lock._is_owned() or self._dispatcher.lock._is_owned():  # type: ignore[attr-defined]
            raise WaitError(
                "a signal handler or a finalizer that interrupted a wait for units, or the queueing of one, "
                "cannot itself wait for one in that thread"
            )
        if self._claimed:
            return False
        try:
            if not lock.acquire(False):
                return False
            if self.closed:
                return True
            if self.streaming:
                self._read_what_streamed()
            self._dispatcher.row.stop()
            self._dispatcher.want = LEADER
            self._read_until(ready, deadline)
            return True
        except BaseException:
            self.controller_bell.ring()
            raise
        finally:
            try:
                self.leave()
            finally:
                try:
                    lock.release()
                except RuntimeError:  # `leave` has given it back
                    pass

    def _read_what_streamed(self) -> None:
        """A thread that queued and read in turn now waits, and its next look is this one: what it left to be sent together is sent."""
        with self._dispatcher.lock:
            self._end_stream()
        self.pump()

    def _end_stream(self) -> None:
        """Units are sent as they come again, wherever there is room: none is left to a look that does not come. Under the dispatch lock."""
        self.streaming = False
        for worker in self._dispatcher.workers:
            if worker.queue is not None:
                worker.queue.room = True

    def _read_until(self, ready: Callable[[], bool], deadline: float | None) -> None:
        """Read until it is ready, the time is up or the controller claims the lead.

        A function of its own, as all loops are that stand where something has to be given back: in Python 3.13 an exception of a signal
        handler that strikes at a loop's jump passes by the `try` and the `with` that the loop itself stands in.
        """
        while not ready() and not self._claimed:
            self._arm()
            if not self._anything():
                if not self._block(deadline):
                    break
            self.pump()

    def _follow(self, ready: Callable[[], bool], deadline: float | None) -> None:
        follower = Follower(ready)
        self._followers.append(follower)
        try:
            if ready():
                return
            if not self._claimed and self.lock.acquire(False):  # nobody leads any more: lead, at the next turn of the loop
                return
            left = LOOK_S if deadline is None else max(0.0, min(LOOK_S, deadline - time.monotonic()))
            follower.gate.acquire(timeout=left)
        except BaseException:
            self.hand_on()
            raise
        finally:
            try:
                self.lock.release()
            except RuntimeError:  # somebody else has it
                pass
            finally:
                with contextlib.suppress(ValueError):
                    self._followers.remove(follower)

    def admit(self, visitor: Visitor) -> None:
        """Take somebody among the followers who waits in a way of his own, and only wants to be woken."""
        self._followers.append(visitor)

    def dismiss(self, visitor: Visitor) -> None:
        """Let him go again. He may have been the one that was to lead next."""
        with contextlib.suppress(ValueError):
            self._followers.remove(visitor)
        self.hand_on()

    def _arm(self) -> None:
        """Say on every busy board that we wait. Followed by a look, before anything blocks."""
        for worker in self._dispatcher.workers:
            if worker.batches:
                worker.words[WAIT] = LEADER
        fence()

    def _anything(self) -> bool:
        for worker in self._dispatcher.workers:
            if worker.batches and unread(worker):
                return True
        return False

    def _block(self, deadline: float | None) -> bool:
        """Wait for a bell, or for more of a large frame; False where the time ran out."""
        self._watch_sockets()
        left = LOOK_S if deadline is None else min(LOOK_S, deadline - time.monotonic())
        if left <= 0:
            return False
        for fd, event in self._poll.poll(left * 1000 + 1):
            if event & select.POLLNVAL:
                raise QueueClosed("the application has closed the descriptors of workq; no result can arrive any more")
            if fd == self._leader_bell.fd:
                bells.silence(fd)
        return True

    def _watch_sockets(self) -> None:
        wanted = {worker.lane.socket.fileno() for worker in self._dispatcher.workers if expects(worker)}
        for fd in self._sockets - wanted:
            with contextlib.suppress(KeyError):  # an exception struck us here before
                self._poll.unregister(fd)
        for fd in wanted - self._sockets:
            self._poll.register(fd, select.POLLIN)
        self._sockets = wanted

    def leave(self) -> None:
        """Hand over to the controller, if we lead. See the page's head, point 2."""
        if not self.lock._is_owned():  # type: ignore[attr-defined]
            return
        if self.give_up():
            self.controller_bell.ring()

    def give_up(self) -> bool:
        """Arm the controller's bell, give the lead back, and return whether there is something to read or to watch."""
        dispatcher = self._dispatcher
        with dispatcher.lock:
            dispatcher.want = CONTROLLER
            if self.streaming:
                self._end_stream()
            _have_the_controller_rung(dispatcher.workers)
        self.lock.release()
        fence()
        self.hand_on()
        return any(unread(worker) or (expects(worker) and not worker.watched) for worker in dispatcher.workers)

    def _release(self) -> None:
        if self.lock._is_owned():  # type: ignore[attr-defined]
            self.lock.release()

    # ------------------------------------------------------------ whoever leads

    def pump(self) -> int:
        """Read all boards, send on, and wake the followers whose wait is over. Under the lead."""
        dispatcher = self._dispatcher
        total = 0
        for worker in dispatcher.workers:
            if worker.batches or expects(worker):
                total += dispatcher.read(worker)
                queue = worker.queue
                if queue is not None and (queue.room or dispatcher.want == NOBODY) and (queue.pending or queue.ranked):
                    with dispatcher.lock:
                        dispatcher.dispatch(queue)
                if not worker.batches and ((dispatcher.wanted_dry and not worker.told_dry) or self._others_hold_more(worker)):
                    dispatcher.post()
        if self._followers:
            self.wake_ready()
        return total

    def _others_hold_more(self, idle: Worker) -> bool:
        """Return whether units wait behind others' long ones that this idle worker could run."""
        queue = idle.queue
        if queue is None or len(queue.workers) < 2:
            return False
        return any(
            len(worker.batches) > 1 or (worker.batches and len(worker.batches[0].units) - worker.batches[0].at > 1)
            for worker in queue.workers
        )

    def wake_ready(self) -> None:
        """Wake the followers whose wait is over."""
        for follower in tuple(self._followers):
            if follower.ready():
                follower.wake()

    def hand_on(self) -> None:
        """Let a follower try to lead. After the lead was given back."""
        for follower in tuple(self._followers):
            follower.wake()
            return

    def kick(self) -> None:
        """Wake the leader, if there is one, to look again."""
        self._leader_bell.ring()
        self.kick_lone()

    # ------------------------------------------------------------ the controller

    def take(self, must: bool) -> bool:
        """Take the lead if it is free, and from a leader if we must. The controller's thread only; not entered twice."""
        if self.lock.acquire(False):
            return True
        if must:
            self._claimed = True
            self.kick()
            self.lock.acquire()
            self._claimed = False
        return must

    def close(self) -> None:
        """Nobody waits here any more: everything has ended. The controller's thread, with the lead."""
        self.closed = True
        self._release()
        for follower in tuple(self._followers):
            follower.wake()
        self._leader_bell.close()
        self.controller_bell.close()

    def wake_all(self) -> None:
        """Let everybody who waits look again. Any thread."""
        self.kick()
        for follower in tuple(self._followers):
            follower.wake()


def unread(worker: Worker) -> bool:
    """Return whether a worker's board shows more than was read of it."""
    if not worker.batches or worker.waits_for_large:
        return False
    words = worker.words
    try:
        batch = worker.batches[0]
    except IndexError:  # read just now, by whoever leads
        return False
    return bool(max(words[FINISHED], words[STARTED] - 1, words[LARGE]) >= batch.first + batch.at)


def expects(worker: Worker) -> bool:
    """Return whether more must come on a worker's socket, so that somebody has to watch it."""
    return not worker.exited and (
        worker.waits_for_large or worker.incoming.partial or bool(worker.incoming.others) or worker.words[FRAMES] != worker.incoming.counted
    )


def _have_the_controller_rung(workers: list[Worker]) -> None:
    for worker in workers:
        if worker.batches:
            worker.words[WAIT] = CONTROLLER
