"""The control thread beats, ends the worker with its launcher, and keeps long units' pipes from filling up."""

from __future__ import annotations

import signal
import textwrap

import pytest

from tests.support import start_application, wait_gone
from tests.worker.stage import PRELUDE, told

WATCHED = """
import select, time
from workq.transport.board import BEAT, FINISHED, STARTED, Board
from workq.worker import watch
output.room = 10**9
board = Board.create()
def begin(heartbeat_s=60.0, parent=None):
    watch.start(board, output, os.getppid() if parent is None else parent, heartbeat_s)
def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()
"""


def watched(code: str) -> list[object]:
    return told(WATCHED + textwrap.dedent(code))


def test_it_beats() -> None:
    code = """
    before = time.monotonic_ns()
    begin(0.001)
    until(lambda: board.words[BEAT] > before)
    first = board.words[BEAT]
    until(lambda: board.words[BEAT] > first)
    tell(first < time.monotonic_ns())
    """
    assert watched(code) == [True]


def test_a_unit_that_writes_more_than_the_pipe_holds_never_blocks() -> None:
    code = """
    begin()
    board.words[STARTED] = 1
    rest = memoryview(b"x" * (5 << 20))
    while rest:
        rest = rest[os.write(1, rest):]
    os.set_blocking(2, False)
    print("flushed " * (1 << 17), file=sys.stderr)
    print("flushed " * (1 << 17), flush=True)
    tell([(number, len(text)) for number, text in output.take(True)])
    """
    (chunks,) = watched(code)
    assert isinstance(chunks, list)
    assert sorted(chunks) == [[1, (5 << 20) + (1 << 20) + 1], [2, (1 << 20) + 1]]


def test_a_long_units_bytes_are_taken_while_it_runs() -> None:
    code = """
    begin()
    board.words[STARTED] = 1
    os.write(2, b"the last words")
    os.write(1, b"x" * 30_000)
    until(lambda: output.pending)
    os.set_blocking(readers[1], False)
    tell(os.read(readers[1], 1 << 16).decode())  # what is little stays where the parent finds it, if the worker dies
    tell([(number, len(text)) for number, text in output.take(False)])
    """
    assert watched(code) == ["the last words", [[1, 30_000]]]


def test_bytes_of_units_that_come_and_go_are_left_to_the_main_thread() -> None:
    """A unit that ended within the pause is the main thread's to look at: nothing is mixed up by two readers."""
    code = """
    begin()
    for n in range(1, 3000):
        board.words[STARTED] = n
        os.write(1, b"%d" % n)
        assert output.take(True) == [(1, str(n))], n
    tell("right")
    """
    assert watched(code) == ["right"]


@pytest.mark.slow  # a share of CPU time wants some time to be measured in
def test_it_keeps_beating_when_a_unit_has_closed_the_pipes_and_uses_no_cpu_for_it() -> None:
    code = """
    for fd in readers:
        os.close(fd)
    begin(0.02)
    first = board.words[BEAT]
    until(lambda: board.words[BEAT] > first)
    used, begun = time.process_time(), time.monotonic()
    for _ in range(20):
        last = board.words[BEAT]
        while board.words[BEAT] == last:
            select.select([], [], [], 0.005)
    tell((time.process_time() - used) / (time.monotonic() - begun))
    """
    (share,) = watched(code)
    assert isinstance(share, float)
    assert share < 0.5  # one that spins takes a whole CPU, on the busiest machine too


def test_it_ends_the_process_and_its_group_when_the_launcher_is_gone() -> None:
    """The process is told of a parent that it has not, as if its own had just died and a reaper had taken it over."""
    code = """
    import subprocess
    os.setpgid(0, 0) if os.getpgrp() != os.getpid() else None
    child = subprocess.Popen(["sleep", "1000"])
    os.write(report, b"%d\\n" % child.pid)
    begin(0.01, parent=1 << 30)
    import signal
    signal.pause()
    """
    with start_application(PRELUDE + WATCHED + textwrap.dedent(code)) as app:
        child = int(app.line())
        end = app.finish()
    assert end.returncode == -signal.SIGKILL
    wait_gone(child)


def test_every_signal_is_blocked_in_it_and_none_in_the_main_thread() -> None:
    """A signal that the kernel gave to this thread would not break the wait that the main thread is in."""
    code = """
    import signal
    begin()
    def blocked(task):
        with open(f"/proc/self/task/{task}/status") as file:
            return int(file.read().split("SigBlk:")[1].split()[0], 16)
    (thread,) = set(os.listdir("/proc/self/task")) - {str(os.getpid())}
    from workq.transport.board import STACK_SIGNAL
    every = sum(1 << number - 1 for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
    asked = 1 << STACK_SIGNAL - 1  # meant for this thread: who asks for the stack must not disturb the main one
    tell([(blocked(thread) | asked) & every == every, blocked(os.getpid()) & every])  # a thread at its very birth blocks even more
    """
    assert watched(code) == [[True, 0]]


def test_a_fork_of_the_unit_has_no_control_thread() -> None:
    code = """
    begin(0.001)
    pid = os.fork()
    if pid == 0:
        os._exit(len(os.listdir("/proc/self/task")))
    tell(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    assert watched(code) == [1]
