"""The launcher killed, stopped, or silent: its workers are accounted for, and the next start makes a new one."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.process.harness import Pool
from tests.support import wait_gone, wait_until
from workq.engines.protocol import Exited, Started, StartFailed


@pytest.mark.parametrize("pidfd", [True, False], ids=["by pidfd", "without pidfds"])
def test_workers_of_a_killed_launcher_die_with_all_they_started_and_a_new_one_serves(pidfd):
    with Pool(pidfd=pidfd) as pool:
        busy, idle = pool.start(), pool.start()
        pids = [busy.ask(f"grandchild(start_new_session={session})") for session in (False, True)]
        busy.tell("exec pow(7, 10**9)")
        os.kill(pool.engine.launcher_pid, signal.SIGKILL)
        for worker in (busy, idle):
            wait_gone(worker.lane.pid)  # by the kernel alone: the engine has not looked yet
        for worker in (busy, idle):
            assert worker.wait_exited() == Exited(worker.lane.number, None)
        for pid in pids:
            wait_gone(pid)
        assert pool.start().ask("1") == 1


def test_a_start_that_a_dead_launcher_leaves_unanswered_fails():
    with Pool() as pool:
        pool.start()
        os.kill(pool.engine.launcher_pid, signal.SIGSTOP)
        waiting = pool.begin()
        os.kill(pool.engine.launcher_pid, signal.SIGKILL)
        assert "the launcher of the workers is gone (signal 9)" in pool.wait_event(waiting.lane.number, StartFailed).why
        assert pool.start().ask("1") == 1


def test_a_stopped_launcher_is_woken_and_nobody_is_lost():
    with Pool(silence_s=0.5) as pool:
        first = pool.start()
        launcher = pool.engine.launcher_pid
        os.kill(launcher, signal.SIGSTOP)
        second = pool.begin()
        second.wait_ready()
        assert first.ask("1") == second.ask("1") == 1
        assert pool.engine.launcher_pid == launcher


def test_a_death_that_a_stopped_launcher_does_not_report_is_told_with_its_code():
    with Pool() as pool:
        worker = pool.start()
        os.kill(pool.engine.launcher_pid, signal.SIGSTOP)
        worker.tell("exit 3")
        assert worker.wait_exited().code == 3


def test_a_launcher_that_never_answers_is_replaced():
    with Pool(launcher_argv=["sleep", "1000"], silence_s=0.02) as pool:
        silent = pool.begin()
        pid = pool.engine.launcher_pid
        assert "could not start (signal 9)" in pool.wait_event(silent.lane.number, StartFailed, Started).why
        wait_gone(pid)
        again = pool.begin()
        assert pool.engine.launcher_pid != pid
        pool.wait_event(again.lane.number, StartFailed)


def test_an_application_that_was_away_for_long_blames_no_launcher():
    with Pool(silence_s=0.5) as pool:
        pool.start()
        worker = pool.begin()
        deadline = pool.engine.next_deadline()
        assert worker.line() == "ready"  # so it has been answered, but we have not looked
        wait_until(lambda: time.monotonic() > deadline + 0.5)  # longer than the launcher may be silent
        worker.pool.wait_event(worker.lane.number, Started)
        assert worker.ask("1") == 1
