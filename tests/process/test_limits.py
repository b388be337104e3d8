"""No processes left, no descriptors left, and many workers one after the other."""

from __future__ import annotations

import errno
import os
import resource
import time

import psutil
import pytest

from tests.process.harness import Pool
from tests.support import start_application, tries, wait_until
from workq.engines.protocol import Exited, Started, StartFailed


@pytest.mark.slow
def test_a_start_fails_where_the_user_may_have_no_more_processes():
    code = """
        import os, resource, sys
        sys.stdin.readline()
        from tests.process.harness import Pool
        from workq.engines.protocol import StartFailed, Started
        if os.getuid() == 0:  # the interpreter may lie where only root may look: load everything first, and fork
            import ctypes
            from tests.process import stub
            from workq.process import launcher
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(61000, 61000, 61000)
        with Pool(start_method="fork") as limited:
            first = limited.start()
            resource.prlimit(limited.engine.launcher_pid, resource.RLIMIT_NPROC, (1, 1))
            failed = limited.wait_event(limited.begin().lane.number, StartFailed, Started)
            print(failed.why, flush=True)
            assert first.ask("1") == 1
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        with Pool() as none:
            print(none.wait_event(none.begin().lane.number, StartFailed).why)
        os._exit(0)
    """
    with start_application(code) as app:
        app.say("")
        ended = app.finish()
    first, second = ended.stdout.splitlines()
    assert "Resource temporarily unavailable" in first
    assert "Resource temporarily unavailable" in second


def test_a_start_without_descriptors_raises_and_leaves_nothing_open():
    with Pool() as pool:
        worker = pool.start()
        before = os.listdir("/proc/self/fd")
        hogs: list[int] = []
        refused = 0
        try:
            for left in range(20):
                take_all_but(left, hogs)
                try:
                    pool.begin()
                except OSError as error:
                    refused += error.errno == errno.EMFILE
                give_back(hogs)
                for lane in pool.lanes[1:]:
                    pool.wait_event(lane.number, Started, StartFailed)
                    pool.engine.kill(lane)
                    pool.wait_event(lane.number, Exited, StartFailed)
                    lane.close()
                del pool.lanes[1:]
                pool.happened.clear()
                assert sorted(os.listdir("/proc/self/fd")) == sorted(before)
        finally:
            give_back(hogs)
        assert 8 < refused < 20
        assert worker.ask("1") == 1


def take_all_but(left: int, hogs: list[int]) -> None:
    """Use up the descriptors of this process, but for so many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        while True:
            hogs.append(os.dup(0))
    except OSError:
        pass
    for _ in range(left):
        os.close(hogs.pop())


@pytest.fixture(autouse=True)
def limits_put_back():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def give_back(hogs: list[int]) -> None:
    while hogs:
        os.close(hogs.pop())


def descriptors_at_rest(pid: int) -> int:
    """Return how many descriptors the launcher has open once it waits: it closes what it has sent after it has told."""
    wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_SLEEPING, what="at rest")
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.slow
def test_many_workers_one_after_the_other_leak_no_descriptor():
    with Pool() as pool:
        pool.start()
        before = len(os.listdir("/proc/self/fd"))
        before_there = descriptors_at_rest(pool.engine.launcher_pid)
        for round_number in range(500):
            worker = pool.begin()
            if round_number % 2:
                pool.engine.kill(worker.lane)
            else:
                worker.tell("exit 0")
            worker.wait_exited()
            worker.lane.close()
            pool.happened.clear()
        assert len(os.listdir("/proc/self/fd")) == before
        assert descriptors_at_rest(pool.engine.launcher_pid) == before_there


@pytest.mark.slow
def test_a_hundred_workers_at_once():
    with Pool() as pool:
        workers = [pool.begin() for _ in range(100)]
        for worker in workers:
            worker.wait_ready()
        for worker in workers:
            worker.tell("exit 7")
        assert {worker.wait_exited().code for worker in workers} == {7}


def test_a_further_worker_answers_soon():
    with Pool() as pool:
        pool.start()
        took_s = 1.0
        for _ in tries():
            began = time.perf_counter()
            pool.start()
            took_s = time.perf_counter() - began
            if took_s < 0.05:  # 2 ms on a quiet machine
                break
        assert took_s < 0.05
