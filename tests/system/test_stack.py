"""worker.stack(): where a worker is, also one that is stuck; bounded, and never to the harm of the unit that runs."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest

import workq
from tests.support import DEADLINE_S, tries, wait_gone, wait_until
from tests.system.held import Held, deaf, hold, spin
from workq.config import DEFAULTS
from workq.process.stack import readable
from workq.transport.board import STACK_SIGNAL

pytestmark = pytest.mark.slow


@pytest.fixture
def wq() -> Iterator[workq.WorkMgr]:
    with workq.WorkMgr(1) as wq:
        yield wq


def keep_the_lock(fifo: str) -> None:
    """Stay in C code that keeps the interpreter's lock."""
    with open(fifo, "rb") as file:
        ctypes.PyDLL(None).read(file.fileno(), ctypes.create_string_buffer(1), 1)


def with_a_thread(fifo: str) -> None:
    with open(fifo, "rb") as file:  # once: who opens it after it was let go would wait for ever
        thread = threading.Thread(target=hold_in_a_thread, args=(file,))
        thread.start()
        thread.join()


def hold_in_a_thread(file: BinaryIO) -> None:
    file.read()


def hold_with(lock: workq.Lock, fifo: str) -> None:
    with lock:
        hold(fifo)


def ask_for(lock: workq.Lock) -> None:
    with lock:
        pass


def block_signals(fifo: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {STACK_SIGNAL})
    hold(fifo)


def take_the_handler(fifo: str) -> None:
    signal.signal(STACK_SIGNAL, signal.SIG_DFL)
    hold(fifo)


def keep_the_lock_and_the_handler(fifo: str) -> None:
    signal.signal(STACK_SIGNAL, signal.SIG_DFL)
    keep_the_lock(fifo)


def take_the_pipe(fifo: str) -> None:
    """Have a pipe of one's own where the worker is asked."""
    reading, writing = os.pipe()
    for fd in range(100, 400):
        try:
            if os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:") and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR:
                os.dup2(reading, fd)
                break
        except OSError:
            pass
    else:
        raise AssertionError("there is no such pipe")
    os.write(writing, b"mine")
    hold(fifo)
    assert os.read(reading, 100) == b"mine"


def close_everything(fifo: str) -> None:
    with open(fifo, "rb") as file:
        os.closerange(3, file.fileno())
        os.closerange(file.fileno() + 1, 5000)
        file.read()


@pytest.mark.parametrize("function", [hold, spin], ids=lambda function: function.__name__)
def test_the_stack_of_a_running_worker_shows_its_unit_and_nothing_of_ours(wq: workq.WorkMgr, tmp_path: Path, function: object) -> None:
    with Held(wq, tmp_path, function) as held:  # type: ignore[arg-type]
        (row,) = wq.workers()
        assert held.unit.worker is not None
        for stack in (row.stack(DEADLINE_S), held.unit.worker.stack(DEADLINE_S)):
            lines = stack.splitlines()
            assert lines[0] == "main thread (most recent call first):"
            assert f"in {function.__name__}" in lines[-1]  # type: ignore[attr-defined]
            assert "workq/worker" not in stack
    held.unit.result(DEADLINE_S)
    assert held.unit.output == "", "what it writes about itself is no output of the unit"
    assert held.unit.notes == []


def test_all_threads_are_shown_the_main_one_first(wq: workq.WorkMgr, tmp_path: Path) -> None:
    with Held(wq, tmp_path, with_a_thread):
        wait_until(lambda: "in hold_in_a_thread" in wq.workers()[0].stack())
        stack = wq.workers()[0].stack(DEADLINE_S)
        assert stack.startswith("main thread")
        assert stack.count("most recent call first") == 2


def test_a_worker_whose_c_code_keeps_the_interpreters_lock_answers(wq: workq.WorkMgr, tmp_path: Path) -> None:
    with Held(wq, tmp_path, keep_the_lock) as held:
        wait_until(lambda: "in keep_the_lock" in wq.workers()[0].stack())
    held.unit.result(DEADLINE_S)


def test_a_unit_that_is_a_function_of_c_is_not_taken_for_an_idle_worker(wq: workq.WorkMgr) -> None:
    unit = wq.queue(time.sleep, 60)
    wait_until(unit.running)
    wait_until(lambda: wq.workers()[0].stack() == "main thread: in a function that is not written in Python")
    unit.cancel()


