"""The controller one turn at a time: no process, no thread; who does what next is decided by the test."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import workq
from workq.config import DEFAULTS
from workq.controller.row import ROW
from workq.testing.engine import MemoryEngine, SteppedWorker
from workq.transport.board import BLOCKED, CONTROLLER, NOBODY, WAIT


class Stage:
    """A controller, its engine, and a queue."""

    def __init__(self, workers: int = 1, worker_clock: Callable[[], float] = time.monotonic, **settings: Any) -> None:
        self.engine = MemoryEngine(worker_clock)
        self.controller = workq.Controller(engine=lambda bells: self.engine, threaded=False, settings=DEFAULTS._replace(**settings))
        self.wq = workq.WorkMgr(workers, name="stage", controller=self.controller)

    def turn(self, times: int = 3) -> None:
        """Let the controller take a few turns: one hears, one decides, one performs what needs the lead."""
        for _ in range(times):
            self.controller.running().turn([])

    def worker(self, number: int = 1) -> SteppedWorker:
        return self.engine.workers[number]

    def ready(self, number: int = 1) -> SteppedWorker:
        """Turn until the worker was started, and have it say ready."""
        self.turn()
        self.worker(number).get_ready()
        self.turn()
        return self.worker(number)


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.controller.close()


def test_nothing_is_started_before_a_unit_is_queued(stage: Stage) -> None:
    stage.turn()
    assert stage.engine.workers == {}


def test_a_unit_goes_to_the_worker_and_its_result_comes_back(stage: Stage) -> None:
    unit = stage.wq.queue(abs, -7)
    worker = stage.ready()
    assert unit.state.value == "sent"
    assert worker.begin()
    assert unit.state.value == "running"
    worker.end()
    stage.turn()
    assert unit.state.value == "done"
    assert unit.result() == 7
    assert stage.wq.statistics().done == 1


def test_a_worker_that_is_ready_before_the_launcher_has_said_its_pid_is_given_nothing_until_then(stage: Stage) -> None:
    """Whoever is shown a worker that runs a unit may kill it by its pid, and 0 would be his own process group."""
    unit = stage.wq.queue(abs, -7)
    stage.turn()
    worker = stage.worker()
    pid, worker.lane.pid = worker.lane.pid, 0
    worker.get_ready()
    stage.turn()
    assert unit.state.value == "queued"
    assert not worker.begin()
    worker.lane.pid = pid
    stage.turn()
    assert worker.step()
    stage.turn()
    assert unit.worker is not None
    assert (unit.result(), unit.worker.pid) == (7, pid)


def test_a_worker_that_is_not_believed_to_be_blocked_is_active_in_all_tables(stage: Stage) -> None:
    """Of units that all sleep only as many are believed to be blocked as the queue may have workers: the others count as active."""
    unit = stage.wq.queue(abs, -7)
    assert stage.ready().begin()
    (worker,) = stage.controller.running().dispatcher.workers
    worker.told_blocked = stage.controller.running().core.workers[worker.number].doubted = True
    statistics, (row,) = stage.wq.statistics(), stage.wq.workers()
    assert (statistics.active_workers, statistics.blocked_workers, statistics.judged_workers) == (1, 0, 0)
    assert (stage.wq.num_active_workers, row.state) == (1, "active")
    stage.worker().end()
    stage.turn()
    assert unit.result() == 7


class Sleepers:
    """A queue of one worker whose units say that they wait, and the workers that stand in for each other."""

    def __init__(self) -> None:
        never = 1e9  # however slow the machine is
        self.stage = Stage(linger_s=never, sample_s=never, silent_after_s=never, long_after_s=never, recall_after_s=never)
        self.blocked = self.begin(1, started=False)
        self.say(1, True)
        self.going = self.begin(2, started=False)

    def begin(self, number: int, *, started: bool = True) -> workq.Unit[int]:
        """Queue a unit that this worker begins."""
        unit = self.stage.wq.queue(abs, -number)
        if not started:
            self.stage.ready(number)
        assert self.stage.worker(number).begin()
        return unit

    def say(self, number: int, blocked: bool) -> None:
        """Have a worker's unit say that it waits, or goes on."""
        self.stage.worker(number)._board.words[BLOCKED] = blocked

    def end(self, number: int, unit: workq.Unit[int]) -> None:
        """End a unit; its outcome is read, and the controller hears of nothing."""
        self.say(number, False)
        worker = self.stage.worker(number)
        worker.end()
        assert not worker.begin(), "what was sent behind it was taken back"
        self.stage.controller.running().lead.try_read()
        assert unit.done()


