"""Workers that exit, are killed or stopped: idle, busy, in the middle of a large value. One unit is lost, and all is told."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

import workq
from tests.support import DEADLINE_S, Application, start_application, wait_gone, wait_readable, wait_until
from tests.system import hooks
from workq.config import Settings

WAIT_S = DEADLINE_S
LARGE = 200 << 20
SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT]
CRASHES = {"SIGSEGV", "SIGABRT"}
NAMES = [number.name for number in SIGNALS]


class Stage:
    """A controller, its queue of one worker, the halts it reports, and a FIFO on which units say something."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.controller = workq.Controller(settings=settings)
        self.halts: queue.Queue[workq.Halt] = queue.Queue()
        self.controller.on_halt(self.halts.put)
        self.wq = workq.WorkMgr(1, controller=self.controller, delete_timeout=0.05)
        self.folder = folder
        self.fifo = self.make_fifo("fifo")
        self.reader = os.open(self.fifo, os.O_RDWR | os.O_NONBLOCK)

    def make_fifo(self, name: str) -> str:
        path = str(self.folder / name)
        os.mkfifo(path)
        return path

    def said(self) -> str:
        """Wait until a unit has said something, and return it."""
        wait_readable(self.reader, WAIT_S)
        return os.read(self.reader, 4096).decode()

    def pid(self) -> int:
        """Return the worker's number."""
        return self.wq.queue(hooks.pid).result(WAIT_S)

    def halt(self, stalled: bool = False, pid: int | None = None) -> workq.Halt:
        """Return the next halt that is reported, of this worker; on a busy machine any may seem to have stalled meanwhile."""
        while True:
            halt = self.halts.get(timeout=WAIT_S)
            if halt.stalled == stalled and pid in (None, halt.pid):
                return halt

    def goes_on(self) -> None:
        """The next unit runs, and nothing more was reported."""
        assert self.wq.queue(abs, -1).result(WAIT_S) == 1
        with pytest.raises(queue.Empty):
            while self.halts.get_nowait().stalled:
                pass
            raise AssertionError("another worker has halted")

    def close(self) -> None:
        self.wq.close()
        self.controller.close()
        os.close(self.reader)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path, Settings())
    yield stage
    stage.close()


@pytest.fixture
def quick_stage(tmp_path: Path) -> Iterator[Stage]:
    """One that takes a worker for stalled after a short silence."""
    stage = Stage(tmp_path, Settings(heartbeat_s=0.05, stalled_after_s=0.3))
    yield stage
    stage.close()


@pytest.fixture
def patient_stage(tmp_path: Path) -> Iterator[Stage]:
    """One that leaves what it has sent with a worker which does not begin it."""
    stage = Stage(tmp_path, Settings(silent_after_s=2 * WAIT_S))
    yield stage
    stage.close()


@contextlib.contextmanager
def others_go_on(stage: Stage) -> Iterator[None]:
    """Units of another queue of the same controller have their results meanwhile."""
    with workq.WorkMgr(1, controller=stage.controller) as other:
        assert [other.queue(abs, -number).result(WAIT_S) for number in range(10)] == list(range(10))
        yield
        assert [other.queue(abs, -number).result(WAIT_S) for number in range(10)] == list(range(10))


def is_stopped(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: is_stopped(pid), what="stopped")


def kill_stopped(pid: int, number: signal.Signals) -> None:
    """Send a signal to a stopped process; all but SIGKILL strike when it goes on."""
    os.kill(pid, number)
    if number != signal.SIGKILL:
        os.kill(pid, signal.SIGCONT)


# ---------------------------------------------------------------- units that leave


@pytest.mark.parametrize(
    ("function", "args"), [(hooks.misbehave, ("exit",)), (hooks.throw, (SystemExit, 0)), (hooks.throw, (KeyboardInterrupt,))]
)
def test_a_unit_that_exits_by_exception_fails_and_its_worker_goes_on(stage: Stage, function, args) -> None:  # type: ignore[no-untyped-def]
    pid = stage.pid()
    unit = stage.wq.queue(function, *args)
    assert isinstance(unit.exception(WAIT_S), workq.RemoteError)
    assert stage.pid() == pid
    stage.goes_on()


