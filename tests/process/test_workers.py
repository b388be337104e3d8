"""Workers of the local engine as real processes: what they are, how they end, and what their end tells."""

from __future__ import annotations

import os
import re
import resource
import signal
import time
from pathlib import Path

import pytest

from tests.process.harness import Pool
from tests.support import DEADLINE_S, wait_gone, wait_readable
from workq.engines.protocol import Started, StartFailed


def test_three_workers_start_under_their_names(pool):
    workers = [pool.begin() for _ in range(3)]
    for worker in workers:
        worker.wait_ready()
        assert re.fullmatch(r"worker_[0-9a-f]{8}", worker.lane.name)
        assert worker.lane.process_info_id.startswith(worker.lane.name.removeprefix("worker_"))
        assert Path(f"/proc/{worker.lane.pid}/comm").read_text().strip() == worker.lane.name
    assert len({worker.lane.pid for worker in workers}) == 3


def test_a_worker_has_a_session_of_its_own_and_nothing_but_its_own_descriptors(pool):
    pool.start()
    worker = pool.start()
    assert worker.ask("os.getsid(0), os.getpgid(0)") == (worker.lane.pid, worker.lane.pid)
    numbers = worker.ask("numbers")
    found = set(os.listdir(f"/proc/{worker.lane.pid}/fd"))
    lives = found - {str(number) for number in (0, 1, 2, *numbers)}
    assert len(lives) == 2  # the life pipes, of the application and of the launcher
    assert min(numbers) > 900
    assert os.readlink(f"/proc/{worker.lane.pid}/fd/0") == "/dev/null"


def test_the_launcher_holds_nothing_that_the_application_hands_to_its_children(pool):
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    pool.start()
    os.close(writer)
    wait_readable(reader)
    assert os.read(reader, 1) == b""  # nobody else has the other end
    os.close(reader)


def test_the_launcher_holds_no_descriptor_above_a_limit_that_was_lowered(pool):
    reader, writer = os.pipe()
    above = max(int(number) for number in os.listdir("/proc/self/fd")) + 64
    os.dup2(writer, above, inheritable=True)
    os.close(writer)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (above, hard))
    try:
        pool.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    os.close(above)
    wait_readable(reader)
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_the_launcher_starts_where_python_was_built_without_setsid(pool, monkeypatch):
    as_it_is = os.posix_spawnp

    def without_setsid(*arguments, setsid=False, **others):
        if setsid:
            raise NotImplementedError("posix_spawnp: setsid unavailable on this platform")
        return as_it_is(*arguments, **others)

    monkeypatch.setattr(os, "posix_spawnp", without_setsid)
    worker = pool.start()
    launcher_pid = worker.ask("os.getppid()")
    assert os.getsid(launcher_pid) == launcher_pid


def test_the_launcher_is_frugal(pool):
    pool.start()
    modules = pool.start().ask("sorted(m for m in sys.modules if m.startswith('workq') or m == 'psutil')")
    assert "psutil" not in modules
    assert "workq.process.client" not in modules
    assert "workq.process.launcher" in modules


def test_a_worker_has_the_path_and_arguments_of_the_application(pool):
    import sys

    path, argv = pool.start().ask("(sys.path, sys.argv)")
    assert path == [os.path.abspath(folder) for folder in sys.path]
    assert argv == sys.argv


def test_signals_are_as_in_a_fresh_interpreter(pool):
    worker = pool.start()
    assert worker.ask("signal.getsignal(signal.SIGINT) is signal.default_int_handler")
    assert worker.ask("signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL")
    assert worker.ask("signal.pthread_sigmask(signal.SIG_BLOCK, ())") == set()