@pytest.fixture
def sleepers() -> Iterator[Sleepers]:
    made = Sleepers()
    yield made
    made.stage.controller.close()


@pytest.mark.parametrize("estimate_s", [1e-6, 1.0], ids=["sent behind the one that waits", "left in the backlog"])
def test_a_stand_in_that_was_limited_before_it_was_granted_a_unit_keeps_it(sleepers: Sleepers, estimate_s: float) -> None:
    """The core limits one worker too many, hears that the other waits as well, and grants that very worker what waits.

    Who is free is told before who is blocked, and that nothing waits any more before either: else others would be started besides.
    """
    stage, blocked, going = sleepers.stage, 1, 2
    units = [sleepers.blocked, sleepers.going]
    for _ in range(4):
        sleepers.end(going, units[1])
        sleepers.end(blocked, units[0])
        blocked, going = going, blocked  # who is believed to be blocked is sent nothing
        units = [sleepers.begin(blocked)]
        sleepers.say(blocked, True)
        stage.wq._row.estimate_s = estimate_s
        units.append(stage.wq.queue(abs, -4))
        stage.turn()
        assert stage.worker(going).begin(), "it was sent what waited, and that was not taken back"
        assert not stage.controller.running().believed_waiting
    assert len(stage.engine.workers) == 2


class LastTaken:
    """A worker is at a unit while another one waits; `take` has it end, and a thread that reads send it the other one."""

    def __init__(self, sample_s: float) -> None:
        never = 1e9
        self.stage = Stage(linger_s=never, sample_s=sample_s, silent_after_s=never, long_after_s=never, recall_after_s=never)
        self.loop, self.queue = self.stage.controller.running(), self.stage.wq._row
        self.units = [self.stage.wq.queue(abs, -1)]
        self.worker = self.stage.ready()
        assert self.worker.begin()
        self.queue.estimate_s = 1.0  # so that none is sent behind another
        self.units.append(self.stage.wq.queue(abs, -2))
        self.stage.turn()
        assert self.loop.believed_waiting

    def take(self) -> None:
        self.worker.end()
        self.loop.lead.try_read()
        assert self.worker.begin(), "whoever reads has sent the other one"

    def finish(self) -> None:
        """The controller has heard that nothing waits, and all goes on."""
        assert not self.loop.believed_waiting
        self.worker.end()
        self.stage.turn()
        assert [unit.result() for unit in self.units] == [1, 2]
        self.stage.controller.close()


def test_nobody_looks_for_blocked_workers_when_the_last_unit_was_taken() -> None:
    last = LastTaken(sample_s=1e-6)
    assert last.loop.judge.next_look is not None
    last.take()
    last.stage.turn()
    assert last.loop.judge.next_look is None
    last.finish()


def test_the_core_hears_that_nothing_waits_also_where_it_was_to_be_told_anew() -> None:
    """Whoever takes units back forgets what was told; they may be sent again before the controller looks."""
    last = LastTaken(sample_s=1e9)
    last.queue.told = 0
    last.take()
    last.loop.attention.add(last.queue)
    last.stage.turn()
    assert last.loop.core.queues[last.queue.number].units == 0
    last.finish()


def test_nobody_stands_in_for_a_worker_that_has_just_taken_the_last_unit_and_waits() -> None:
    last = LastTaken(sample_s=1e9)
    last.take()
    last.worker._board.words[BLOCKED] = True
    last.stage.turn()
    assert len(last.stage.engine.workers) == 1
    last.worker._board.words[BLOCKED] = False
    last.finish()


def test_units_queued_while_the_worker_starts_all_run_in_order(stage: Stage) -> None:
    units = [stage.wq.queue(abs, -n) for n in range(100)]
    worker = stage.ready()
    while worker.step():
        stage.turn(1)
    assert [unit.result() for unit in units] == list(range(100))
    assert [unit.ended_ns for unit in units] == sorted(unit.ended_ns for unit in units)


