"""workq.Lock and workq.Event on real processes: one holder at a time, first come first served, and free when the holder dies."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import workq
from tests.stepping import at_each_step
from tests.support import DEADLINE_S, application, is_gone, start_application, wait_gone, wait_until
from tests.system.held import Held
from workq import context
from workq.transport import lockpage
from workq.transport.board import FRAMES

pytestmark = pytest.mark.slow


@pytest.fixture
def wq() -> Iterator[workq.WorkMgr]:
    queue = workq.WorkMgr(4, name="locks", delete_timeout=5)
    yield queue
    queue.close()


def waiting(name: str) -> list[str]:
    """Return who waits for a lock or an event."""
    return [party.who for row in workq.locks() if row.name == name for party in row.waiting]


def wait_for_waiters(name: str, number: int) -> None:
    wait_until(lambda: len(waiting(name)) == number, what=f"{number} wait for {name}")


def hold_lock(fifo: str, name: str) -> int:
    """Hold a lock until the test lets go."""
    with workq.Lock(name), open(fifo, "rb") as file:
        file.read()
    return os.getpid()


def add(path: str, times: int) -> None:
    """Add to a number in a file, with nothing but the lock to keep others away."""
    for _ in range(times):
        with workq.Lock("number"):
            with open(path) as file:
                number = int(file.read())
            with open(path, "w") as file:
                file.write(str(number + 1))


def note(path: str, name: str, who: int) -> None:
    """Write who got the lock."""
    with workq.Lock(name), open(path, "a") as file:
        file.write(f"{who} ")


def take(name: str, timeout: float | None = None) -> tuple[bool, float]:
    begun = time.monotonic()
    taken = workq.Lock(name).acquire(timeout=timeout)
    return taken, time.monotonic() - begun


def keep(name: str) -> str:
    workq.Lock(name).acquire()
    return "kept"


# ---------------------------------------------------------------- locks


def test_one_unit_or_thread_of_the_application_holds_a_lock_at_a_time(wq: workq.WorkMgr, tmp_path: Path) -> None:
    path = tmp_path / "number"
    path.write_text("0")
    units = [wq.queue(add, str(path), 50) for _ in range(4)]
    threads = [threading.Thread(target=add, args=(str(path), 50)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [unit.exception(DEADLINE_S) for unit in units] == [None] * 4
    assert path.read_text() == "300"
    assert not workq.Lock("number").locked()
    assert not workq.locks()


def test_a_lock_is_given_to_who_came_first(wq: workq.WorkMgr, tmp_path: Path) -> None:
    with workq.Lock("door"):
        units = []
        for who in range(4):
            units.append(wq.queue(note, str(tmp_path / "order"), "door", who))
            wait_for_waiters("door", who + 1)
    assert [unit.exception(DEADLINE_S) for unit in units] == [None] * 4
    assert (tmp_path / "order").read_text().split() == ["0", "1", "2", "3"]


def test_a_lock_of_a_killed_holder_is_free_and_the_unit_is_named(wq: workq.WorkMgr, tmp_path: Path) -> None:
    with Held(wq, tmp_path, lambda fifo: hold_lock(fifo, "door")) as held:
        waiter = wq.queue(take, "door")
        wait_for_waiters("door", 1)
        (row,) = workq.locks()
        assert row.holder is not None
        os.kill(row.holder.pid, signal.SIGKILL)
        assert waiter.result(DEADLINE_S)[0]
        assert isinstance(held.unit.exception(DEADLINE_S), workq.WorkerHalted)
    wait_until(lambda: workq.locks().leaks)
    (leak, *_) = [leak for leak in workq.locks().leaks if leak.died]
    assert (leak.lock, leak.holder, leak.pid) == ("door", f"unit {held.unit.label}", row.holder.pid)
    assert f"lock 'door' by unit {held.unit.label}" in wq.statistics().leaked_locks


def test_a_killed_waiter_leaves_the_line(wq: workq.WorkMgr) -> None:
    with workq.Lock("door"):
        first = wq.queue(take, "door")
        wait_for_waiters("door", 1)
        second = wq.queue(take, "door", 30)
        wait_for_waiters("door", 2)
        (row,) = workq.locks()
        os.kill(row.waiting[0].pid, signal.SIGKILL)
        assert isinstance(first.exception(DEADLINE_S), workq.WorkerHalted)
        wait_for_waiters("door", 1)
    assert second.result(DEADLINE_S)[0]


def test_a_killed_application_leaves_no_waiter() -> None:
    code = """
        import os, workq

        def wait(name):
            print(os.getpid(), flush=True)
            workq.flush()
            workq.Lock(name).acquire()

        if __name__ == "__main__":
            wq = workq.WorkMgr(2)
            workq.Lock("door").acquire()
            unit = wq.queue(wait, "door")
            while not any(row.waiting for row in workq.locks()):
                pass
            print(*[party.pid for row in workq.locks() for party in row.waiting], flush=True)
            unit.result(60)
    """
    with start_application(code) as app:
        pid = int(app.line())
        app.kill()
        wait_gone(pid)


def test_a_wait_for_a_lock_ends_with_its_time_out_and_stands_in_no_line_then(wq: workq.WorkMgr) -> None:
    lock = workq.Lock("door")
    with lock:
        taken, took_s = wq.queue(take, "door", 0.05).result(DEADLINE_S)
        assert not taken
        assert 0.05 <= took_s
        assert not wq.queue(take, "door", 0).result(DEADLINE_S)[0]
        assert lock.locked()
        wait_for_waiters("door", 0)
        thread_took: list[bool] = []
        thread = threading.Thread(target=lambda: thread_took.extend([lock.acquire(timeout=0.05), lock.acquire(blocking=False)]))
        thread.start()
        thread.join(DEADLINE_S)
        assert thread_took == [False, False]
    assert lock.acquire(timeout=0)
    lock.release()


def test_a_cancelled_unit_stops_waiting_for_its_lock(wq: workq.WorkMgr) -> None:
    lock = workq.Lock("door")
    with lock:
        unit = wq.queue(take, "door")
        wait_for_waiters("door", 1)
        unit.cancel()
        with pytest.raises(workq.UnitCancelled):
            unit.result(DEADLINE_S)
        wait_for_waiters("door", 0)
    assert wq.metrics().workers_killed == 0
    assert lock.acquire(timeout=DEADLINE_S)
    lock.release()


def test_units_that_wait_for_a_lock_end_with_their_queue(wq: workq.WorkMgr) -> None:
    with workq.Lock("door"):
        with workq.WorkMgr(2, delete_timeout=20) as other:
            unit = other.queue(take, "door")
            wait_for_waiters("door", 1)
            other.close()
            assert unit.cancelled()
        wait_for_waiters("door", 0)
    assert wq.metrics().workers_killed == 0


def test_ctrl_c_ends_a_wait_for_a_lock_and_leaves_nothing_behind(wq: workq.WorkMgr, tmp_path: Path) -> None:
    lock = workq.Lock("door")
    main = threading.main_thread().ident
    assert main is not None

    def press() -> None:
        wait_until(lambda: any("MainThread" in who for who in waiting("door")))
        signal.pthread_kill(main, signal.SIGINT)

    with Held(wq, tmp_path, lambda fifo: hold_lock(fifo, "door")) as held:
        thread = threading.Thread(target=press)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            lock.acquire()
        thread.join(DEADLINE_S)
        wait_for_waiters("door", 0)
        held.let_go()
        held.unit.result(DEADLINE_S)
    assert lock.acquire(timeout=DEADLINE_S)
    lock.release()


def threads_exclude_each_other() -> tuple[int, int]:
    inside, most = 0, 0

    def go() -> None:
        nonlocal inside, most
        for _ in range(20):
            with workq.Lock("threads"):
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    go()
    for thread in threads:
        thread.join()
    return inside, most


def test_threads_of_a_unit_exclude_each_other(wq: workq.WorkMgr) -> None:
    assert wq.queue(threads_exclude_each_other).result(DEADLINE_S) == (0, 1)


def test_a_lock_is_released_only_by_the_thread_that_holds_it(wq: workq.WorkMgr) -> None:
    lock = workq.Lock("door")
    with pytest.raises(workq.LockError, match="nobody holds it in this process"):
        lock.release()
    errors: list[BaseException] = []

    def release() -> None:
        try:
            lock.release()
        except workq.LockError as error:
            errors.append(error)

    with lock:
        thread = threading.Thread(target=release)
        thread.start()
        thread.join()
        assert isinstance(wq.queue(lock.release).exception(DEADLINE_S), workq.LockError)
        assert lock.locked()
    assert "another thread holds it" in str(errors[0])


@pytest.mark.parametrize("name", ["", "x" * 129, 7, None, b"bytes"])
@pytest.mark.parametrize("kind", [workq.Lock, workq.Event])
def test_a_bad_name_is_refused_at_the_call(kind: Any, name: object) -> None:
    with pytest.raises(workq.ArgumentError, match="name must be a str of 1 to 128 characters"):
        kind(name)


def test_bad_arguments_are_refused_at_the_call() -> None:
    with pytest.raises(workq.ArgumentError, match="controller must be a"):
        workq.Lock("a", controller="no")  # type: ignore[arg-type]
    with pytest.raises(workq.ArgumentError, match="timeout"):
        workq.Lock("a").acquire(timeout="soon")  # type: ignore[arg-type]
    with pytest.raises(workq.ArgumentError, match="timeout must be None where blocking is False"):
        workq.Lock("a").acquire(False, 1.0)
    with pytest.raises(workq.ArgumentError, match="timeout"):
        workq.Event("a").wait("soon")  # type: ignore[arg-type]


def test_locks_travel_to_units_by_their_name(wq: workq.WorkMgr) -> None:
    lock = pickle.loads(pickle.dumps(workq.Lock("door")))
    assert repr(lock) == "workq.Lock('door')"
    with lock:
        assert wq.queue(workq.Lock.locked, lock).result(DEADLINE_S)
        assert not wq.queue(lock.acquire, False).result(DEADLINE_S)


def test_two_controllers_never_meet(wq: workq.WorkMgr) -> None:
    with workq.Controller() as other, workq.WorkMgr(1, controller=other) as far:
        with workq.Lock("door"), workq.Lock("door", controller=other):
            assert far.queue(keep, "near").result(DEADLINE_S) == "kept"
            assert not far.queue(take, "door", 0).result(DEADLINE_S)[0]
            workq.Event("go", controller=other).set()
            assert not workq.Event("go").is_set()
            assert [row.name for row in other.locks()] == ["door", "go"]


# ---------------------------------------------------------------- what a unit leaves locked


def test_a_unit_that_ends_and_holds_a_lock_is_told_of_and_its_worker_replaced(wq: workq.WorkMgr, caplog: pytest.LogCaptureFixture) -> None:
    unit = wq.queue(keep, "door")
    assert unit.result(DEADLINE_S) == "kept"
    assert unit.notes == ["it ended and still held lock 'door', which is freed; its worker is replaced"]
    assert workq.Lock("door").acquire(timeout=DEADLINE_S)
    workq.Lock("door").release()
    assert wq.queue(os.getpid).result(DEADLINE_S) != unit.worker.pid
    wait_until(lambda: workq.locks().leaks)
    (leak,) = workq.locks().leaks
    assert (leak.lock, leak.holder, leak.worker, leak.died, leak.queue) == ("door", f"unit {unit.label}", unit.worker.name, False, "locks")
    assert wq.statistics().leaked_locks == (f"lock 'door' by unit {unit.label}",)
    assert f"left locked: door by unit {unit.label}" in repr(workq.locks())
    assert [record.levelname for record in caplog.records if "still held lock 'door'" in record.getMessage()] == ["WARNING"]
    assert wq.metrics().workers_halted == 0


def keep_and_return(size: int) -> bytes:
    workq.Lock("door").acquire()
    return bytes(size)


def keep_and_fail() -> None:
    workq.Lock("door").acquire()
    raise ValueError("kept")


@pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
def test_the_result_of_a_unit_that_leaves_a_lock_held_is_kept_and_the_units_behind_it_run(wq: workq.WorkMgr, size: int) -> None:
    with workq.WorkMgr(1) as one:
        units = [one.queue(keep_and_return, size), *(one.queue(abs, -number) for number in range(20))]
        assert len(units[0].result(DEADLINE_S)) == size
        assert [unit.result(DEADLINE_S) for unit in units[1:]] == list(range(20))
        failed = one.queue(keep_and_fail)
        assert isinstance(failed.exception(DEADLINE_S), ValueError)
        assert "still held lock 'door'" in failed.notes[0]


def hold_elsewhere() -> list[int]:
    workq.Lock("initial").acquire()
    return [os.getpid()]


def test_what_an_initializer_locks_stays_locked_as_long_as_its_worker_lives() -> None:
    with workq.Controller() as controller:
        controller.add_category(workq.Category("one", initializer=hold_elsewhere, max_active_workers=1))
        with workq.WorkMgr(1, category="one", controller=controller) as wq:
            assert len({wq.queue(os.getpid).result(DEADLINE_S) for _ in range(3)}) == 1
            assert workq.Lock("initial", controller=controller).locked()
            assert not controller.locks().leaks


# ---------------------------------------------------------------- forks, inline, nested, the end


def fork_and_lock(name: str, *, made_before: bool) -> str:
    """Take a lock in a child: the parent's, or one of the same name that the child makes."""
    lock = workq.Lock(name)
    lock.locked()
    reader, writer = os.pipe()
    if not (pid := os.fork()):
        try:
            (lock if made_before else workq.Lock(name)).acquire()
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        said = file.read().decode()
    os.waitpid(pid, 0)
    return said