def test_of_a_unit_that_waits_in_workq_its_own_frames_come_first(tmp_path: Path) -> None:
    lock = workq.Lock("printer")
    with workq.WorkMgr(2) as wq, Held(wq.options(name="holder"), tmp_path, partial(hold_with, lock)):  # type: ignore[arg-type]
        unit = wq.queue(ask_for, lock)
        wait_until(lambda: [row for row in wq.workers() if row.waits_for])
        worker = unit.worker
        assert worker is not None
        expected = "main thread, in workq/locking.py __enter__ (most recent call first):"
        wait_until(lambda: worker.stack(DEADLINE_S).startswith(expected), what="it has asked and waits")  # what asks is shown sooner
        head, first, *others = worker.stack(DEADLINE_S).splitlines()
    assert head == expected
    assert first.endswith(" in ask_for")
    assert others == []


def test_a_unit_that_just_says_something_to_the_application_is_not_taken_for_an_idle_worker() -> None:
    here = os.path.dirname(workq.__file__)
    calls = [
        "transport/channel.py:send",
        "worker/main.py:say",
        "locking.py:__enter__",
        "/app.py:ask",
        "worker/main.py:_run",
        "worker/main.py:run",
    ]
    page = "".join(f'  File "{os.path.join(here, file)}", line 1 in {name}\n' for file, _, name in (call.partition(":") for call in calls))
    assert readable(f"Current thread 0x1 (most recent call first):\n{page}") == (
        'main thread, in workq/locking.py __enter__ (most recent call first):\n  File "/app.py", line 1 in ask'
    )


def test_an_idle_worker_says_so(wq: workq.WorkMgr) -> None:
    wq.queue(abs, 1).result(DEADLINE_S)
    wait_until(lambda: wq.workers()[0].stack() == "main thread: waits for units")  # the result is here before the worker has gone to wait


def test_a_stopped_worker_is_named_as_stopped_at_once(wq: workq.WorkMgr, tmp_path: Path) -> None:
    with Held(wq, tmp_path):
        (row,) = wq.workers()
        os.kill(row.pid, signal.SIGSTOP)
        wait_until(lambda: "is stopped" in row.stack())
        begun = time.monotonic()
        assert row.stack(timeout=60).splitlines()[0] == "it is stopped, by a signal or a debugger"
        assert "the kernel says: T" in row.stack()
        assert time.monotonic() - begun < 30
        os.kill(row.pid, signal.SIGCONT)


def test_a_worker_that_has_ended_says_so(wq: workq.WorkMgr) -> None:
    unit = wq.queue(abs, 1)
    unit.result(DEADLINE_S)
    (row,) = wq.workers()
    os.kill(row.pid, signal.SIGKILL)
    wait_gone(row.pid)
    wait_until(lambda: "has ended" in row.stack())
    assert unit.worker is not None
    wait_until(lambda: "has ended" in unit.worker.stack())