@pytest.mark.parametrize(
    ("each_s", "waiting", "sent"), [(0.001, 60, 1), (0.001, 150, 4), (0.001, 1000, 8), (0.005, 1000, 1), (0.0001, 1000, 31)]
)
def test_the_more_units_of_a_millisecond_wait_the_more_are_sent_at_once(each_s: float, waiting: int, sent: int, stage: Stage) -> None:
    stage.wq.pause()
    units = [stage.wq.queue(abs, -n) for n in range(waiting)]
    stage.wq._row.estimate_s = each_s
    stage.wq.resume()
    stage.ready()
    (worker,) = stage.controller.running().dispatcher.workers
    assert len(worker.batches[0].units) == sent
    assert units[0].state.value == "sent"


@pytest.mark.parametrize(("lag_s", "sent"), [(0.0, [1]), (0.0005, [1]), (0.005, [5, 5]), (0.010, [10, 10])])
def test_where_refills_come_late_both_batches_are_sent_at_once_and_last_until_the_next(lag_s: float, sent: list[int], stage: Stage) -> None:
    stage.wq.queue(abs, -1)
    assert stage.ready().step()
    stage.turn()
    row, dispatcher = stage.wq._row, stage.controller.running().dispatcher
    row.estimate_s, row.lag_s, row.room = 0.001, lag_s, False  # so that they wait
    units = [stage.wq.queue(abs, -n) for n in range(30)]
    with dispatcher.lock:
        dispatcher.dispatch(row)
    (worker,) = dispatcher.workers
    assert [len(batch.units) for batch in worker.batches] == sent
    assert units[0].state.value == "sent"


def test_where_units_have_priorities_no_more_are_sent_because_many_wait(stage: Stage) -> None:
    stage.wq.pause()
    for number in range(1000):
        stage.wq.options(priority=number % 2).queue(abs, number)
    stage.wq._row.estimate_s = 0.001
    stage.wq.resume()
    stage.ready()
    (worker,) = stage.controller.running().dispatcher.workers
    assert {len(batch.units) for batch in worker.batches} == {1}


def test_units_that_come_before_the_controller_looks_do_not_each_ring_it() -> None:
    stage = Stage(workers=4)
    bell = stage.controller.running().bell_fd
    for round_ in range(3):  # the core hears of more each time
        for _ in range(100):
            stage.wq.queue(abs, round_)
        assert 1 <= rings(bell) < 10
        stage.turn()
        rings(bell)
    stage.controller.close()


def rings(bell: int) -> int:
    """Return how often a bell was rung since it was last looked at."""
    try:
        return int.from_bytes(os.read(bell, 8), sys.byteorder)
    except BlockingIOError:
        return 0


def streaming() -> tuple[Stage, list[SteppedWorker]]:
    """Have two workers, neither of which has anything to do, and a thread that queues units of a microsecond and reads in turn."""
    stage = Stage(workers=2, worker_clock=lambda: 1000.0, linger_s=1e9)  # so no unit's time is measured, and no worker leaves the queue
    units = [stage.wq.queue(abs, -n) for n in range(2)]
    workers = [stage.ready(1), stage.ready(2)]
    stage.wq._row.estimate_s = 1e-6
    units += [stage.wq.queue(abs, -n) for n in range(100)]
    while not all(unit.done() for unit in units):
        run_all(stage, workers)
    stage.controller.running().lead.try_pump()
    assert stage.controller.running().lead.streaming
    stage.wq._row.poll_each = 10_000  # from here on it reads where the test says so
    return stage, workers


def finish(stage: Stage, workers: list[SteppedWorker], units: list[workq.Unit[int]]) -> None:
    """Have the workers run all that is left, and close."""
    while not all(unit.done() for unit in units):  # bounded: by the test's time limit
        run_all(stage, workers)
    stage.controller.close()


def test_work_of_high_priority_is_shared_out_if_it_is_not_little() -> None:
    stage, workers = streaming()
    stage.wq._row.estimate_s = 50e-6
    urgent = stage.wq.options(priority=1)
    units = [urgent.queue(abs, -n) for n in range(100)]
    assert sorted(sent_to(stage)) == [0, 1]
    assert workers[sent_to(stage).index(1)].step()
    stage.controller.running().lead.try_pump()
    assert 0 not in sent_to(stage)
    finish(stage, workers, units)


