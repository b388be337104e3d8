"""Workers that end: what they leave on their boards is read, the unit that ran is blamed, everything is told once."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import time
from collections import deque
from typing import TYPE_CHECKING

from workq import errors
from workq.controller import sessions, stopping, tallies
from workq.controller.fitting import Fittings
from workq.controller.records import Worker
from workq.core.events import WorkerExited, WorkerId, WorkTaken
from workq.core.states import UnitState
from workq.outcome import PENDING, Ended, cancelled, timed_out
from workq.process import probe
from workq.transport.board import EXIT_LOCKED, EXIT_MAIMED
from workq.unit import Unit

if TYPE_CHECKING:
    from typing import Any

    from workq.controller.loop import Loop
    from workq.controller.records import Queue
    from workq.errors import Halt

logger = logging.getLogger("workq")

CUT = "[workq: output cut, {} bytes dropped]\n"
FLOW_MS = 5  # a pipe that stays empty for so long is not being written to
MOST_DROPPED_BYTES = 64 << 20  # at one look, so that a unit that writes without end does not keep the controller
MOST_OUTPUT_BYTES = 1 << 20  # that a dead worker's pipe is read for
STALLED_STACK_S = 0.05  # to wait for the stack of a stalled worker: the controller waits
FAULT = "Fatal Python error:"  # how faulthandler's page begins
FAULTS = (FAULT, "Current thread 0x", "Thread 0x")


def load() -> None:
    """Load what a halt is made of, while there is time and there are descriptors. It takes 10 ms, and nothing from the second time on."""
    assert errors.WorkerHalted is not None


class Halts:
    """Belongs to the controller's thread; called with the lead."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.start_failures: dict[str, str] = {}  # of each category: why the last start failed
        self._oom_kills = probe.oom_kills(os.getpid())

    # ------------------------------------------------------------ starts

    def start_failed(self, number: int, why: str) -> None:
        """A process could not be made."""
        worker = self._loop.by_number.get(number)
        if worker is not None:
            self.note_start_failure(worker.category, f"a worker process cannot be made: {why}")
            self._forget(worker)
        self._loop.tell(WorkerExited(WorkerId(number)))

    def note_start_failure(self, category: str, why: str, told: bool = False) -> None:
        """Keep why a start failed, for the units that may have to be told. Where all was ``told`` to the log its first line will do."""
        self.start_failures[category] = why
        logger.error("workers of category %s: %s", category, why.partition("\n")[0] if told else why)

    def fail_category(self, category: str) -> None:
        """No worker of a category can be started: all its units that wait fail, and say why."""
        loop = self._loop
        why = self.start_failures.get(category, "they end before they are ready")
        message = f"workers of category {category!r} cannot be started ({loop.settings.start_tries} tries): {why}"
        loop.controller.given_up[category] = message
        for queue in loop.controller.every_queue():
            if queue.category != category:
                continue
            with queue.in_hand():
                for unit in loop.dispatcher.drop_all(queue):
                    stopping.count_end(unit, UnitState.FAILED)
                    loop.ends.settle(unit, Ended(UnitState.FAILED, queue.launch_error(message)))
            loop.told(queue, 0)
            loop.tell(WorkTaken(queue.number))
        loop.lead.wake_ready()

    # ------------------------------------------------------------ ends

    def exited(self, number: int, code: int | None, peak_rss_bytes: int, now: float) -> None:
        """A worker has ended: read it to its end, settle what it had, and say so."""
        loop = self._loop
        worker = loop.by_number.get(number)
        if worker is None:
            return
        with contextlib.ExitStack() as hands:
            for queue in {worker.queue, *(batch.queue for batch in (*worker.batches, *worker.own))}:
                if queue is not None:
                    hands.enter_context(queue.in_hand())  # until its units have ended, or lie in the backlog again
            self._bury(worker, code, peak_rss_bytes)
        loop.tell(WorkerExited(WorkerId(number)))
        loop.lead.wake_ready()

    def _bury(self, worker: Worker, code: int | None, peak_rss_bytes: int) -> None:
        """Take over what a dead worker had."""
        loop = self._loop
        while loop.dispatcher.read(worker):
            pass
        loop.nested.answer()  # its last requests came with that: which of its own units it had begun, say
        running = loop.dispatcher.running(worker)
        with loop.dispatcher.lock:
            all_lost = loop.dispatcher.abandon(worker)
            own = loop.nested.children.abandon(worker)  # which the unit that waited for them ran, the innermost last
            queue = worker.queue
            self._forget(worker)
            if queue is not None:
                queue.workers.remove(worker)
                worker.queue = None
                queue.told = 0
                loop.attention.add(queue)
        begun = dict([] if running is None else [running]) | {unit: begun_ns / 1e9 for unit, begun_ns in own}
        all_lost += [unit for unit, _ in own]
        lost = all_lost[-1] if all_lost else None
        begun_s = begun.get(lost) if lost is not None else None
        halt = self._halt(worker, code, peak_rss_bytes, queue, lost, begun_s)
        if not worker.leaving or code:  # one that left as it was asked to is no news
            self._report(worker, halt)
        if not worker.ready and not worker.leaving:
            why = f"{worker.killed_for}: " if worker.killed_for is not None else ""
            self.note_start_failure(worker.category, why + str(halt), told=worker.killed_for is None)
        loop.fittings.gone(worker)
        if lost is not None:
            loop.fittings.died(worker, queue, halt)
        if queue is not None and queue.session:
            loop.sessions.lose(queue, halt)
        for unit in all_lost:
            self._blame(unit, worker, halt, begun.get(unit))
        loop.locks.worker_gone(worker, code, lost)
        loop.nested.worker_gone(worker)

    def _forget(self, worker: Worker) -> None:
        loop = self._loop
        worker.exited = True
        if worker.ready:
            spent = loop.controller.tallies.worker_ns
            spent[worker.category] = spent.get(worker.category, 0) + int((time.monotonic() - worker.ready_at) * 1e9)
        loop.by_number.pop(worker.number, None)
        with loop.dispatcher.lock:
            loop.dispatcher.workers = [other for other in loop.dispatcher.workers if other is not worker]
        self._read_last_words(worker)
        worker.let_go()

    def _read_last_words(self, worker: Worker) -> None:
        worker.last_words = _read_all(worker.lane.error_fd).decode("utf-8", "backslashreplace")

    def _halt(
        self, worker: Worker, code: int | None, peak_rss_bytes: int, queue: Queue | None, lost: Unit[Any] | None, begun_s: float | None
    ) -> Halt:
        name = None
        if code is not None and code < 0:
            try:
                name = signal.Signals(-code).name
            except ValueError:
                name = f"signal {-code}"
        flushed = "".join(text for number, text in lost.extra.output if number == 2) if lost is not None and lost.extra is not None else ""
        stderr, stack = _split(flushed + worker.last_words, self._loop.settings.stderr_lines)
        if code == EXIT_MAIMED and not stderr:
            stderr = "workq: a unit has closed the descriptors of this worker, so that it cannot serve any more"
        return errors.Halt(
            worker=worker.name,
            pid=worker.pid,
            process_info_id=worker.process_info_id,
            category=worker.category,
            phase=_phase(worker, queue, lost),
            exit_code=None if name else code,
            signal=name,
            unit=lost.label if lost is not None else None,
            run_time_s=max(0.0, time.monotonic() - begun_s) if begun_s is not None else 0.0,
            peak_rss_bytes=peak_rss_bytes,
            stderr=stderr,
            stack=stack,
            probably_out_of_memory=name == "SIGKILL" and worker.killed_for is None and self._oom_counter_grew(),
            queue=lost.call.queue.name if lost is not None else None,
        )

    def _oom_counter_grew(self) -> bool:
        before, self._oom_kills = self._oom_kills, probe.oom_kills(os.getpid())
        return before is not None and self._oom_kills is not None and self._oom_kills > before

    def _report(self, worker: Worker, halt: Halt) -> None:
        """Tell of a worker that ended by itself; one that we killed was told of at the kill."""
        loop = self._loop
        if worker.killed_for is not None or halt.exit_code == EXIT_LOCKED:
            logger.debug("%s ended as it was to: %s", worker.name, halt.reason())
            return
        loop.controller.tallies.count_halt(worker.category, halt.why())
        self._publish(halt)

    def _publish(self, halt: Halt) -> None:
        """Keep a halt, log it, and have the application's callbacks called."""
        controller = self._loop.controller
        controller.halts.append(halt)
        del controller.halts[: -self._loop.settings.halts_kept]
        logger.error("%s", halt)
        for callback in controller.halt_callbacks:
            controller.delivery.call(callback, halt)

    def _blame(self, unit: Unit[Any], worker: Worker, halt: Halt, begun_s: float | None) -> None:
        """End the unit that ran: as it was asked to, or as lost."""
        loop = self._loop
        unit.worker_record = worker
        if begun_s is not None:
            unit.started_ns, unit.ended_ns = int(begun_s * 1e9), time.monotonic_ns()
            tallies.note_unit(unit)
        stopping_as = unit.extra.stopping if unit.extra is not None else None
        if stopping_as is UnitState.CANCELLED:
            unit.call.queue.cancelled += 1
            loop.ends.settle(unit, cancelled(unit, "its worker was killed, as it did not end within delete_timeout"))
            return
        if stopping_as is UnitState.TIMED_OUT:
            end = timed_out(unit, unit.call.options.timeout or 0.0, worker)
        elif stopping_as is UnitState.FAILED:
            end = stopping.exceeded(unit)
        elif unit.call.queue.lost_by is not None:
            end = sessions.lost(unit.call.queue)
        else:
            end = Ended(UnitState.LOST, errors.WorkerHalted(halt))
        if unit.call.options.retry is not None:
            from workq.controller import retrying  # loaded already, by whoever asked for retries

            attempt = retrying.attempt_of(unit, end, worker, unit.started_ns if begun_s is not None else 0, unit.ended_ns)
            if retrying.comes_again(loop, unit, end, attempt):
                return
            if end.state is UnitState.LOST and unit.call.queue.lost_by is None:
                end.error = retrying.loss(unit, halt, attempt, loop.settings)
        stopping.count_end(unit, end.state)
        loop.ends.settle(unit, end)

    # ------------------------------------------------------------ workers that live, but do not beat

    def look_for_stalled(self, now: float) -> None:
        """Report workers whose heartbeat has stopped (by a signal, or as the interpreter hangs). They are not killed for it."""
        loop = self._loop
        for worker in loop.dispatcher.workers:
            if not worker.ready or worker.exited:
                continue
            if worker.silence_s(now) < loop.settings.stalled_after_s:
                worker.stalled = False
                continue
            self._make_room(worker)
            if not worker.stalled:
                worker.stalled = True
                self._report_stalled(worker)

    def _make_room(self, worker: Worker) -> None:
        """Take what a silent worker's unit has written: C code that keeps the interpreter's lock may be waiting for room in its pipe."""
        lead = self._loop.lead
        lead.take(must=True)  # so that nobody sees the unit end before its output is with it
        try:
            self._take_output(worker)
        finally:
            if lead.give_up():
                self._loop.ring()

    def _take_output(self, worker: Worker) -> None:
        running = self._loop.dispatcher.running(worker)
        if running is None or running[0].value is not PENDING or worker.exited:
            return
        extra = running[0].need_extra()
        for number, fd in ((1, worker.lane.output_fd), (2, worker.lane.error_fd)):
            room = self._loop.settings.output_bytes - sum(len(text) for _, text in extra.output)  # what earlier looks have taken counts
            kept, dropped = _read_while_it_flows(fd, max(0, room))
            if kept:
                extra.output.append((number, kept.decode("utf-8", "backslashreplace")))
            if dropped:
                extra.output.append((number, f"\n{CUT.format(dropped)}"))
            if kept or dropped:
                running[0].call.queue.outputs.append(running[0])

    def _report_stalled(self, worker: Worker) -> None:
        loop = self._loop
        running = loop.dispatcher.running(worker)
        unit = running[0] if running is not None and running[0].value is PENDING else None
        halt = errors.Halt(
            worker=worker.name,
            pid=worker.pid,
            process_info_id=worker.process_info_id,
            category=worker.category,
            phase=_phase(worker, worker.queue, unit),
            unit=unit.label if unit is not None else None,
            run_time_s=time.monotonic() - running[1] if running is not None else 0.0,
            stack=worker.stack(STALLED_STACK_S),
            stalled=True,
            queue=unit.call.queue.name if unit is not None else None,
        )
        self._publish(halt)