@pytest.mark.parametrize(
    ("order", "code"),
    [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exec os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("exec os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
        ("exec os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("exec os.abort()", -signal.SIGABRT),
        ("exec sys.exit(5)", 5),
        ("exec sys.exit('no more')", 1),
        ("exec raise ValueError('odd')", 1),
    ],
)
def test_an_end_is_told_with_its_code(pool, order, code):
    worker = pool.start()
    worker.tell(order)
    exited = worker.wait_exited()
    assert exited.code == code
    assert exited.peak_rss_bytes > 1_000_000


def test_the_last_words_of_an_aborted_worker_are_in_its_pipe(pool):
    worker = pool.start()
    worker.tell("exec os.write(2, b'the last line\\n'); os.abort()")
    worker.wait_exited()
    assert worker.stderr() == "the last line\n"


def test_an_exception_of_the_entry_point_is_printed_to_the_pipe(pool):
    worker = pool.start()
    worker.tell("exec print('to stdout'); raise ValueError('odd')")
    worker.wait_exited()
    assert worker.stderr().endswith("ValueError: odd\n")
    assert worker.stdout() == "to stdout\n"


def test_pidfd_and_pid_are_of_the_same_process(pool):
    worker = pool.start()
    os.kill(worker.lane.pid, signal.SIGKILL)
    wait_readable(worker.lane.pidfd)
    assert worker.wait_exited().code == -signal.SIGKILL


def test_a_descriptor_number_used_again_ends_no_other_worker(pool):
    first = pool.start()
    first.tell("exit 0")
    first.wait_exited()
    number = first.lane.pidfd
    first.lane.close()
    second = pool.start()
    lane = second.lane
    assert number in (lane.pidfd, lane.output_fd, lane.error_fd, lane.socket.fileno(), lane.peer.fileno())
    pool.engine.kill(first.lane)
    pool.engine.interrupt(first.lane)
    assert second.ask("1 + 1") == 2


def test_interrupt_sends_the_signal(pool):
    worker = pool.start()
    worker.tell("exec signal.signal(signal.SIGUSR2, lambda *a: say('interrupted')); say('set')")
    assert worker.line() == "set"
    pool.engine.interrupt(worker.lane)
    assert worker.line() == "interrupted"


def test_a_worker_killed_before_it_exists_dies_as_it_starts(pool):
    worker = pool.begin()
    pool.engine.kill(worker.lane)
    pool.engine.interrupt(worker.lane)
    assert worker.wait_exited().code == -signal.SIGKILL


def test_kill_and_interrupt_of_the_dead_do_nothing(pool):
    worker = pool.start()
    worker.tell("exit 0")
    worker.wait_exited()
    pool.engine.kill(worker.lane)
    pool.engine.interrupt(worker.lane)
    worker.lane.close()
    worker.lane.close()
    pool.engine.kill(worker.lane)


@pytest.mark.parametrize("session", [False, True], ids=["in the group", "in a session of its own"])
@pytest.mark.parametrize("death", ["kill", "crash", "exit"])
def test_what_a_worker_started_dies_with_it(pool, session, death):
    worker = pool.start()
    other = pool.start()
    neighbour = other.ask("grandchild(start_new_session=True)")
    pid = worker.ask(f"grandchild(start_new_session={session})")
    if death == "kill":
        pool.engine.kill(worker.lane)
    else:
        worker.tell("exec os.abort()" if death == "crash" else "exit 0")
    wait_gone(pid)
    worker.wait_exited()
    os.kill(neighbour, 0)  # still there
    assert other.ask("1") == 1


def test_a_kill_finds_what_left_the_group_and_bears_no_mark(pool):
    worker = pool.start()
    pid = worker.ask("grandchild(start_new_session=True, env={})")
    pool.engine.kill(worker.lane)
    wait_gone(pid)
    worker.wait_exited()


def test_forked_grandchildren_that_lost_their_parent_are_found(pool):
    worker = pool.start()
    pid = worker.ask("daemon()")
    os.kill(pid, 0)
    worker.tell("exec os.abort()")
    wait_gone(pid)


def test_a_wrapper_may_stand_before_the_launcher():
    with Pool(launcher_argv=["nice", "-n5", "{command}"]) as pool:
        assert pool.start().ask("os.nice(0)") == os.nice(0) + 5


def test_a_wrapper_that_forks_may_stand_before_the_launcher():
    with Pool(launcher_argv=["sh", "-c", '"$@"; exit 0', "sh", "{command}"]) as pool:
        worker = pool.start()
        assert worker.ask("os.getppid()") == pool.engine.launcher_pid
        worker.tell("exit 4")
        assert worker.wait_exited().code == 4


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"launcher_argv": ["/no/such/program", "{command}"]}, "cannot be started: /no/such/program: No such file"),
        ({"launcher_argv": ["false"]}, "could not start.*exit code 1"),
        ({"entry_point": "no_such_module:run"}, "No module named 'no_such_module'"),
        ({"entry_point": "tests.process.stub:nothing"}, "has no attribute 'nothing'"),
    ],
)
def test_a_launcher_that_cannot_start_fails_the_start_and_says_why(options, why):
    with Pool(**options) as pool:
        for _ in range(2):
            failed = pool.wait_event(pool.begin().lane.number, StartFailed, Started)
            assert re.search(why, failed.why, re.DOTALL), failed


def test_a_fork_of_the_application_can_be_the_launcher():
    marker = "this is known without an import"
    os.environ["WORKQ_TEST_MARKER"] = marker
    try:
        with Pool(start_method="fork") as pool:
            worker = pool.start()
            assert worker.ask("os.environ['WORKQ_TEST_MARKER']") == marker
            assert worker.ask("'pytest' in sys.modules")
            worker.tell("exec print('out'); sys.exit(3)")
            assert worker.wait_exited().code == 3
            assert worker.stdout() == "out\n"
    finally:
        del os.environ["WORKQ_TEST_MARKER"]


def test_close_ends_busy_workers_and_what_they_started_at_once():
    pool = Pool()
    workers = [pool.start() for _ in range(3)]
    pids = [worker.ask(f"grandchild(start_new_session={session})") for worker in workers for session in (False, True)]
    pidfds = [os.pidfd_open(pid) for pid in pids]
    for worker in workers:
        worker.tell("exec pow(7, 10**9)")
    began = time.monotonic()
    pool.close(within_s=DEADLINE_S)
    assert time.monotonic() - began < DEADLINE_S / 2, "it has waited for them"
    for pidfd in pidfds:
        wait_readable(pidfd)
        os.close(pidfd)


def test_close_is_bounded_when_the_launcher_does_not_answer():
    pool = Pool()
    worker = pool.start()
    pid = worker.ask("grandchild(start_new_session=True)")
    pidfd = os.pidfd_open(pid)
    os.kill(pool.engine.launcher_pid, signal.SIGKILL)
    pool.close(within_s=0.0)
    wait_readable(pidfd)
    os.close(pidfd)


def test_an_engine_that_started_nothing_closes():
    Pool().close()
