"""Nothing outlives the application: not its launcher, not a worker in C code, not what a worker started."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import pytest

from tests.support import DEADLINE_S, start_application, wait_readable

APP = """
    import os, signal, sys
    from tests.process.harness import Pool
    kind, child, pidfd = sys.argv[1:]
    pool = Pool(pidfd=pidfd == "pidfd")
    pids = []
    for session in (False, True):
        worker = pool.start()
        pids += [worker.lane.pid, worker.ask(f"grandchild(start_new_session={session})")]
        pids += [worker.ask("grandchild('while True: pass')")]
        if kind == "busy":
            worker.tell("exec pow(7, 10**9)")
        if kind == "spinning":
            worker.tell("exec while True: pass")
    holder = os.fork() if child == "child" else -1
    if holder == 0:
        os.setsid()
        while True:
            signal.pause()  # holds all descriptors of the application
    print(max(holder, 0))
    print(pool.engine.launcher_pid, *pids, flush=True)
    if kind == "exits":
        os._exit(0)
    sys.stdin.readline()
"""


@contextlib.contextmanager
def watched(pids):
    """Descriptors that tell when these processes are gone; whoever is left at the end is killed."""
    pidfds = [os.pidfd_open(pid) for pid in pids]
    try:
        yield pidfds
    finally:
        for pidfd in pidfds:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)


def wait_all_gone(pidfds):
    deadline = time.monotonic() + DEADLINE_S
    for pidfd in pidfds:
        wait_readable(pidfd, max(0.0, deadline - time.monotonic()))


@pytest.mark.slow
@pytest.mark.parametrize("child", ["alone", "child"])
@pytest.mark.parametrize("kind", ["idle", "busy", "spinning"])
def test_nothing_outlives_a_killed_application(kind, child):
    with start_application(APP, kind, child, "pidfd") as app:
        holder = int(app.line())
        pids = [int(pid) for pid in app.line().split()]
        with watched(pids) as pidfds, watched([holder] if holder else []):
            os.kill(app.pid, signal.SIGKILL)
            wait_all_gone(pidfds)
            if holder:
                os.kill(holder, 0)  # it held the descriptors all the time


@pytest.mark.slow
def test_without_pidfds_nothing_outlives_it_either():
    with start_application(APP, "busy", "child", "none") as app:
        holder = int(app.line())
        pids = [int(pid) for pid in app.line().split()]
        with watched(pids) as pidfds, watched([holder]):
            os.kill(app.pid, signal.SIGKILL)
            wait_all_gone(pidfds)


@pytest.mark.slow
def test_the_kernel_alone_ends_workers_and_their_groups_while_the_launcher_cannot_act():
    with start_application(APP, "busy", "alone", "pidfd") as app:
        app.line()
        launcher, *pids = [int(pid) for pid in app.line().split()]
        escaped = pids.pop(4)  # it has a session of its own: only the launcher finds it
        with watched([launcher, escaped]) as left, watched(pids) as pidfds:
            os.kill(launcher, signal.SIGSTOP)
            os.kill(app.pid, signal.SIGKILL)
            wait_all_gone(pidfds)
            os.kill(launcher, signal.SIGCONT)
            wait_all_gone(left)


@pytest.mark.slow
def test_no_group_of_a_worker_outlives_application_and_launcher_killed_together():
    with start_application(APP, "busy", "alone", "pidfd") as app:
        app.line()
        launcher, *pids = [int(pid) for pid in app.line().split()]
        escaped = pids.pop(4)  # in a session of its own: nobody is left who knows it
        with watched([escaped]), watched(pids) as pidfds:
            os.kill(app.pid, signal.SIGKILL)
            os.kill(launcher, signal.SIGKILL)
            wait_all_gone(pidfds)


@pytest.mark.slow
def test_nothing_outlives_an_application_that_exits_without_closing():
    with start_application(APP, "idle", "alone", "pidfd") as app:
        app.line()
        launcher = int(app.line().split()[0])
        with contextlib.suppress(ProcessLookupError), watched([launcher]) as pidfds:
            app.say("")
            wait_all_gone(pidfds)
        ended = app.finish()
        assert ended.returncode == 0


@pytest.mark.slow
def test_a_forked_copy_of_the_engine_touches_nothing_of_the_original():
    code = """
        import os, sys, time
        from tests.process.harness import Pool
        pool = Pool()
        worker = pool.start()
        if (child := os.fork()) == 0:
            assert pool.engine.events() == ()
            assert pool.engine.next_deadline() is None
            pool.engine.interrupt(worker.lane)
            pool.engine.kill(worker.lane)
            pool.engine.close(time.monotonic() + 1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert worker.ask("6 * 7") == 42
        worker.tell("exit 3")
        assert worker.wait_exited().code == 3
        assert pool.start().ask("1") == 1
        pool.close()
        print("fine")
    """
    with start_application(code) as app:
        ended = app.finish()
    assert (ended.stdout, ended.stderr, ended.returncode) == ("fine\n", "", 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "habit",
    [
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGUSR1, signal.SIG_IGN)",
        "threading.Thread(target=reap_all, daemon=True).start()",
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
        "socket.setdefaulttimeout(0.5)",
        "os.close(0); os.close(1)",
        "os.close(0); os.close(1); os.close(2)",
        "sys.stderr = sys.stdout = None",
    ],
)
def test_odd_habits_of_an_application_disturb_nothing(habit):
    code = f"""
        import os, signal, socket, sys, threading, time
        from tests.process.harness import Pool
        from tests.support import wait_gone
        report = os.dup(1)
        def reap_all():
            while True:
                try:
                    os.waitpid(-1, 0)
                except ChildProcessError:
                    time.sleep(0.001)
        pool = Pool()
        {habit}
        workers = [pool.start() for _ in range(2)]
        assert workers[0].ask("signal.pthread_sigmask(signal.SIG_BLOCK, ())") == set()
        assert workers[0].ask("int(signal.getsignal(signal.SIGCHLD))") == 0
        assert workers[0].ask("int(signal.getsignal(signal.SIGTERM)), int(signal.getsignal(signal.SIGUSR1))") == (0, 0)
        assert workers[0].ask("os.get_blocking(numbers[0])")
        workers[0].tell("exec os.eventfd_write(numbers[4], 5); os.eventfd_write(numbers[5], 6); say('rung')")
        assert workers[0].line() == "rung"
        assert [os.eventfd_read(bell) for bell in pool.bells] == [5, 6]
        workers[0].tell("exec print('hello'); sys.exit(3)")
        assert workers[0].wait_exited().code == 3
        assert workers[0].stdout() == "hello\\n"
        launcher = pool.engine.launcher_pid
        os.kill(launcher, signal.SIGKILL)
        assert workers[1].wait_exited().code is None
        worker = pool.start()
        assert worker.ask("1") == 1
        last = pool.engine.launcher_pid
        pool.close()
        wait_gone(last)
        os.write(report, b"fine")
    """
    with start_application(code) as app:
        ended = app.finish()
    assert (ended.stdout, ended.stderr, ended.returncode) == ("fine", "", 0)
