"""queue_callback, EXIT, sync and wait: callbacks run in the thread that waits, one at a time, in order, and lose nothing."""

from __future__ import annotations

import gc
import os
import signal
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

import workq
from tests.support import DEADLINE_S, application, wait_until
from tests.system.held import Held, deaf
from workq.errors import ArgumentError

pytestmark = pytest.mark.slow


def fail(text: str) -> None:
    raise LookupError(text)


def queue_inside(numbers: list[int]) -> tuple[list[tuple[int, int]], bool, list[str], bool]:
    """Use callbacks in a unit."""
    seen: list[tuple[int, int]] = []
    wq = workq.WorkMgr(2)

    def note(unit: Any, number: int) -> object:
        seen.append((number, unit.result()))
        if number < 10:
            wq.queue_callback(abs, note, number * 10)
        return workq.EXIT if number == 2 else None

    for number in numbers:
        wq.queue_callback(abs, note, number)
    while not wq.wait():
        pass
    wq.queue_callback(fail, lambda unit, text: 1 / 0, "inner")
    try:
        wq.sync()
    except workq.WorkErrors as error:
        failures = [type(one).__name__ for one in error.exceptions]
    quiet = wq.wait(0)
    wq.close()
    return sorted(seen), workq.is_worker_job(), failures, quiet


# ---------------------------------------------------------------- callbacks


def test_a_callback_gets_the_unit_and_the_arguments_themselves_in_the_thread_that_waits(wq: workq.WorkMgr) -> None:
    seen: list[Any] = []
    given = [3, 1, 2]
    unit = wq.queue_callback(sorted, lambda *args, **kwargs: seen.append((args, kwargs, threading.current_thread())), given, reverse=True)
    assert not seen
    assert wq.sync(DEADLINE_S).done == 1
    ((args, kwargs, thread),) = seen
    assert args == (unit, given)
    assert args[1] is given
    assert kwargs == {"reverse": True}
    assert thread is threading.current_thread()
    assert unit.result() == [3, 2, 1]


@pytest.mark.parametrize("wait", ["sync", "wait", "wait_one", "as_completed"])
def test_sync_wait_wait_one_and_as_completed_make_callbacks(wait: str, wq: workq.WorkMgr) -> None:
    seen: list[int] = []
    for number in range(20):
        wq.queue_callback(abs, lambda unit, number: seen.append(number), number)
    match wait:
        case "sync":
            wq.sync(DEADLINE_S)
        case "wait":
            assert wq.wait(DEADLINE_S) is True
        case "wait_one":
            for _ in range(20):
                unit = wq.wait_one(DEADLINE_S)
                assert unit is not None
                assert unit.result() in seen  # its own has been made before it is handed out
            assert wq.wait_one() is None
        case "as_completed":
            assert len(list(wq.as_completed(DEADLINE_S))) == 20
    assert sorted(seen) == list(range(20))


def test_result_makes_no_callback_and_the_next_wait_does(wq: workq.WorkMgr) -> None:
    seen: list[Any] = []
    unit = wq.queue_callback(abs, lambda unit, number: seen.append(unit), -1)
    assert unit.result(DEADLINE_S) == 1
    assert not seen
    assert wq.wait_one() is None  # somebody had it already
    assert seen == [unit]
    assert wq.wait(0)
    assert seen == [unit]


def test_callbacks_are_made_in_order_of_completion_and_not_of_submission(busy: workq.WorkMgr, tmp_path: Path) -> None:
    order: list[str] = []

    def queue_noted(fn: Any, *args: Any) -> Any:
        return busy.queue_callback(fn, lambda unit, *args: order.append(unit.name), *args)

    class Noted:
        queue = staticmethod(queue_noted)

    with Held(Noted, tmp_path) as held:
        for number in range(5):  # one after the other, as a stand-in for the held one may run beside the second worker
            view = busy.options(name=str(number))
            view.queue_callback(abs, lambda unit, n: order.append(unit.name), number).result(DEADLINE_S)
    held.unit.result(DEADLINE_S)
    busy.sync(DEADLINE_S)
    assert order == ["0", "1", "2", "3", "4", "hold"]


def test_a_callback_may_queue_more_and_sync_waits_for_those_too(wq: workq.WorkMgr) -> None:
    seen: list[int] = []

    def note(unit: Any, number: int) -> None:
        seen.append(unit.result())
        if number < 50:
            wq.queue_callback(abs, note, number + 1)
            wq.queue(abs, -number)

    wq.queue_callback(abs, note, 0)
    assert wq.sync(DEADLINE_S).done == 101
    assert seen == list(range(51))