def both_hosts_say(wq: workq.WorkMgr, *, made_before: bool) -> tuple[str, str]:
    """What a child of the application is told, and one of a unit."""
    return fork_and_lock("door", made_before=made_before), wq.queue(fork_and_lock, "door", made_before=made_before).result(DEADLINE_S)


def test_a_lock_that_a_forked_child_makes_itself_would_exclude_nobody_and_says_so(wq: workq.WorkMgr) -> None:
    for said in both_hosts_say(wq, made_before=False):
        assert said.startswith("ForkedError: this process was forked from one that shares workq.Lock('door') with others")


def test_a_child_of_the_application_that_makes_a_queue_of_its_own_has_locks_of_its_own() -> None:
    script = """
        import os
        import workq

        def hold(name):
            with workq.Lock(name):
                return "held"

        if __name__ == "__main__":
            with workq.Lock("door"):
                pid = os.fork()
                if not pid:
                    with workq.WorkMgr(1) as wq:
                        print(wq.queue(hold, "door").result(), workq.Lock("door").locked(), flush=True)
                    os._exit(0)
                os.waitpid(pid, 0)
    """
    assert application(script).stdout == "held False\n"


def test_a_lock_is_of_no_use_in_a_forked_child(wq: workq.WorkMgr) -> None:
    workq.Lock("door").locked()
    for said in both_hosts_say(wq, made_before=True):
        assert said.startswith("ForkedError: workq.Lock('door') belongs to the process that this one was forked from")