@pytest.mark.parametrize("code", [0, 1, 255])
def test_a_unit_that_exits_at_once_is_lost_whatever_its_code(stage: Stage, code: int) -> None:
    unit = stage.wq.queue(os._exit, code)
    with pytest.raises(workq.WorkerHalted, match=f"exited with code {code} in unit {unit.label}") as caught:
        unit.result(WAIT_S)
    assert (caught.value.exit_code, caught.value.signal) == (code, None)
    assert stage.halt() == caught.value.halt
    stage.goes_on()


# ---------------------------------------------------------------- killed


@pytest.mark.parametrize("number", SIGNALS, ids=NAMES)
def test_an_idle_worker_that_is_killed_is_reported_and_replaced(stage: Stage, number: signal.Signals) -> None:
    pid = stage.pid()
    wait_until(lambda: [row.state for row in stage.controller.workers()] != ["active"], what="idle")
    os.kill(pid, number)
    halt = stage.halt()
    assert (halt.pid, halt.signal, halt.exit_code, halt.phase, halt.unit) == (pid, number.name, None, "idle", None)
    assert bool(halt.stack) == (number.name in CRASHES)
    assert stage.pid() != pid
    stage.goes_on()


@pytest.mark.parametrize("number", SIGNALS, ids=NAMES)
def test_a_busy_worker_that_is_killed_loses_its_unit_and_says_all(
    stage: Stage, number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "workq")
    unit = stage.wq.queue(hooks.nap_as_pid, stage.fifo)
    behind = [stage.wq.queue(abs, -number) for number in range(50)]
    pid = int(stage.said())
    with others_go_on(stage):
        os.kill(pid, number)
        with pytest.raises(workq.WorkerHalted) as caught:
            unit.result(WAIT_S)
    halt = caught.value.halt
    assert (halt.pid, halt.signal, halt.exit_code, halt.phase, halt.unit) == (pid, number.name, None, "unit", unit.label)
    assert halt.run_time_s > 0
    assert ("nap_as_pid" in halt.stack) == (number.name in CRASHES)
    assert stage.halt() == halt
    for text in (halt.worker, str(pid), number.name, unit.label, "retries"):
        assert text in str(caught.value)
    assert number.name in caplog.text
    assert [other.result(WAIT_S) for other in behind] == list(range(50))
    assert stage.controller.metrics().workers_halted == 1
    stage.goes_on()


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS, ids=NAMES)
def test_a_worker_killed_while_it_reads_a_large_argument_loses_nothing(patient_stage: Stage, number: signal.Signals) -> None:
    """The unit had not begun: another worker runs it, once."""
    stage = patient_stage
    starts = str(stage.folder / "starts")
    unit, pid = stopped_while_reading(stage, starts)
    kill_stopped(pid, number)
    assert unit.result(WAIT_S) == LARGE
    assert Path(starts).read_text() == "0\n"
    assert stage.halt().signal == number.name
    stage.goes_on()


def stopped_while_reading(stage: Stage, starts: str) -> tuple[workq.Unit[int], int]:
    """Queue a unit with a large argument for a stopped worker: of its frame there is as much on the way as its socket takes.

    The stage must be patient: a worker that does not begin what it was sent has it taken back after 0.1 s, maybe before we look.
    """
    pid = stage.pid()
    stop(pid)
    unit = stage.wq.queue(hooks.size_of, hooks.large(LARGE), starts)
    wait_until(lambda: unit.state.value == "sent", what="sent")
    return unit, pid