def test_what_a_thread_has_queued_when_it_begins_to_wait_is_sent_before_it_waits() -> None:
    stage, workers = streaming()
    units = [stage.wq.queue(abs, -n) for n in range(2)]
    assert workers[sent_to(stage).index(2)].begin()  # and it does not end
    units += [stage.wq.queue(abs, -n) for n in range(50)]
    with pytest.raises(TimeoutError):
        units[0].result(timeout=0.01)
    assert 0 not in sent_to(stage)
    finish(stage, workers, units)


def run_all(stage: Stage, workers: list[SteppedWorker]) -> None:
    """Have the workers run what they hold, and the controller take a turn."""
    for worker in workers:
        while worker.step():
            pass
    stage.turn(1)


def sent_to(stage: Stage) -> list[int]:
    """Return how many units each worker holds."""
    return [sum(len(batch.units) for batch in worker.batches) for worker in stage.controller.running().dispatcher.workers]


def test_little_work_of_a_thread_that_goes_on_queueing_goes_to_one_worker_and_wakes_no_other() -> None:
    stage, workers = streaming()
    units = [stage.wq.queue(abs, -n) for n in range(2)]
    assert sorted(sent_to(stage)) == [0, 2]
    units += [stage.wq.queue(abs, -n) for n in range(50)]
    assert sorted(sent_to(stage)) == [0, 2], "they wait until the thread reads"
    busy = workers[sent_to(stage).index(2)]
    while busy.step():
        pass
    stage.controller.running().lead.try_pump()
    assert sorted(sent_to(stage)) == [0, 50], "all of them together"
    units += [stage.wq.queue(abs, -n) for n in range(50)]
    stage.controller.running().lead.try_pump()
    assert sorted(sent_to(stage)) == [0, 100]
    assert busy.begin()  # one of them takes long
    assert stage.controller.running().lead.stream_ended() is False
    assert stage.controller.running().lead.stream_ended() is True, "and the thread reads no more"
    stage.turn()
    assert 0 not in sent_to(stage), "the other one takes what waits"
    finish(stage, workers, units)


def test_the_controller_looks_whether_a_thread_still_reads_where_nothing_else_is_ever_due(stage: Stage) -> None:
    """A thread that queues on a paused queue reads as well, and there may be no worker yet."""
    loop = stage.controller.running()
    stage.wq.pause()
    stage.wq.queue(abs, -1)
    stage.turn()
    loop._load_due = None  # that was done long ago
    loop.lead.try_pump()
    assert loop.lead.streaming
    assert rings(loop.bell_fd) > 0
    assert loop._wait() == [], "it has looked twice, and nobody has read meanwhile"
    assert not loop.lead.streaming
    assert not loop.by_number


def test_more_than_little_work_is_shared_out_while_a_thread_goes_on_queueing() -> None:
    stage, workers = streaming()
    units = [stage.wq.queue(abs, -n) for n in range(2000)]
    assert workers[sent_to(stage).index(2)].step()
    stage.controller.running().lead.try_pump()
    assert 0 not in sent_to(stage)
    finish(stage, workers, units)


def in_a_row() -> tuple[Stage, SteppedWorker]:
    """Have a thread that queues one unit, waits for it, queues the next one, and so on, and a worker that has ended each before."""
    never = 1e9  # however slow the machine is, the controller claims nothing, and the worker stays with the queue
    stage = Stage(recall_after_s=never, silent_after_s=never, long_after_s=never, linger_s=never)
    first = stage.wq.queue(abs, -1)
    worker = stage.ready()
    assert worker.step()
    stage.turn()
    assert first.result() == 1
    for n in range(ROW):
        assert_trip(stage, worker, n)
    return stage, worker


def assert_trip(stage: Stage, worker: SteppedWorker, n: int) -> None:
    unit = stage.wq.queue(abs, -n)
    assert worker.step()
    assert unit.result() == n


def rung_by(stage: Stage) -> int:
    """Return whom the worker would ring."""
    (worker,) = stage.controller.running().dispatcher.workers
    return int(worker.words[WAIT])