def lock_inside() -> tuple[bool, bool]:
    with workq.Lock("door"), workq.WorkMgr(1) as wq:
        return wq.queue(take, "door", 0).result()[0], workq.Lock("door").locked()


def test_locks_reach_nested_units(wq: workq.WorkMgr) -> None:
    assert wq.queue(lock_inside).result(DEADLINE_S) == (False, True)
    assert not workq.Lock("door").locked()


def test_locks_without_workers_are_those_of_the_application(wq: workq.WorkMgr, tmp_path: Path) -> None:
    with workq.WorkMgr(0) as inline:
        assert inline.queue(take, "door").result()[0]
        with Held(wq, tmp_path, lambda fifo: hold_lock(fifo, "other")):
            assert not inline.queue(take, "other", 0.01).result()[0]


def test_closing_the_controller_ends_every_wait() -> None:
    errors: list[BaseException] = []
    with workq.Controller() as controller:
        lock = workq.Lock("door", controller=controller)

        def wait() -> None:
            try:
                lock.acquire()
            except workq.QueueClosed as error:
                errors.append(error)

        lock.acquire()
        thread = threading.Thread(target=wait)
        thread.start()
        wait_until(lambda: any(row.waiting for row in controller.locks()))
        controller.close()
        thread.join(DEADLINE_S)
    assert len(errors) == 1
    lock.release()  # does no harm
    with pytest.raises(workq.QueueClosed):
        lock.acquire()