WRITER = """
    import sys, workq
    from tests.system import hooks

    if __name__ == "__main__":
        said, until, size, timeout, child = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]) or None, bool(sys.argv[5])
        wq, other = workq.WorkMgr(1, delete_timeout=0.05), workq.WorkMgr(1)
        print(wq.queue(hooks.leave_child).result() if child else 0, wq.queue(hooks.pid).result(), other.queue(abs, -1).result())
        units = [wq.queue(abs, -value) for value in range(50)]
        unit = wq.options(timeout=timeout).queue(hooks.large, size, said, until)
        units += [wq.queue(abs, -value) for value in range(50, 100)]
        print([other.queue(abs, -value).result(60) for value in range(10)] == list(range(10)))
        try:
            print(len(unit.result(60)) == size)
        except Exception as error:
            print(type(error).__name__)
        print([unit.result(60) for unit in units] == list(range(100)))
        workq.Controller.default().close()
"""


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process has had: twice that of a value once it has been pickled."""
    return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) * 1024


@dataclass
class Writer:
    """An application whose worker has been caught in the middle of a large result, and that runs on."""

    app: Application
    pid: int  # of the worker
    child: int  # of the worker, 0 for none


@contextlib.contextmanager
def writer(folder: Path, timeout: float = 0, child: bool = False) -> Iterator[Writer]:
    """Stop the application before its worker writes a large result: the worker fills the socket and waits. Then stop the worker too."""
    said, until = str(folder / "said"), str(folder / "until")
    os.mkfifo(said)
    os.mkfifo(until)
    reader, go_on = os.open(said, os.O_RDWR), os.open(until, os.O_RDWR)
    with start_application(WRITER, said, until, str(LARGE), str(timeout), "child" * child) as app:
        try:
            child_pid = int(app.line().split()[0])
            wait_readable(reader)
            pid = int(os.read(reader, 100))  # of the worker that runs this unit: the queues share their workers
            stop(app.pid)
            os.write(go_on, b"x")
            wait_until(lambda: peak_bytes(pid) > 1.95 * LARGE and psutil.Process(pid).status() == psutil.STATUS_SLEEPING, 60, "writing")
            stop(pid)
            os.kill(app.pid, signal.SIGCONT)
            yield Writer(app, pid, child_pid)
        finally:
            os.close(reader)
            os.close(go_on)


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS, ids=NAMES)
def test_a_worker_killed_while_it_writes_a_large_result_loses_that_unit(tmp_path: Path, number: signal.Signals) -> None:
    with writer(tmp_path) as caught:
        assert caught.app.line() == "True"  # units of another queue, while the worker is stopped
        kill_stopped(caught.pid, number)
        assert caught.app.finish().stdout.split() == ["WorkerHalted", "True"]


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS, ids=NAMES)
def test_a_worker_killed_at_a_large_value_in_shared_memory_loses_at_most_that_unit(stage: Stage, number: signal.Signals) -> None:
    """A worker that has had a large value before maps the next ones. It is killed as it makes its second result of one argument."""
    argument = hooks.large(LARGE // 10)
    assert stage.wq.queue(hooks.announce_and_give, argument, stage.fifo).result(WAIT_S) == argument
    assert stage.said()
    pid = stage.pid()
    unit = stage.wq.queue(hooks.announce_and_give, argument, stage.fifo)
    behind = [stage.wq.queue(abs, -value) for value in range(50)]
    assert stage.said()
    os.kill(pid, number)
    error = unit.exception(WAIT_S)
    assert isinstance(error, workq.WorkerHalted) or unit.result() == argument
    assert [other.result(WAIT_S) for other in behind] == list(range(50))
    assert stage.halt().pid == pid
    stage.goes_on()


@pytest.mark.slow
def test_values_of_200_mb_cross_both_ways_at_once() -> None:
    with workq.WorkMgr(2) as wq:
        argument = hooks.large(LARGE)
        units = [wq.queue(hooks.give, argument) for _ in range(2)]
        assert [len(unit.result(WAIT_S)) for unit in units] == [LARGE] * 2


# ---------------------------------------------------------------- last words


@pytest.mark.parametrize("lines", [3, 100_000])
def test_the_last_lines_of_stderr_survive_a_kill(stage: Stage, lines: int) -> None:
    """Also those that were written long before, and those of a unit that writes far more than a pipe holds."""
    unit = stage.wq.queue(hooks.write_lines_and_nap, stage.fifo, lines)
    assert stage.said()
    pulse = [row.pid for row in stage.controller.workers()]
    with workq.WorkMgr(1, controller=stage.controller) as other:  # the control thread has its time to look at the pipe
        for _ in range(3):
            with contextlib.suppress(workq.UnitTimeout):
                other.options(timeout=0.1).queue(hooks.nap).result(WAIT_S)
    os.kill(pulse[0], signal.SIGKILL)
    error = unit.exception(WAIT_S)
    assert isinstance(error, workq.WorkerHalted)
    assert error.halt.stderr.splitlines() == [f"line {line}" for line in range(lines)][-20:]
    assert f"line {lines - 1}" in str(error)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT], ids=["SIGSEGV", "SIGABRT"])
def test_a_crash_shows_the_python_stack_and_the_lines_before_it(stage: Stage, number: signal.Signals) -> None:
    unit = stage.wq.queue(hooks.write_lines_and_nap, stage.fifo, 2)
    assert stage.said()
    os.kill(stage.controller.workers()[0].pid, number)
    error = unit.exception(WAIT_S)
    assert isinstance(error, workq.WorkerHalted)
    assert "write_lines_and_nap" in error.halt.stack
    assert error.halt.stderr.splitlines() == ["line 0", "line 1"]


# ---------------------------------------------------------------- stopped


def test_a_stopped_busy_worker_is_reported_as_stalled_and_goes_on_when_continued(quick_stage: Stage) -> None:
    stage = quick_stage
    until = stage.make_fifo("until")
    unit = stage.wq.queue(hooks.announce_then, stage.fifo, until, "value")
    assert stage.said()
    pid = stage.controller.workers()[0].pid
    stop(pid)
    halt = stage.halt(stalled=True)
    assert (halt.pid, halt.stalled, halt.unit, halt.signal) == (pid, True, unit.label, None)
    assert "stopped beating" in str(halt)
    with others_go_on(stage):
        assert is_stopped(pid)  # nobody has killed it
    os.kill(pid, signal.SIGCONT)
    writer = os.open(until, os.O_WRONLY)
    os.write(writer, b"x")
    os.close(writer)
    assert unit.result(WAIT_S) == "value"
    assert stage.pid() == pid
    stage.goes_on()


def test_a_stopped_worker_is_killed_by_its_units_timeout(quick_stage: Stage) -> None:
    stage = quick_stage
    stage.pid()  # the module is there: what is left to do within the time-out is to say a word
    unit = stage.wq.options(timeout=1).queue(hooks.nap_as_pid, stage.fifo)
    pid = int(stage.said())
    stop(pid)
    with others_go_on(stage):
        with pytest.raises(workq.UnitTimeout, match=rf"{unit.label} .*pid {pid}"):
            unit.result(WAIT_S)
    wait_gone(pid)
    assert stage.pid() != pid


def test_a_stopped_idle_worker_is_reported_and_its_units_run_elsewhere(quick_stage: Stage) -> None:
    stage = quick_stage
    wq = workq.WorkMgr(2, controller=stage.controller)
    pid = wq.queue(hooks.pid).result(WAIT_S)
    stop(pid)
    try:
        assert [unit.result(WAIT_S) for unit in [wq.queue(abs, -number) for number in range(50)]] == list(range(50))
        assert wq.sync(WAIT_S).done == 51
        halt = stage.halt(stalled=True, pid=pid)
        assert (halt.stalled, halt.phase) == (True, "idle")
        assert is_stopped(pid)
        (stalled_s,) = [row.stalled_s for row in wq.workers() if row.pid == pid]
        assert stalled_s is not None
        assert stalled_s >= 0.3
        assert any(f"{pid} " in line and ", stalled for " in line for line in repr(wq.workers()).splitlines())
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: [row["stalled_s"] for row in wq.workers().as_dicts() if row["pid"] == pid] == [None], what="it beats again")
    wait_until(lambda: pid in [wq.queue(hooks.pid).result(WAIT_S) for _ in range(4)], what="it works again")
    wq.close()


def test_a_queue_whose_only_worker_is_stopped_can_be_closed(quick_stage: Stage) -> None:
    stage = quick_stage
    wq = workq.WorkMgr(1, controller=stage.controller, delete_timeout=0.05)
    pid = wq.queue(hooks.pid).result(WAIT_S)
    stop(pid)
    units = [wq.queue(abs, -number) for number in range(50)]
    wq.close()
    assert all(unit.cancelled() for unit in units)


@pytest.mark.slow
def test_a_worker_stopped_while_it_writes_a_large_result_is_killed_by_the_timeout(tmp_path: Path) -> None:
    with writer(tmp_path, timeout=4) as caught:  # it has to begin before, and to be stopped
        assert caught.app.finish().stdout.split() == ["True", "UnitTimeout", "True"]
        wait_gone(caught.pid)


@pytest.mark.slow
def test_a_worker_stopped_while_it_writes_a_large_result_goes_on_when_continued(tmp_path: Path) -> None:
    with writer(tmp_path) as caught:
        assert caught.app.line() == "True"
        os.kill(caught.pid, signal.SIGCONT)
        assert caught.app.finish().stdout.split() == ["True", "True"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cancel", "continue"])
def test_a_worker_stopped_while_it_reads_a_large_argument_holds_up_nobody_else(patient_stage: Stage, how: str) -> None:
    stage = patient_stage
    unit, pid = stopped_while_reading(stage, str(stage.folder / "starts"))
    with others_go_on(stage):
        if how == "cancel":
            assert unit.cancel()
            with pytest.raises(workq.UnitCancelled):
                unit.result(WAIT_S)
    os.kill(pid, signal.SIGCONT)
    if how == "continue":
        assert unit.result(WAIT_S) == LARGE
    stage.goes_on()


# ---------------------------------------------------------------- a grandchild holds the descriptors


def test_an_idle_worker_whose_grandchild_holds_its_descriptors_is_seen_to_die(stage: Stage) -> None:
    child = stage.wq.queue(hooks.leave_child).result(WAIT_S)
    try:
        pid = stage.pid()
        os.kill(pid, signal.SIGKILL)
        assert stage.halt().pid == pid
        assert stage.pid() != pid
        stage.goes_on()
    finally:
        end(child)


def test_a_busy_worker_whose_grandchild_holds_its_descriptors_is_seen_to_die(stage: Stage) -> None:
    unit = stage.wq.queue(hooks.leave_child_and_nap, stage.fifo)
    child = int(stage.said())
    try:
        os.kill(stage.controller.workers()[0].pid, signal.SIGKILL)
        assert isinstance(unit.exception(WAIT_S), workq.WorkerHalted)
        assert stage.halt().unit == unit.label
        stage.goes_on()
    finally:
        end(child)


@pytest.mark.slow
def test_a_worker_that_dies_in_mid_result_while_a_grandchild_holds_its_descriptors_loses_that_unit(tmp_path: Path) -> None:
    with writer(tmp_path, child=True) as caught:
        try:
            os.kill(caught.pid, signal.SIGKILL)
            assert caught.app.finish().stdout.split() == ["True", "WorkerHalted", "True"]
        finally:
            end(caught.child)


def end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    wait_gone(pid)


# ---------------------------------------------------------------- under many kills


@pytest.mark.slow
@pytest.mark.parametrize("retries", [0, 5])
def test_every_kill_loses_at_most_one_unit_and_none_is_begun_twice(tmp_path: Path, retries: int) -> None:
    """Four threads queue, workers are killed at random, all units end; their starts are counted in a file."""
    random_numbers = random.Random(2)
    starts = str(tmp_path / "starts")
    kills = 150
    ended = threading.Event()
    all_units: list[list[workq.Unit[int]]] = [[] for _ in range(4)]
    with workq.Controller() as controller, workq.WorkMgr(2, controller=controller) as wq:
        view = wq.options(retries=retries)

        def queue_units(mine: list[workq.Unit[int]], first: int) -> None:
            number = first
            while not ended.is_set():
                batch = [view.queue(hooks.note_start_and_work, starts, number + 4 * step, 2000) for step in range(50)]
                number += 200
                mine.extend(batch)
                batch[-1].exception(WAIT_S)

        threads = [threading.Thread(target=queue_units, args=(mine, first)) for first, mine in enumerate(all_units)]
        [thread.start() for thread in threads]
        for _ in range(kills):
            done = wq.statistics().done + random_numbers.randrange(40)
            wait_until(lambda done=done: wq.statistics().done >= done or not any(row.pid for row in wq.workers()))
            pids = [row.pid for row in wq.workers() if row.pid]
            if pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(random_numbers.choice(pids), signal.SIGKILL)
        ended.set()
        [thread.join(60) for thread in threads]
        units = {4 * index + first: unit for first, mine in enumerate(all_units) for index, unit in enumerate(mine)}
        errors = {number: unit.exception(WAIT_S) for number, unit in units.items()}
    lost = {number for number, error in errors.items() if error is not None}
    assert all(isinstance(errors[number], workq.WorkerHalted) for number in lost)
    assert all(unit.result() == number for number, unit in units.items() if number not in lost)
    counts = Counter(map(int, Path(starts).read_text().split()))
    assert set(units) - lost <= set(counts)
    if retries:
        assert lost == set()
        assert sum(counts.values()) - len(counts) <= kills
        assert all(counts[number] <= unit.attempt for number, unit in units.items())
    else:
        assert len(lost) <= kills
        assert max(counts.values()) == 1