WAITS = {
    "usleep": lambda c, millis: c.usleep(1000 * millis),
    "poll": lambda c, millis: c.poll(None, 0, millis),
    "select": lambda c, millis: c.select(0, None, None, None, (ctypes.c_long * 2)(millis // 1000, millis % 1000 * 1000)),
}


def wait_in_c(call: str, keeps_the_lock: bool, millis: int) -> tuple[int, int]:
    """Be in a system call of C code that fails when a signal comes: return what it returned, and its errno."""
    loaded = (ctypes.PyDLL if keeps_the_lock else ctypes.CDLL)(None, use_errno=True)
    return WAITS[call](loaded, millis), ctypes.get_errno()


@pytest.mark.parametrize(
    ("call", "keeps_the_lock"), [("usleep", False), ("poll", False), ("select", False), ("usleep", True), ("poll", True)]
)
def test_a_system_call_of_c_code_goes_on_while_its_worker_is_looked_at(wq: workq.WorkMgr, call: str, keeps_the_lock: bool) -> None:
    for millis in (300, 3000, 30_000):  # a busy machine may not look so soon
        unit = wq.queue(wait_in_c, call, keeps_the_lock, millis)
        seen = [""]
        wait_until(lambda unit=unit: unit.running() or unit.done())
        wait_until(lambda unit=unit, seen=seen: unit.done() or seen.append(wq.workers()[0].stack()) or "in wait_in_c" in seen[-1])
        assert unit.result(DEADLINE_S) == (0, 0)
        if "in wait_in_c" in seen[-1]:
            break
    assert "in wait_in_c" in seen[-1]


def test_a_unit_that_waits_for_any_signal_does_not_end_because_somebody_looks(wq: workq.WorkMgr) -> None:
    unit = wq.queue(pause_in_c)
    wait_until(unit.running)
    for _ in range(5):
        wait_until(lambda: "in pause_in_c" in wq.workers()[0].stack())
    assert unit.running()
    unit.cancel()


def pause_in_c() -> None:
    ctypes.CDLL(None).pause()


@pytest.mark.parametrize("function", [block_signals, take_the_handler, take_the_pipe], ids=["blocked", "handler", "pipe"])
def test_a_unit_that_blocks_the_signal_or_takes_its_handler_or_its_pipe_is_seen_all_the_same(
    wq: workq.WorkMgr, tmp_path: Path, function: object
) -> None:
    with Held(wq, tmp_path, function) as held:  # type: ignore[arg-type]
        for _ in range(3):
            wait_until(lambda: "in hold" in wq.workers()[0].stack())
    held.unit.result(DEADLINE_S)
    wait_until(lambda: "waits for units" in wq.workers()[0].stack())


@pytest.mark.parametrize(
    ("function", "why"),
    [(keep_the_lock_and_the_handler, "its unit has taken away the handler"), (close_everything, "it cannot be looked into")],
    ids=["taken", "closed"],
)
def test_where_no_answer_can_come_it_says_why_in_bounded_time_and_harms_nobody(
    wq: workq.WorkMgr, tmp_path: Path, function: object, why: str
) -> None:
    with Held(wq, tmp_path, function) as held:  # type: ignore[arg-type]
        said = [""]  # the last one counts: before the unit is where it wants to be its worker may have answered
        wait_until(lambda: said.append(wq.workers()[0].stack(timeout=0.05)) or why in said[-1])
        assert "the kernel says: " in said[-1]
    held.unit.result(DEADLINE_S)
    wq.queue(abs, 1).result(DEADLINE_S)
    wait_until(lambda: "waits for units" in wq.workers()[0].stack(), what="it answers again after that unit")


def test_many_who_ask_at_once_get_whole_answers(wq: workq.WorkMgr, tmp_path: Path) -> None:
    found: list[str] = []
    with Held(wq, tmp_path, spin) as held:
        (row,) = wq.workers()
        threads = [threading.Thread(target=lambda: found.extend(row.stack(20) for _ in range(10))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert held.unit.exception(DEADLINE_S) is None, "the signal has changed nothing in the unit, not even errno"
    assert len(found) == 40
    assert [stack for stack in found if not stack.splitlines()[-1].endswith("in spin")] == []


def test_a_stalled_worker_is_reported_with_its_stack(tmp_path: Path) -> None:
    halts: list[workq.Halt] = []
    quick = DEFAULTS._replace(heartbeat_s=0.05, stalled_after_s=0.2)
    with workq.Controller(settings=quick) as controller, workq.WorkMgr(1, controller=controller) as wq:
        controller.on_halt(halts.append)
        for number in tries():  # a busy machine may have it stall before that, or not answer in time
            folder = tmp_path / str(number)
            folder.mkdir()
            with Held(wq, folder, keep_the_lock) as held:
                wait_until(lambda number=number: len(halts) > number)
            held.unit.result(DEADLINE_S)
            if "in keep_the_lock" in halts[-1].stack:
                break
        assert halts[-1].stalled
        assert "in keep_the_lock" in halts[-1].stack
        assert "its Python stack:" in str(halts[-1])


def test_a_unit_that_has_to_be_killed_says_where_it_was(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with workq.WorkMgr(1, delete_timeout=0.4) as wq, caplog.at_level("WARNING", "workq"):
        held = Held(wq, tmp_path, deaf).wait_begun()
        held.unit.cancel()
        with pytest.raises(workq.UnitCancelled):
            held.unit.result(DEADLINE_S)
        held.let_go()
    assert "is killed" in caplog.text
    assert "in deaf" in caplog.text