def test_the_interpreter_ends_whatever_is_locked() -> None:
    ended = application("""
        import workq

        def take():
            workq.Lock("door").acquire()

        if __name__ == "__main__":
            wq = workq.WorkMgr(2)
            workq.Lock("door").acquire()
            workq.Event("go").set()
            wq.queue(take)
            while not any(row.waiting for row in workq.locks()):
                pass
            print("ends", flush=True)
    """)
    assert (ended.returncode, ended.stdout) == (0, "ends\n"), ended.stderr


# ---------------------------------------------------------------- events


def set_and_die(name: str) -> None:
    workq.Event(name).set()
    os._exit(3)


def wait_for(name: str, timeout: float | None = None) -> bool:
    return workq.Event(name).wait(timeout)


def test_an_event_outlives_who_has_set_it(wq: workq.WorkMgr) -> None:
    event = workq.Event("go")
    assert not event.is_set()
    waiters = [wq.queue(wait_for, "go") for _ in range(2)]
    wait_for_waiters("go", 2)
    assert isinstance(wq.queue(set_and_die, "go").exception(DEADLINE_S), workq.WorkerHalted)
    assert [unit.result(DEADLINE_S) for unit in waiters] == [True, True]
    assert event.is_set()
    assert event.wait()
    (row,) = workq.locks()
    assert (row.kind, row.name, row.state) == ("event", "go", "set")
    assert row.set_by is not None
    assert "set_and_die" in row.set_by
    wq.queue(event.clear).result(DEADLINE_S)
    assert not event.is_set()
    assert not wq.queue(wait_for, "go", 0.01).result(DEADLINE_S)
    assert not event.wait(0.01)
    wait_until(lambda: not workq.locks())