def test_a_callback_is_made_however_its_unit_ends(busy: workq.WorkMgr, tmp_path: Path) -> None:
    seen: dict[str, str] = {}

    def note(unit: Any, *args: Any) -> None:
        seen[unit.name] = unit.state.value
        unit.exception() if not unit.cancelled() else None  # asked, so that sync raises nothing

    busy.options(name="done").queue_callback(abs, note, 1)
    busy.options(name="failed").queue_callback(fail, note, "no")
    busy.options(name="lost").queue_callback(os._exit, note, 3)
    busy.options(name="timed out", timeout=0.05).queue_callback(signal.pause, note)

    class Noted:
        @staticmethod
        def queue(*args: Any) -> Any:
            return busy.options(name="cancelled").queue_callback(args[0], note, *args[1:])

    with Held(Noted, tmp_path, deaf) as held:
        held.unit.cancel()
        busy.sync(DEADLINE_S)
    assert seen == {name: name for name in ("done", "failed", "lost", "timed out", "cancelled")}


def test_a_callback_of_a_unit_that_never_began_is_made(wq: workq.WorkMgr) -> None:
    seen: list[bool] = []
    wq.pause()
    unit = wq.queue_callback(abs, lambda unit, number: seen.append(unit.cancelled()), 1)
    assert unit.cancel()
    wq.sync(DEADLINE_S)
    assert seen == [True]


def test_what_callbacks_raise_joins_the_aggregate_in_order_of_submission_and_loses_nothing(wq: workq.WorkMgr) -> None:
    seen: list[int] = []

    def note(unit: Any, number: int) -> None:
        seen.append(number)
        if number % 3 == 0:
            raise ValueError(number)

    for number in range(6):
        wq.queue_callback(abs, note, number)
        wq.queue(fail, str(number))
    with pytest.raises(workq.WorkErrors, match="6 units and 2 callbacks of queue face failed") as caught:
        wq.sync(DEADLINE_S)
    assert sorted(seen) == list(range(6))
    names = [f"{type(error).__name__} {error.args[0]}" for error in caught.value.exceptions]
    assert names == ["ValueError 0", *[f"LookupError {n}" for n in range(3)], "ValueError 3", *[f"LookupError {n}" for n in range(3, 6)]]
    assert caught.value.exceptions[0].__notes__ == ["in the callback of unit face:1 abs"]
    wq.sync(DEADLINE_S)  # told once


def test_a_failure_that_a_callback_asks_for_and_passes_on_is_told_once(wq: workq.WorkMgr) -> None:
    wq.queue_callback(fail, lambda unit, text: unit.result(), "mine")
    with pytest.raises(workq.WorkErrors) as caught:
        wq.sync(DEADLINE_S)
    assert [str(error) for error in caught.value.exceptions] == ["mine"]


def test_a_callback_that_would_wait_for_itself_is_refused(wq: workq.WorkMgr) -> None:
    waits = [wq.sync, wq.wait, wq.wait_one, lambda: list(wq.as_completed())]
    refused: list[str] = []

    def wait(unit: Any, number: int) -> None:
        try:
            waits[number]()
        except workq.WaitError as error:
            refused.append(str(error))

    for number in range(len(waits)):
        wq.queue_callback(abs, wait, number)
    wq.sync(DEADLINE_S)
    assert len(refused) == 4
    assert all("would wait for itself" in text for text in refused)


def test_a_callback_may_ask_another_unit_and_use_map(wq: workq.WorkMgr) -> None:
    seen: list[Any] = []
    other = wq.queue(abs, -7)
    wq.queue_callback(abs, lambda unit, number: seen.append((other.result(), list(wq.map(abs, [-1, -2])))), 1)
    wq.sync(DEADLINE_S)
    assert seen == [(7, [1, 2])]


def test_callbacks_of_several_threads_that_wait_are_made_one_at_a_time_and_each_once(busy: workq.WorkMgr) -> None:
    inside = threading.Lock()
    seen: list[int] = []
    overlaps: list[int] = []

    def note(unit: Any, number: int) -> None:
        if not inside.acquire(blocking=False):
            overlaps.append(number)
            return
        try:
            seen.append(number)
            if number < 400:
                busy.queue_callback(abs, note, number + 200)
        finally:
            inside.release()

    for number in range(200):
        busy.queue_callback(abs, note, number)
    quiet: list[bool] = []
    threads = [threading.Thread(target=lambda: quiet.append(busy.wait(DEADLINE_S))) for _ in range(4)]
    for thread in threads:
        thread.start()
    busy.sync(DEADLINE_S)
    assert sorted(seen) == list(range(600))
    for thread in threads:
        thread.join(DEADLINE_S)
    assert quiet == [True] * 4
    assert overlaps == []