def _phase(worker: Worker, queue: Queue | None, unit: Unit[Any] | None) -> str:
    """Return what a worker does that serves this queue and has, or had, this unit."""
    if unit is None:
        return "exit" if worker.leaving else "idle" if worker.ready else "start"
    return "setup" if queue is unit.call.queue and Fittings.awaits_set_up(worker, queue) else "unit"


def _read_all(fd: int) -> bytes:
    """Return what is left in a dead worker's pipe (a grandchild may still hold its other end: never wait for end-of-file)."""
    pieces: deque[bytes] = deque(maxlen=MOST_OUTPUT_BYTES // 65536)
    try:
        while piece := os.read(fd, 65536):
            pieces.append(piece)
    except OSError:
        pass
    return b"".join(pieces)


def _read_while_it_flows(fd: int, most: int) -> tuple[bytes, int]:
    """Return what comes out of a pipe until it has been empty for some milliseconds, up to ``most`` bytes, and how many more there were."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    kept, dropped = bytearray(), 0
    try:
        while dropped < MOST_DROPPED_BYTES and poll.poll(FLOW_MS) and (piece := os.read(fd, 65536)):
            room = most - len(kept)
            kept += piece[:room]
            dropped += max(0, len(piece) - room)
    except OSError:
        pass
    return bytes(kept), dropped


def _split(text: str, lines: int) -> tuple[str, str]:
    """Split what was on stderr into its last lines and the page that faulthandler wrote."""
    at = min((place for mark in FAULTS if (place := text.find(mark)) >= 0), default=-1)
    plain, stack = (text, "") if at < 0 else (text[:at], text[at:])
    return "\n".join((plain if at >= 0 else text).splitlines()[-lines:]), stack[:20_000]