def test_the_worker_of_a_thread_that_queues_one_by_one_and_waits_for_each_rings_nobody() -> None:
    stage, worker = in_a_row()
    bell = stage.controller.running().bell_fd
    assert stage.controller.running().lead.unrung
    rings(bell)
    for n in range(100):
        assert_trip(stage, worker, n)
    assert rings(bell) == 0
    assert stage.wq.statistics().done == 1 + ROW + 100
    stage.controller.close()


def test_what_a_thread_queues_and_does_not_wait_for_is_read_by_the_controller_all_the_same() -> None:
    stage, worker = in_a_row()
    assert_trip(stage, worker, 7)
    unit = stage.wq.queue(abs, -1)
    assert rung_by(stage) == NOBODY
    lead = stage.controller.running().lead
    assert lead.stream_ended() is False, "a unit was waited for since it last looked"
    assert lead.stream_ended() is True, "and none since"
    assert rung_by(stage) == CONTROLLER
    assert not lead.unrung
    assert worker.step()
    stage.turn()
    assert unit.done()
    stage.controller.close()


def test_a_row_ends_where_units_are_sent_otherwise_and_what_is_under_way_is_rung_for() -> None:
    stage, worker = in_a_row()
    units = [stage.wq.queue(abs, -n) for n in range(2)]
    assert rung_by(stage) == CONTROLLER
    assert rings(stage.controller.running().bell_fd) > 0, "it may have ended before"
    assert not stage.controller.running().lead.unrung
    while not all(unit.done() for unit in units):
        run_all(stage, [worker])
    stage.controller.close()


def test_a_row_ends_where_somebody_waits_for_a_time_and_begins_again_later() -> None:
    stage, worker = in_a_row()
    unit = stage.wq.queue(abs, -1)
    with pytest.raises(TimeoutError):
        unit.result(timeout=0.01)
    assert not stage.controller.running().lead.unrung
    assert worker.step()
    assert unit.result() == 1
    for n in range(ROW):
        assert_trip(stage, worker, n)
    assert stage.controller.running().lead.unrung
    stage.controller.close()


def test_units_of_another_thread_ring_the_controller_while_one_has_a_row() -> None:
    stage, worker = in_a_row()
    units: list[workq.Unit[int]] = []
    other = threading.Thread(target=lambda: units.append(stage.wq.queue(abs, -1)))
    other.start()
    other.join()
    assert rung_by(stage) == CONTROLLER
    assert worker.step()
    assert units[0].result() == 1
    stage.controller.close()


def test_who_finds_that_another_thread_waits_alone_leaves_it_its_note(stage: Stage) -> None:
    """It once cleared it: then nobody could wake that thread, and both waited until it looked by itself, a second later."""
    stage.wq.queue(abs, -1)
    stage.ready()
    lead = stage.controller.running().lead
    (alone,) = stage.controller.running().dispatcher.workers
    holds, ends = threading.Event(), threading.Event()

    def wait_alone() -> None:
        with lead.lock:
            lead._lone = alone
            holds.set()
            ends.wait()

    other = threading.Thread(target=wait_alone)
    other.start()
    holds.wait()
    assert lead.wait_lone(lambda: False) is False
    assert lead._lone is alone
    lead._lone = None
    ends.set()
    other.join()


def test_a_row_is_not_ended_by_its_own_beginning() -> None:
    """The controller is rung where a row begins, and once woke the thread that waited alone for the next unit: that ended the row."""
    stage, worker = in_a_row()
    lead = stage.controller.running().lead
    unit = stage.wq.queue(abs, -1)
    (alone,) = stage.controller.running().dispatcher.workers
    lead._lone = alone
    kicks: list[int] = []
    other = threading.Thread(target=lambda: kicks.append(turn_while_led(stage)))
    with lead.lock:
        other.start()
        other.join()
    lead._lone = None
    assert kicks == [0]
    assert worker.step()
    assert unit.result() == 1
    assert lead.unrung
    stage.controller.close()


def turn_while_led(stage: Stage) -> int:
    """Have the controller take a turn while another thread has the lead, and return how many bytes a lone waiter was woken with."""
    stage.controller.running().turn([])
    (worker,) = stage.controller.running().dispatcher.workers
    try:
        return len(worker.lane.socket.recv(16, socket.MSG_DONTWAIT | socket.MSG_PEEK))
    except BlockingIOError:
        return 0