def test_options_apply_to_units_with_callbacks(wq: workq.WorkMgr) -> None:
    seen: list[str] = []
    wq.options(name="named").queue_callback(abs, lambda unit, number: seen.append(unit.name), 1)
    wq.sync(DEADLINE_S)
    assert seen == ["named"]


def test_the_output_of_a_unit_is_written_before_its_callback_is_made(wq: workq.WorkMgr, capsys: pytest.CaptureFixture[str]) -> None:
    wq.queue_callback(print, lambda unit, text: print("callback"), "unit")
    wq.sync(DEADLINE_S)
    assert capsys.readouterr().out == "unit\ncallback\n"


def test_a_queue_that_is_closed_makes_no_more_callbacks_and_frees_what_they_held(wq: workq.WorkMgr) -> None:
    class Thing:
        pass

    thing = Thing()
    alive = weakref.ref(thing)
    seen: list[Any] = []
    wq.queue_callback(abs, lambda unit, number, thing=thing: seen.append(unit), 1).cancel()
    wq.close()
    del thing
    gc.collect()
    assert alive() is None
    assert not seen


def test_a_callback_may_close_its_queue(wq: workq.WorkMgr) -> None:
    seen: list[int] = []

    def note(unit: Any, number: int) -> None:
        seen.append(number)
        wq.close()

    for number in range(3):
        wq.queue_callback(abs, note, number)
    wq.sync(DEADLINE_S)
    assert len(seen) == 1


@pytest.mark.parametrize("callback", [None, 7, "print"])
def test_what_cannot_be_called_is_no_callback_and_nothing_is_queued(callback: Any, wq: workq.WorkMgr) -> None:
    for queue in (wq, wq.options(priority=1)):
        with pytest.raises(ArgumentError, match="callback"):
            queue.queue_callback(abs, callback, 1)
    assert wq.statistics().queued == 0


def test_a_queue_refuses_more_callbacks_than_it_keeps() -> None:
    with workq.Controller(settings=workq.config.Settings(uncollected_units=3)) as controller:
        wq = workq.WorkMgr(0, controller=controller)
        for number in range(3):
            wq.queue_callback(abs, print, number)
        with pytest.raises(workq.WorkqError, match="3 callbacks"):
            wq.queue_callback(abs, print, 3)
        wq.close()


def test_callbacks_work_in_a_unit(busy: workq.WorkMgr) -> None:
    seen, in_worker, failures, quiet = busy.queue(queue_inside, [1, 2, 3]).result(DEADLINE_S)
    assert seen == [(1, 1), (2, 2), (3, 3), (10, 10), (20, 20), (30, 30)]
    assert (in_worker, failures, quiet) == (True, ["LookupError", "ZeroDivisionError"], True)


# ---------------------------------------------------------------- wait and EXIT


def test_exit_ends_a_wait_and_what_comes_after_it_stays_for_the_next(wq: workq.WorkMgr) -> None:
    seen: list[int] = []

    def note(unit: Any, number: int) -> object:
        seen.append(number)
        return workq.EXIT if len(seen) in (2, 4) else None

    units = [wq.queue_callback(abs, note, number) for number in range(6)]
    if wq.num_workers:
        assert [unit.result(DEADLINE_S) for unit in units] == list(range(6))
    assert [(wq.wait(DEADLINE_S), len(seen)) for _ in range(3)] == [(False, 2), (False, 4), (True, 6)]
    assert sorted(seen) == list(range(6))


def test_exit_ends_only_wait(wq: workq.WorkMgr) -> None:
    seen: list[int] = []

    def note(unit: Any, number: int) -> object:
        seen.append(number)
        return workq.EXIT

    for number in range(4):
        wq.queue_callback(abs, note, number)
    wq.sync(DEADLINE_S)
    assert sorted(seen) == [0, 1, 2, 3]
    wq.queue_callback(abs, note, 4)
    assert wq.wait(DEADLINE_S) is True  # it was the last one: nothing is outstanding


def test_a_wait_where_no_callback_says_exit_ends_with_the_last_unit(wq: workq.WorkMgr) -> None:
    assert wq.wait() is True  # nothing was ever queued
    wq.queue(abs, 1)
    wq.queue_callback(abs, lambda unit, number: None, 1)
    assert wq.wait() is True