def test_an_event_may_be_set_by_a_signal_handler_that_interrupts_a_wait_for_units(wq: workq.WorkMgr) -> None:
    event = workq.Event("go")
    before = signal.signal(signal.SIGUSR1, lambda *_: event.set())
    try:
        unit = wq.queue(wait_for, "go")
        wait_for_waiters("go", 1)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert unit.result(DEADLINE_S)
    finally:
        signal.signal(signal.SIGUSR1, before)


# ---------------------------------------------------------------- blocked, and seen


@pytest.mark.parametrize("wait", [take, wait_for])
def test_a_unit_that_waits_counts_as_blocked_and_another_worker_stands_in(wait: Any) -> None:
    small = workq.Category("small", max_active_workers=1, max_workers=2)
    with workq.Controller() as controller:
        controller.add_category(small)
        lock, event = workq.Lock("x", controller=controller), workq.Event("x", controller=controller)
        with workq.WorkMgr(2, category="small", controller=controller) as wq, lock:
            unit = wq.queue(wait, "x")
            wait_until(lambda: [row.blocked for row in wq.workers() if row.unit == unit.label] == ["declared"])
            assert wq.queue(abs, -1).result(DEADLINE_S) == 1
            event.set()
            lock.release()
            unit.result(DEADLINE_S)
            lock.acquire()


def test_it_is_shown_who_waits_for_what_and_who_holds_it(wq: workq.WorkMgr, tmp_path: Path) -> None:
    with Held(wq, tmp_path, lambda fifo: hold_lock(fifo, "door")) as held:
        unit = wq.queue(take, "door")
        event = wq.queue(wait_for, "go", DEADLINE_S)
        wait_for_waiters("door", 1)
        wait_for_waiters("go", 1)
        shown = {row.unit: row.waits_for for row in workq.workers()}
        assert shown[unit.label] == f"lock 'door', held by unit {held.unit.label}"
        assert shown[event.label] == "event 'go'"
        assert shown[held.unit.label] is None
        assert "waits for" in repr(workq.workers()).splitlines()[0]
        row = next(row for row in workq.locks() if row.kind == "lock")
        assert row.holder is not None
        assert (row.name, row.state, row.holder.who) == ("door", "held", f"unit {held.unit.label}")
        assert row.holder.pid in {each.pid for each in workq.workers() if each.unit == held.unit.label}
        assert row.waiting[0].for_s < DEADLINE_S
        assert f"unit {held.unit.label}" in repr(workq.locks())
        assert workq.locks().as_dicts()[0]["holder"]["who"] == f"unit {held.unit.label}"
        with pytest.raises(workq.WorkqError, match="ask there"):
            wq.queue(workq.locks).result(DEADLINE_S)
        workq.Event("go").set()