def test_another_thread_that_waits_alone_ends_a_row() -> None:
    stage, worker = in_a_row()
    unit = stage.wq.queue(abs, -1)
    assert worker.step()
    other = threading.Thread(target=unit.result)
    other.start()
    other.join()
    assert not stage.controller.running().lead.unrung
    stage.controller.close()


def test_who_is_told_of_a_units_end_has_the_controller_look_at_once() -> None:
    stage, worker = in_a_row()
    unit = stage.wq.queue(abs, -1)
    rings(stage.controller.running().bell_fd)
    unit.add_done_callback(lambda unit: None)
    assert rings(stage.controller.running().bell_fd) == 1
    assert worker.step()
    stage.turn()
    assert unit.done()
    stage.controller.close()


def test_units_that_return_truths_are_a_row_and_those_that_have_a_timeout_are_none() -> None:
    stage, worker = in_a_row()
    for _ in range(2 * ROW):
        unit = stage.wq.queue(bool, 1)
        assert worker.step()
        assert unit.result() is True
    lead = stage.controller.running().lead
    assert lead.unrung
    for n in range(2 * ROW):
        timed = stage.wq.options(timeout=60.0).queue(abs, -n)
        assert worker.step()
        assert timed.result() == n
        assert not lead.unrung
    stage.controller.close()


def test_long_units_are_no_row() -> None:
    stage, worker = in_a_row()
    stage.controller.running().lead.stream_ended()
    stage.controller.running().lead.stream_ended()
    for n in range(2 * ROW):
        stage.wq._row.estimate_s = 0.01
        assert_trip(stage, worker, n)
    assert not stage.controller.running().lead.unrung
    stage.controller.close()


@pytest.mark.parametrize("phase", ["starting", "idle", "sent", "running", "between"])
def test_a_worker_that_ends_loses_the_unit_that_it_ran_and_no_other(phase: str, stage: Stage) -> None:
    units = [] if phase == "idle" else [stage.wq.queue(abs, -n) for n in range(20)]
    first = stage.wq.queue(abs, -1)
    stage.turn()
    worker = stage.worker()
    if phase != "starting":
        stage.ready()
    if phase in ("idle", "between"):
        assert worker.step()
    while phase == "between" and worker.step():
        pass  # all that was sent has ended, and nobody has read it
    if phase == "running":
        assert worker.begin()
    worker.exit(-11)
    stage.turn()
    if phase == "idle":
        assert first.result() == 1
        first = stage.wq.queue(abs, -2)
    while 2 not in stage.engine.workers:
        stage.turn(1)
    second = stage.ready(2)
    while second.step():
        stage.turn(1)
    ends = [unit.state.value for unit in (*units, first)]
    assert ends.count("lost") == (phase == "running"), ends
    assert ends.count("done") == len(ends) - (phase == "running"), ends
    (halt,) = stage.controller.halts
    assert (halt.signal, halt.phase) == ("SIGSEGV", {"starting": "start", "running": "unit"}.get(phase, "idle"))


def test_a_unit_behind_a_long_one_is_taken_back_for_an_idle_worker() -> None:
    stage = Stage(2, recall_after_s=0.0)
    try:
        first = stage.wq.queue(abs, -1)
        worker = stage.ready()
        assert worker.step()
        stage.turn()
        units = [stage.wq.queue(abs, -n) for n in range(4)]
        assert worker.begin()  # and does not end
        stage.turn()
        other = stage.ready(2)
        stage.turn()
        while other.step():
            stage.turn()
        assert [unit.done() for unit in units] == [False, True, True, True]
        worker.end()
        assert not worker.begin()
        stage.turn()
        assert [unit.result() for unit in (first, *units)] == [1, 0, 1, 2, 3]
    finally:
        stage.controller.close()


def test_whoever_reads_is_left_alone_while_no_other_worker_could_run_what_waits_behind_a_unit() -> None:
    stage = Stage(1, long_after_s=1e9, silent_after_s=1e9)
    try:
        first = stage.wq.queue(abs, -1)
        worker = stage.ready()
        assert worker.step()
        stage.turn()
        units = [stage.wq.queue(abs, -n) for n in range(4)]
        assert worker.begin()
        loop = stage.controller.running()
        assert loop.dispatcher.watched
        leads, over, interrupted = threading.Event(), threading.Event(), []

        def lead() -> None:
            with loop.lead.lock:
                leads.set()
                interrupted.append(not over.wait(2.0))

        reader = threading.Thread(target=lead)
        reader.start()
        assert leads.wait(10.0)
        loop.turn([])
        over.set()
        reader.join()
        assert interrupted == [False]
        worker.end()
        stage.turn()
        while worker.step():
            stage.turn(1)
        assert [unit.result() for unit in (first, *units)] == [1, 0, 1, 2, 3]
    finally:
        stage.controller.close()