def test_wait_raises_failures_only_at_the_end(wq: workq.WorkMgr) -> None:
    wq.queue(fail, "early")
    for number in (1, 2):  # before the last callback is made all units have ended
        wq.queue_callback(abs, lambda unit, number: wait_until(lambda: wq.statistics().done == 2) or workq.EXIT, number).result(DEADLINE_S)
    wait_until(lambda: wq.statistics().failed == 1)
    assert wq.wait(DEADLINE_S) is False
    with pytest.raises(workq.WorkErrors, match="1 unit of"):
        wq.wait(DEADLINE_S)
    assert wq.wait(0) is True


def test_wait_0_polls_makes_what_is_due_and_loses_nothing(busy: workq.WorkMgr, tmp_path: Path) -> None:
    seen: list[Any] = []
    with Held(busy, tmp_path):
        unit = busy.queue_callback(abs, lambda unit, number: seen.append(unit), 1)
        unit.result(DEADLINE_S)
        assert busy.wait(0) is False
        assert seen == [unit]
        assert busy.wait(0.01) is False
        with pytest.raises(TimeoutError):
            busy.sync(0)
    assert busy.wait(DEADLINE_S) is True


def test_a_timeout_of_sync_keeps_callbacks_for_the_next(busy: workq.WorkMgr, tmp_path: Path) -> None:
    seen: list[str] = []

    class Noted:
        @staticmethod
        def queue(*args: Any) -> Any:
            return busy.queue_callback(args[0], lambda unit, fifo: seen.append(fifo), *args[1:])

    with Held(Noted, tmp_path) as held:
        with pytest.raises(TimeoutError):
            busy.sync(0.01)
        assert not seen
    busy.sync(DEADLINE_S)
    assert seen == [held.fifo]


def test_exit_is_one_value_that_says_its_name() -> None:
    import copy
    import pickle

    assert repr(workq.EXIT) == "workq.EXIT"
    assert pickle.loads(pickle.dumps(workq.EXIT)) is copy.deepcopy(workq.EXIT) is workq.EXIT


# ---------------------------------------------------------------- ends of others


def test_a_sync_ends_when_another_thread_closes_the_queue(busy: workq.WorkMgr, tmp_path: Path) -> None:
    seen: list[Any] = []
    with Held(busy, tmp_path), Held(busy, tmp_path):
        busy.pause()  # else another worker may stand in for those that wait
        busy.queue_callback(abs, lambda unit, number: seen.append(unit), 1)
        threading.Timer(0.02, busy.close).start()
        assert busy.sync(DEADLINE_S).cancelled == 3
    assert not seen


def test_a_wait_ends_when_another_thread_clears_the_queue(wq: workq.WorkMgr) -> None:
    wq.pause()
    wq.queue_callback(abs, lambda unit, number: None, 1)
    threading.Timer(0.02, wq.clear).start()
    assert wq.wait(DEADLINE_S) is True


def test_callbacks_that_were_not_made_at_the_interpreters_exit_are_counted() -> None:
    ended = application(
        """
        import workq
        if __name__ == "__main__":
            wq = workq.WorkMgr(1)
            units = [wq.queue_callback(abs, print, -n) for n in range(3)]
            print([unit.result() for unit in units])
        """
    )
    assert (ended.returncode, ended.stdout) == (0, "[0, 1, 2]\n")
    assert "3 callbacks of queue Default-1 not made" in ended.stderr


def test_a_fork_of_the_process_refuses_every_member_and_touches_nothing() -> None:
    ended = application(
        """
        import os, workq
        if __name__ == "__main__":
            wq = workq.WorkMgr(1)
            unit = wq.queue_callback(abs, lambda unit, number: print("made", number), -1)
            unit.result()
            child = os.fork()
            if not child:
                refused = []
                for call in (wq.pause, wq.resume, wq.clear, wq.detach, lambda: wq.queue_callback(abs, print, 1)):
                    try:
                        call()
                        refused.append("no")
                    except workq.ForkedError:
                        refused.append("yes")
                print(*refused, flush=True)
                os._exit(0)
            os.waitpid(child, 0)
            wq.sync()
        """
    )
    assert ended.stdout.splitlines() == ["yes yes yes yes yes", "made -1"], ended.stderr


def test_a_callback_that_leaves_the_program_leaves_the_others_for_the_next_wait(wq: workq.WorkMgr) -> None:
    seen: list[int] = []

    def note(unit: Any, number: int) -> None:
        seen.append(number)
        if len(seen) == 2:
            raise SystemExit(3)

    for number in range(5):
        wq.queue_callback(abs, note, number)
    with pytest.raises(SystemExit):
        wq.sync(DEADLINE_S)
    wq.sync(DEADLINE_S)
    assert sorted(seen) == list(range(5))