# ---------------------------------------------------------------- hammer


def hammer(path: str, times: int) -> int:
    """Take a lock again and again, and make sure that nobody else is inside. Who dies inside leaves its number, and is dead."""
    lock = workq.Lock("hammer")
    for _ in range(times):
        with lock:
            fd = os.open(path, os.O_CREAT | os.O_RDWR)
            inside = os.pread(fd, 16, 0).strip()
            if inside and not is_gone(int(inside)):
                raise AssertionError(f"{int(inside)} is inside as well")
            os.pwrite(fd, f"{os.getpid():>16}".encode(), 0)
            os.ftruncate(fd, 0)
            os.close(fd)
    return times


def test_four_workers_take_a_lock_a_thousand_times_each_while_workers_are_killed(wq: workq.WorkMgr, tmp_path: Path) -> None:
    """Never two inside, never stuck: half of the kills strike the holder, the others whoever runs."""
    units = [wq.options(retries=workq.Retry(1000, crashes=1000)).queue(hammer, str(tmp_path / "inside"), 100) for _ in range(40)]
    killed: list[int] = []
    while len(killed) < 20 and not all(unit.done() for unit in units):
        with contextlib.suppress(TimeoutError):
            wq.wait_one(0.01)
        pids = [row.pid for row in wq.workers() if row.unit]
        holders = [row.holder.pid for row in workq.locks() if row.holder is not None and row.holder.pid]
        victims = [pid for pid in (holders if len(killed) % 2 and holders else pids) if pid not in killed]
        if victims:
            killed.append(victims[len(killed) % len(victims)])
            with contextlib.suppress(ProcessLookupError):
                os.kill(killed[-1], signal.SIGKILL)
    assert [unit.result(3 * DEADLINE_S) for unit in units] == [100] * 40
    assert wq.metrics().workers_halted >= len(killed) // 2
    assert killed
    assert not workq.Lock("hammer").locked()


# ---------------------------------------------------------------- locks that are free are taken without asking


def take_often(name: str, times: int) -> int:
    for _ in range(times):
        with workq.Lock(name):
            pass
    return times


def hold_a_known_one(fifo: str, name: str) -> int:
    """Hold a lock that this worker has had before, so that nobody is asked."""
    take_often(name, 2)
    return hold_lock(fifo, name)


def test_a_free_lock_is_taken_without_a_message(wq: workq.WorkMgr) -> None:
    with workq.WorkMgr(1) as one:
        one.queue(take_often, "door", 2).result(DEADLINE_S)
        worker = one.controller.loop.dispatcher.workers[0]
        before = worker.words[FRAMES]
        one.queue(take_often, "door", 1000).result(DEADLINE_S)
        assert worker.words[FRAMES] == before


def test_who_holds_a_lock_without_having_asked_is_shown_and_waited_for(wq: workq.WorkMgr, tmp_path: Path) -> None:
    lock = workq.Lock("door")
    with Held(wq, tmp_path, lambda fifo: hold_a_known_one(fifo, "door")) as held:
        (row,) = workq.locks()
        assert row.holder is not None
        assert (row.name, row.holder.who) == ("door", f"unit {held.unit.label}")
        assert row.holder.for_s < DEADLINE_S
        assert lock.locked()
        assert not lock.acquire(blocking=False)
        unit = wq.queue(take, "door")
        wait_for_waiters("door", 1)
        assert not lock.acquire(timeout=0.01)
        held.let_go()
        assert unit.result(DEADLINE_S)[0]
    assert lock.acquire(timeout=DEADLINE_S)
    lock.release()


def test_one_who_holds_a_lock_without_having_asked_is_killed(wq: workq.WorkMgr, tmp_path: Path) -> None:
    with Held(wq, tmp_path, lambda fifo: hold_a_known_one(fifo, "door")) as held:
        (row,) = workq.locks()
        assert row.holder is not None
        waiter = wq.queue(take, "door")
        wait_for_waiters("door", 1)
        os.kill(row.holder.pid, signal.SIGKILL)
        assert waiter.result(DEADLINE_S)[0]
        wait_until(lambda: workq.locks().leaks)
        assert workq.locks().leaks[0].holder == f"unit {held.unit.label}"


