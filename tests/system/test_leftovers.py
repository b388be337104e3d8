"""Spec section 3, rule 8: what a unit leaves behind is noticed when it ends, told with the unit's id, and put back or named."""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import workq
from tests.support import DEADLINE_S, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def wq() -> Iterator[workq.WorkMgr]:
    """A queue with one worker, so that what one unit leaves behind is what the next one finds."""
    queue = workq.WorkMgr(1, name="left", delete_timeout=5)
    yield queue
    queue.close()


def state() -> dict[str, Any]:
    """What a unit finds."""
    umask = os.umask(0o77)
    os.umask(umask)
    return {
        "pid": os.getpid(),
        "umask": umask,
        "collector": (gc.isenabled(), gc.get_threshold()),
        "recursion": sys.getrecursionlimit(),
        "timers": [signal.getitimer(which)[0] for which in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)],
        "limits": [resource.getrlimit(which)[0] for which in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CPU)],
        "folder": os.getcwd(),
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "handler": str(signal.getsignal(signal.SIGALRM)),
    }


def change_umask() -> None:
    os.umask(0o777)


def stop_collecting() -> None:
    gc.disable()
    gc.set_threshold(3, 2, 1)


def lower_recursion() -> None:
    sys.setrecursionlimit(200)


def leave_alarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 600)


def lower_limits() -> None:
    for which in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CPU):
        resource.setrlimit(which, (900, resource.getrlimit(which)[1]))


def change_folder() -> None:
    os.chdir("/")


def change_mask() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])


def change_handler() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_IGN)


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        (change_umask, ["it changed the umask to 0o777; put back"]),
        (stop_collecting, ["it changed the garbage collector's settings; put back"]),
        (lower_recursion, ["it changed the recursion limit to 200; put back"]),
        (leave_alarm, ["it left a timer running that sends SIGALRM; stopped"]),
        (lower_limits, [f"it changed the limit RLIMIT_{name} to 900; put back" for name in ("CPU", "FSIZE", "NOFILE")]),
        (change_folder, ["it changed the working directory to '/'; put back"]),
        (change_mask, ["it blocked SIGALRM; put back"]),
        (change_handler, ["it changed the handlers of SIGALRM; put back"]),
    ],
)
def test_what_a_unit_changes_for_the_whole_process_is_put_back_and_told_with_its_id(
    wq: workq.WorkMgr, deed: Callable[[], None], said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "workq")
    before = wq.queue(state)
    unit = wq.queue(deed)
    after = wq.queue(state)
    assert after.result(DEADLINE_S) == before.result(DEADLINE_S)
    assert sorted(unit.notes) == said
    assert before.notes == after.notes == []
    wq.sync()
    told = [record.getMessage() for record in caplog.records if "unit left" in record.getMessage()]
    assert told == [f"unit {unit.label}: {'; '.join(unit.notes)}"]


def lower_for_good() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))


def test_a_hard_limit_that_a_unit_has_lowered_is_told_of_once(wq: workq.WorkMgr) -> None:
    before, unit, after = wq.queue(state), wq.queue(lower_for_good), wq.queue(state)
    assert after.result(DEADLINE_S)["limits"][1] == 1 << 30
    assert before.result()["limits"][1] == resource.RLIM_INFINITY
    assert unit.notes == [f"it changed the limit RLIMIT_FSIZE to {1 << 30}, for good; left as it is"]
    assert after.notes == []


def add_to_path() -> None:
    sys.path.append("/nowhere")


def test_a_changed_import_path_is_told_of_once_and_left(wq: workq.WorkMgr) -> None:
    unit, after = wq.queue(add_to_path), wq.queue(sys.path.count, "/nowhere")
    found = wq.queue(eval, "'/nowhere' in __import__('sys').path")
    assert found.result(DEADLINE_S) is True
    assert len(unit.notes) == 1
    assert unit.notes[0].startswith("it changed sys.path (entries: ")
    assert after.notes == found.notes == []


def keep(name: str) -> None:
    workq.Lock(name).acquire()


def test_a_lock_that_a_unit_without_a_worker_has_left_held_is_freed_and_told() -> None:
    with workq.WorkMgr(0, name="inline") as inline:
        unit = inline.queue(keep, "door")
        unit.result()
        assert unit.notes == ["it ended and still held lock 'door', which is freed"]
        assert workq.Lock("door").acquire(timeout=DEADLINE_S)
        workq.Lock("door").release()
        (leak,) = workq.locks().leaks
        assert (leak.lock, leak.holder, leak.pid) == ("door", f"unit {unit.label}", os.getpid())


def hold_in_thread(name: str) -> None:
    """Leave a thread behind that holds a lock."""
    taken = threading.Event()

    def go() -> None:
        workq.Lock(name).acquire()
        taken.set()
        threading.Event().wait()

    threading.Thread(target=go, name="holder", daemon=True).start()
    taken.wait()


def test_a_lock_that_a_thread_of_an_ended_unit_holds_is_freed_as_well(wq: workq.WorkMgr) -> None:
    unit = wq.queue(hold_in_thread, "door")
    unit.result(DEADLINE_S)
    assert workq.Lock("door").acquire(timeout=DEADLINE_S)
    workq.Lock("door").release()
    assert [note for note in unit.notes if "lock" in note] == [
        "it ended and still held lock 'door', which is freed; its worker is replaced"
    ]
    assert "it left threads that live on: holder" in unit.notes
    wait_until(lambda: workq.locks().leaks)
    (leak,) = workq.locks().leaks
    assert leak.holder == f"unit {unit.label} (thread holder)"
    assert leak.queue == "left"