# ---------------------------------------------------------------- Ctrl-C


def test_ctrl_c_in_sync_says_how_many_it_cancelled_without_our_frames() -> None:
    ended = application(
        """
        import os, signal, threading, time, traceback, workq
        from concurrent import futures

        if __name__ == "__main__":
            wq = workq.WorkMgr(1)
            units = [wq.queue(time.sleep, 600) for _ in range(3)]
            while not units[0].running():
                pass
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                wq.sync()
            except KeyboardInterrupt as error:
                print(*error.__notes__)
                frames = traceback.extract_tb(error.__traceback__)
                print({frame.filename for frame in frames if "/controller/" in frame.filename})
            futures.wait(units, 20)
            print(wq.queue(abs, -1).result(60), [unit.cancelled() for unit in units])
            wq.close()
        """
    )
    lines = ended.stdout.splitlines()
    assert lines[0] == "workq: 3 units of queue Default-1 that had not ended are cancelled", ended.stderr
    assert lines[1] == "set()"
    assert lines[2] == "1 [True, True, True]"


def test_after_ctrl_c_in_sync_nobody_is_told_to_call_sync() -> None:
    ended = application(
        """
        import os, signal, threading, time, workq

        if __name__ == "__main__":
            wq = workq.WorkMgr(2, delete_timeout=0.2)
            units = [wq.queue(time.sleep, 600) for _ in range(5)]
            while not units[0].running():
                pass
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            wq.sync()
        """
    )
    assert "workq: 5 units of queue Default-1 that had not ended are cancelled" in ended.stderr
    assert "dropped" not in ended.stderr


def test_ctrl_c_in_result_has_but_two_of_our_frames() -> None:
    ended = application(
        """
        import os, signal, threading, time, traceback, workq

        if __name__ == "__main__":
            wq = workq.WorkMgr(1, delete_timeout=0.2)
            unit = wq.queue(time.sleep, 600)
            while not unit.running():
                pass
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                unit.result()
            except KeyboardInterrupt as error:
                print([frame.name for frame in traceback.extract_tb(error.__traceback__)])
            wq.close()
        """
    )
    assert ended.stdout.splitlines() == ["['<module>', 'result', 'wait_unit']"], ended.stderr


def test_ctrl_c_in_a_callback_cancels_too_and_the_callback_is_not_made_again(busy: workq.WorkMgr, tmp_path: Path) -> None:
    seen: list[Any] = []

    def strike(unit: Any, number: int) -> None:
        seen.append(unit)
        raise KeyboardInterrupt

    with Held(busy, tmp_path) as held:
        busy.queue_callback(abs, strike, 1)
        with pytest.raises(KeyboardInterrupt):
            busy.sync(DEADLINE_S)
        wait_until(held.unit.done)
    busy.sync(DEADLINE_S)
    assert len(seen) == 1
    assert held.unit.cancelled()


# ---------------------------------------------------------------- a hint


def add(a: int, b: int = 0) -> int:
    return a + b


def calls_wrongly(**kwargs: Any) -> int:
    return add(1, timeout=3)


def test_an_option_that_was_given_to_the_function_is_hinted_at(wq: workq.WorkMgr) -> None:
    for option in ("timeout", "retries", "priority", "queue_timeout"):
        error = wq.queue(add, 1, **{option: 3}).exception(DEADLINE_S)
        assert error is not None
        assert error.__notes__ == [f"if {option} was meant for the unit, and not for add: options({option}=...).queue(...)"]
    local = wq.queue(lambda n: n, 1, timeout=3).exception(DEADLINE_S)  # type: ignore[misc]
    assert "options(timeout=...)" in local.__notes__[0]
    builtin = wq.queue(hash, 1, timeout=3).exception(DEADLINE_S)  # type: ignore[call-arg]
    assert "options of the unit are given by options(...)" in builtin.__notes__[0]
    for other in (wq.queue(add, 1, bb=3), wq.queue(calls_wrongly, timeout=3), wq.queue(add, "x")):  # type: ignore[call-arg, arg-type]
        assert not hasattr(other.exception(DEADLINE_S), "__notes__")


def test_the_hint_knows_all_options() -> None:
    import inspect

    from workq.given.arguments import OPTIONS

    assert set(OPTIONS) == set(inspect.signature(workq.WorkMgr.options).parameters) - {"self"}