def test_more_locks_than_have_bytes_are_asked_for(wq: workq.WorkMgr) -> None:
    wq.queue(take_many, lockpage.NAMES + 5).result(3 * DEADLINE_S)
    with workq.Lock(f"many{lockpage.NAMES + 3}"):
        assert not wq.queue(take, f"many{lockpage.NAMES + 3}", 0).result(DEADLINE_S)[0]
    assert not workq.locks()


def take_many(number: int) -> None:
    for each in range(number):
        with workq.Lock(f"many{each}"):
            pass


def take_a_stack(number: int) -> int:
    """Hold many at once: more than a board has entries."""
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            for each in range(number):
                stack.enter_context(workq.Lock(f"stack{each}"))
            held = sum(workq.Lock(f"stack{each}").locked() for each in range(number))
            stack.close()
    return held


def test_a_unit_may_hold_many_locks_at_once(wq: workq.WorkMgr) -> None:
    assert [unit.result(DEADLINE_S) for unit in [wq.queue(take_a_stack, 20) for _ in range(4)]] == [20] * 4
    wait_until(lambda: not workq.locks())


def test_units_that_are_cancelled_anywhere_in_a_lock_leave_it_free(wq: workq.WorkMgr) -> None:
    """The interrupt strikes before, in and after the taking and the giving back; nobody is killed, and no lock stays held."""
    for number in range(40):
        unit = wq.queue(take_often, f"door{number % 2}", 1_000_000)
        wait_until(unit.running)
        unit.cancel()
        with pytest.raises(workq.UnitCancelled):
            unit.result(DEADLINE_S)
        assert not [note for note in unit.notes if "lock" in note]
    for number in range(2):
        assert workq.Lock(f"door{number}").acquire(timeout=DEADLINE_S)
        workq.Lock(f"door{number}").release()
    assert not workq.locks().leaks
    assert wq.metrics().workers_killed == 0


OURS = ("transport/claims.py", "transport/lockpage.py", "worker/claims.py", "controller/claims.py", "worker/replies.py")


def taken_within_each_step_of_a_release() -> tuple[list[str], int]:
    """Release a lock, and before each bytecode of that have another thread try to take it, and release it where it can."""
    wrong: list[str] = []

    def taken() -> workq.Lock:
        lock = workq.Lock("each step")
        lock.acquire()
        return lock

    def take_and_release() -> None:
        lock = workq.Lock("each step")
        try:
            if lock.acquire(blocking=False):
                lock.release()
        except workq.LockError as error:
            wrong.append(str(error))

    return wrong, at_each_step(OURS, taken, workq.Lock.release, take_and_release)


def answered_within_each_step_of_a_question() -> tuple[list[str], int]:
    """Ask, and before each bytecode of that have another thread ask as well: it reads the answers that come before its own."""
    side: Any = context.side()
    wrong: list[str] = []

    def ask(event: workq.Event) -> None:
        if not event.wait(timeout=DEADLINE_S / 4):
            wrong.append("it was not told that the event is set")

    workq.Event("each step").set()
    steps = at_each_step(
        OURS,
        lambda: workq.Event("each step"),
        ask,
        workq.Event("each step").is_set,
        may=lambda: not wrong and not side.inbox.lock.locked() and not side.replies._changed._is_owned(),  # else it would wait for us
    )
    return wrong, steps


def test_another_thread_of_a_unit_may_read_its_answer_in_each_step_of_its_question(wq: workq.WorkMgr) -> None:
    """A thread once looked for its answer, another one read it, and the first then waited for what had come already."""
    wrong, steps = wq.queue(answered_within_each_step_of_a_question).result(2 * DEADLINE_S)
    assert wrong == []
    assert steps > 100


def test_another_thread_may_take_a_lock_within_each_step_of_its_release() -> None:
    """A thread that comes to its own note of the lock after it gave it back once deleted that of the thread that had got it meanwhile."""
    wrong, steps = taken_within_each_step_of_a_release()
    assert wrong == []
    assert steps > 20


def test_another_thread_of_the_unit_may_as_well(wq: workq.WorkMgr) -> None:
    wrong, steps = wq.queue(taken_within_each_step_of_a_release).result(DEADLINE_S)
    assert wrong == []
    assert steps > 50