def test_a_cancelled_unit_that_waits_behind_another_never_begins(stage: Stage) -> None:
    units = [stage.wq.queue(abs, -n) for n in range(3)]
    worker = stage.ready()
    assert worker.begin()
    units[1].cancel()
    stage.turn()
    assert units[1].cancelled()
    worker.end()
    for _ in range(5):
        stage.turn()
        worker.step()
    assert [unit.state.value for unit in units] == ["done", "cancelled", "done"]
    assert worker.interrupts == []


def test_a_running_unit_is_interrupted_by_its_number_and_then_killed() -> None:
    stage = Stage(grace_s=0.0)
    try:
        stage.wq.delete_timeout = 0.0
        unit, behind = stage.wq.queue(abs, -1), stage.wq.queue(abs, -2)
        worker = stage.ready()
        assert worker.begin()
        number = worker.running
        unit.cancel()
        stage.turn(1)
        assert (unit.state.value, unit.cancelled()) == ("stopping", False)
        stage.turn(4)
        assert set(worker.interrupts) == {number}
        assert worker.killed
        assert unit.cancelled()
        second = stage.ready(2)
        assert second.step()
        stage.turn()
        assert behind.result() == 2
        assert stage.controller.halts == []  # it was killed, and did not halt
    finally:
        stage.controller.close()


class EndsThen(list[int]):
    """The interrupts of a worker whose unit ends as the first one comes: between the turn's look at results and what it orders."""

    def __init__(self, worker: SteppedWorker) -> None:
        self.worker = worker

    def append(self, number: int) -> None:
        super().append(number)
        self.worker.end()


def test_a_unit_that_ends_as_its_worker_is_about_to_be_killed_leaves_the_worker_in_service() -> None:
    """The core orders the kill as it hears that the worker is dry; by then nobody is to be killed, and nobody waits for an exit."""
    stage = Stage(grace_s=0.0)
    try:
        stage.wq.delete_timeout = 0.0
        unit = stage.wq.queue(abs, -1)
        worker = stage.ready()
        assert worker.begin()
        worker.interrupts = EndsThen(worker)
        unit.cancel()
        stage.turn(5)
        assert len(worker.interrupts) == 1
        assert unit.result() == 1
        assert not worker.killed
        after = stage.wq.queue(abs, -2)
        stage.turn()
        assert worker.step()
        stage.turn()
        assert after.result() == 2
        assert [(row.pid, row.state) for row in stage.controller.workers()] == [(worker.lane.pid, "waiting for units")]
    finally:
        stage.controller.close()


def test_a_unit_that_ends_before_the_interrupt_keeps_its_result() -> None:
    stage = Stage(grace_s=3600.0)
    try:
        unit = stage.wq.queue(abs, -1)
        worker = stage.ready()
        assert worker.begin()
        unit.cancel()
        stage.turn()
        worker.end()
        stage.turn()
        assert unit.result() == 1
        assert worker.interrupts == []
    finally:
        stage.controller.close()


def test_a_paused_queue_gives_out_no_unit_until_it_goes_on(stage: Stage) -> None:
    first = stage.wq.queue(abs, -1)
    worker = stage.ready()
    assert worker.step()
    stage.turn()
    stage.controller.pause_queue(stage.wq._row, True)
    unit = stage.wq.queue(abs, -2)
    stage.turn()
    assert not worker.step()
    stage.controller.pause_queue(stage.wq._row, False)
    stage.turn()
    assert worker.step()
    stage.turn()
    assert (first.result(), unit.result()) == (1, 2)


def test_closing_ends_every_unit(stage: Stage) -> None:
    units = [stage.wq.queue(abs, -n) for n in range(10)]
    worker = stage.ready()
    assert worker.begin()
    stage.controller.close()
    assert [unit.state.value for unit in units] == ["cancelled"] * 10
