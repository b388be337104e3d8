"""pause, resume, clear, and sync(stop_on_error=True): a queue is held up, or emptied, and stays usable."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

import workq
from tests.support import DEADLINE_S, application, wait_until
from tests.system.held import Held, deaf, hold, spin
from workq.errors import ArgumentError

pytestmark = pytest.mark.slow


def fail(text: str) -> None:
    raise LookupError(text)


def fail_until(path: str, times: int) -> int:
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) < times:
        raise LookupError
    return os.path.getsize(path)


def hold_and_fail(fifo: str) -> None:
    hold(fifo)
    raise LookupError("first")


def hold_or_fail(fifo: str, path: str) -> None:
    """Wait for the fifo's other end to close, then fail; leave a sign of each try."""
    with open(path, "a") as file:
        file.write("x")
    with open(fifo, "rb") as end:
        end.read()
    raise LookupError


# ---------------------------------------------------------------- pause and resume


def test_a_paused_queue_gives_out_no_new_unit_until_it_is_resumed(wq: workq.WorkMgr) -> None:
    assert wq.queue(abs, -1).result(DEADLINE_S) == 1
    assert wq.pause() is True
    assert wq.paused
    units = [wq.queue(abs, -n) for n in range(20)]
    with pytest.raises(TimeoutError, match="it is paused"):
        wq.sync(0.02)
    assert {unit.state.value for unit in units} == {"queued"}
    assert "paused" in repr(wq)
    threading.Timer(0.01, wq.resume).start()
    assert wq.sync(DEADLINE_S).done == 21
    assert not wq.paused


def test_pause_never_stops_what_runs_and_waits_for_it(busy: workq.WorkMgr, tmp_path: Path) -> None:
    with Held(busy, tmp_path) as held:
        behind = [busy.queue(abs, -n) for n in range(50)]
        assert busy.pause() is False
        assert busy.pause(0.01) is False
        wait_until(lambda: all(unit.done() or unit.state.value == "queued" for unit in behind))
        assert held.unit.running()
        threading.Timer(0.02, held.let_go).start()
        assert busy.pause(DEADLINE_S) is True
        assert held.unit.done()
    busy.resume()
    assert [unit.result(DEADLINE_S) for unit in behind] == list(range(50))


def test_what_was_sent_and_not_begun_is_taken_back_by_pause(busy: workq.WorkMgr, tmp_path: Path) -> None:
    for number in range(200):
        busy.queue(abs, number).result(DEADLINE_S)  # short: units are sent ahead
    with Held(busy, tmp_path, spin), Held(busy, tmp_path, spin):  # nobody stands in for those that compute
        units = [busy.queue(abs, -n) for n in range(100)]
        assert busy.pause() is False
        assert {unit.state.value for unit in units} == {"queued"}
        assert busy.statistics().running == 2
        assert busy.statistics().queued == 100
    assert busy.pause(DEADLINE_S) is True
    assert not [unit for unit in units if unit.done()]
    busy.resume()
    assert [unit.result(DEADLINE_S) for unit in units] == list(range(100))


def test_pause_takes_back_what_a_worker_that_does_not_answer_was_sent(controller: workq.Controller) -> None:
    with workq.WorkMgr(1, controller=controller) as wq:
        for number in range(100):
            last = wq.queue(os.getpid)
            assert last.result(DEADLINE_S), number
        os.kill(last.result(), signal.SIGSTOP)
        try:
            units = [wq.queue(abs, -n) for n in range(5)]
            assert "sent" in {unit.state.value for unit in units}
            assert wq.pause() is True
            assert {unit.state.value for unit in units} == {"queued"}
        finally:
            os.kill(last.result(), signal.SIGCONT)
        wq.resume()
        assert [unit.result(DEADLINE_S) for unit in units] == list(range(5))


def test_pause_and_resume_before_the_first_unit_and_twice(wq: workq.WorkMgr) -> None:
    wq.resume()
    assert wq.pause() is wq.pause(1.0) is True
    unit = wq.queue(abs, -1)
    assert wq.wait(0) is False
    wq.resume()
    wq.resume()
    assert unit.result(DEADLINE_S) == 1


def test_a_pause_leaves_other_queues_alone_and_their_workers(controller: workq.Controller, busy: workq.WorkMgr) -> None:
    assert busy.pause() is True
    unit = busy.queue(abs, -1)
    with workq.WorkMgr(2, controller=controller) as other:
        assert list(other.map(abs, range(-50, 0))) == list(range(50, 0, -1))
    assert unit.state.value == "queued"


def test_a_unit_of_a_paused_queue_can_be_cancelled(wq: workq.WorkMgr) -> None:
    wq.pause()
    units = [wq.queue(abs, -n) for n in range(3)]
    assert units[1].cancel()
    wq.resume()
    assert wq.sync(DEADLINE_S).done == 2
    assert [unit.cancelled() for unit in units] == [False, True, False]


def test_leaving_with_resumes_a_paused_queue(controller: workq.Controller) -> None:
    with workq.WorkMgr(1, controller=controller) as wq:
        wq.pause()
        unit = wq.queue(abs, -1)
    assert unit.result() == 1


def test_a_paused_queue_can_be_closed(wq: workq.WorkMgr) -> None:
    wq.pause()
    unit = wq.queue(abs, -1)
    wq.close()
    assert unit.cancelled()
    wq.resume()


def test_many_pauses_in_the_middle_of_short_units_lose_none(busy: workq.WorkMgr) -> None:
    units = []
    for _ in range(30):
        units += [busy.queue(abs, -n) for n in range(40)]
        assert busy.pause(DEADLINE_S) is True
        waiting = [unit for unit in units if not unit.done()]
        assert {unit.state.value for unit in waiting} <= {"queued"}
        busy.resume()
    assert [unit.result(DEADLINE_S) for unit in units] == list(range(40)) * 30
    assert busy.sync(DEADLINE_S).done == 1200


def test_a_queue_that_is_drained_at_the_exit_is_resumed() -> None:
    ended = application(
        """
        import workq
        wq = workq.WorkMgr(1, at_exit="drain")
        wq.queue(abs, 1).result()
        wq.pause()
        wq.queue(print, "drained")
        """
    )
    assert ended.stdout == "drained\n", ended.stderr


@pytest.mark.parametrize("timeout", ["1", float("nan"), True])
def test_a_pause_names_a_timeout_that_is_none(timeout: Any, wq: workq.WorkMgr) -> None:
    with pytest.raises(ArgumentError, match="timeout"):
        wq.pause(timeout)
    assert not wq.paused


# ---------------------------------------------------------------- clear


def test_clear_drops_the_queued_units_and_the_queue_stays_usable(wq: workq.WorkMgr) -> None:
    seen: list[Any] = []
    wq.pause()
    units = [wq.queue_callback(abs, lambda unit, number: seen.append(number), n) for n in range(30)]
    assert wq.clear() == 30
    assert all(unit.cancelled() for unit in units)
    with pytest.raises(workq.UnitCancelled, match="cleared"):
        units[0].result()
    assert wq.wait_one() is None
    assert (wq.statistics().queued, wq.statistics().uncollected, wq.statistics().cancelled) == (0, 0, 30)
    wq.resume()
    assert wq.queue(abs, -1).result(DEADLINE_S) == 1
    wq.sync(DEADLINE_S)
    assert not seen


def test_clear_waits_for_what_runs(busy: workq.WorkMgr, tmp_path: Path) -> None:
    with Held(busy, tmp_path) as held, Held(busy, tmp_path) as other:
        busy.pause()  # else another worker may stand in for those that wait
        units = [busy.queue(abs, n) for n in range(10)]
        threading.Timer(0.02, held.let_go).start()
        threading.Timer(0.02, other.let_go).start()
        assert busy.clear(DEADLINE_S) == 10
        assert not held.unit.cancelled()
        assert not other.unit.cancelled()
        assert all(unit.cancelled() for unit in units)


def test_clear_interrupts_what_runs_for_longer_and_kills_what_does_not_hear(busy: workq.WorkMgr, tmp_path: Path) -> None:
    before = busy.metrics()
    with Held(busy, tmp_path) as held, Held(busy, tmp_path, deaf) as mute:
        busy.pause()
        waiting = busy.queue(abs, 1)
        assert busy.clear(0.02) == 3
        assert [unit.cancelled() for unit in (held.unit, mute.unit, waiting)] == [True] * 3
    assert busy.metrics().workers_killed > before.workers_killed
    busy.resume()
    assert busy.queue(abs, -1).result(DEADLINE_S) == 1
    busy.sync(DEADLINE_S)


def test_what_clear_drops_does_not_come_again_by_retries(busy: workq.WorkMgr, tmp_path: Path) -> None:
    path, fifo = tmp_path / "tries", tmp_path / "fifo"
    os.mkfifo(fifo)
    unit = busy.options(retries=5).queue(hold_or_fail, str(fifo), str(path))
    with open(fifo, "wb") as end:
        threading.Timer(0.02, end.close).start()
        busy.clear(DEADLINE_S)
    assert unit.done()
    assert path.read_text() == "x"


def test_failures_that_clear_forgets_are_told_in_the_log(wq: workq.WorkMgr, caplog: pytest.LogCaptureFixture) -> None:
    wq.queue(fail, "nobody asks")
    wq.queue(abs, 1).result(DEADLINE_S)
    wait_until(lambda: wq.statistics().failed == 1)
    with caplog.at_level("WARNING", "workq"):
        wq.clear()
    assert "nobody asks" in caplog.text
    wq.sync(DEADLINE_S)


def test_clear_of_an_unused_queue_of_an_empty_one_and_of_a_closed_one_does_nothing(wq: workq.WorkMgr) -> None:
    assert wq.clear() == 0
    wq.queue(abs, 1)
    wq.sync(DEADLINE_S)
    assert wq.clear() == 0
    wq.close()
    assert wq.clear() == 0


def test_units_that_others_queue_while_a_queue_is_cleared_stay(busy: workq.WorkMgr, tmp_path: Path) -> None:
    with Held(busy, tmp_path) as held, Held(busy, tmp_path) as other:
        cleared = threading.Thread(target=busy.clear, args=(DEADLINE_S,))
        busy.pause()
        dropped = busy.queue(abs, 1)
        cleared.start()
        wait_until(dropped.done)
        kept = busy.queue(abs, -2)
        busy.resume()
        wait_until(kept.done)  # another worker stands in for those that wait
        held.let_go()
        other.let_go()
        cleared.join(DEADLINE_S)
    assert busy.wait_one(DEADLINE_S) is kept
    assert kept.result() == 2


def test_a_callback_may_clear_its_queue(wq: workq.WorkMgr) -> None:
    seen: list[int] = []

    def note(unit: Any, number: int) -> None:
        seen.append(number)
        wq.clear()

    for number in range(20):
        wq.queue_callback(abs, note, number)
    wq.sync(DEADLINE_S)
    assert len(seen) == 1
    assert wq.queue(abs, -1).result(DEADLINE_S) == 1


@pytest.mark.parametrize("timeout", [-1, "1", None, float("inf")])
def test_clear_names_a_timeout_that_is_none(timeout: Any, wq: workq.WorkMgr) -> None:
    with pytest.raises(ArgumentError, match="timeout"):
        wq.clear(timeout)


# ---------------------------------------------------------------- in a unit


def hold_up_inside() -> dict[str, Any]:
    """Pause, resume and clear a queue of a unit's own."""
    wq = workq.WorkMgr(2)
    seen: dict[str, Any] = {"unused": wq.pause()}
    units = [wq.queue(abs, -n) for n in range(10)]
    seen["held"] = wq.wait(0.05), [unit.done() for unit in units].count(True)
    wq.resume()
    seen["resumed"] = [unit.result(DEADLINE_S) for unit in units]
    long = wq.queue(signal.pause)
    wq.pause()  # else the second worker may have run the others before the queue is cleared
    dropped = [wq.queue(abs, n) for n in range(5)]
    seen["cleared"] = wq.clear(0.05), [unit.cancelled() for unit in (long, *dropped)].count(True)
    seen["still"] = wq.pause(DEADLINE_S)
    wq.resume()
    seen["after"] = wq.queue(abs, -3).result(DEADLINE_S)
    wq.queue(fail, "first")
    blocked = wq.queue(signal.pause)
    try:
        wq.sync(DEADLINE_S, stop_on_error=True)
    except workq.WorkErrors as error:
        seen["stopped"] = [type(one).__name__ for one in error.exceptions], blocked.cancelled()
    wq.close()
    return seen


def test_a_queue_of_a_unit_can_be_held_up_and_cleared(busy: workq.WorkMgr) -> None:
    seen = busy.queue(hold_up_inside).result(DEADLINE_S)
    assert seen["unused"] is True
    assert seen["held"] == (False, 0)
    assert seen["resumed"] == list(range(10))
    assert seen["cleared"] == (6, 6)
    assert seen["still"] is True
    assert seen["after"] == 3
    assert seen["stopped"] == (["LookupError"], True)


# ---------------------------------------------------------------- stop_on_error


def test_the_first_failure_drops_what_waits_interrupts_what_runs_and_is_raised(busy: workq.WorkMgr, tmp_path: Path) -> None:
    with Held(busy, tmp_path) as held, Held(busy, tmp_path, hold_and_fail) as failing:
        waiting = [busy.queue(signal.pause) for _ in range(6)]
        threading.Timer(0.02, failing.let_go).start()
        with pytest.raises(workq.WorkErrors, match=r"1 unit of queue face failed, and 7 others were cancelled") as caught:
            busy.sync(DEADLINE_S, stop_on_error=True)
        assert [str(error) for error in caught.value.exceptions] == ["first"]
        assert held.unit.cancelled()
        assert all(unit.cancelled() for unit in waiting)
    assert busy.queue(abs, -1).result(DEADLINE_S) == 1
    assert busy.sync(DEADLINE_S, stop_on_error=True).failed == 1


@pytest.mark.parametrize("value", [1, "yes", None, []])
def test_stop_on_error_is_true_or_false_and_nothing_else(value: Any, wq: workq.WorkMgr) -> None:
    with pytest.raises(ArgumentError, match=r"^stop_on_error must be True or False, not"):
        wq.sync(stop_on_error=value)


def test_stop_on_error_stops_the_units_of_a_queue_without_workers(controller: workq.Controller) -> None:
    wq = workq.WorkMgr(0, controller=controller)
    first, bad, last = wq.queue(abs, -1), wq.queue(fail, "no"), wq.queue(abs, -2)
    with pytest.raises(workq.WorkErrors, match="and 1 other was cancelled"):
        wq.sync(stop_on_error=True)
    assert (first.result(), bad.done(), last.cancelled()) == (1, True, True)
    wq.close()


def test_a_failure_from_before_stops_at_once_and_one_that_was_asked_for_does_not(busy: workq.WorkMgr) -> None:
    asked = busy.queue(fail, "asked")
    assert isinstance(asked.exception(DEADLINE_S), LookupError)
    after = busy.queue(abs, -1)
    assert busy.sync(DEADLINE_S, stop_on_error=True).done == 1
    assert after.done()
    busy.queue(fail, "unasked")
    wait_until(lambda: busy.statistics().failed == 2)
    long = busy.queue(signal.pause)
    with pytest.raises(workq.WorkErrors, match="unasked"):
        try:
            busy.sync(DEADLINE_S, stop_on_error=True)
        except workq.WorkErrors as errors:
            raise workq.WorkErrors(str(errors.exceptions[0]), errors.exceptions) from None
    assert long.cancelled()


def test_a_callback_that_raises_stops_too(wq: workq.WorkMgr) -> None:
    def note(unit: Any, number: int) -> None:
        raise ValueError(number)

    wq.queue_callback(abs, note, 1)
    if wq.num_workers:
        wq.queue(signal.pause)
    last = wq.options(priority=-1).queue(signal.pause)
    with pytest.raises(workq.WorkErrors) as caught:
        wq.sync(DEADLINE_S, stop_on_error=True)
    assert [type(error) for error in caught.value.exceptions] == [ValueError]
    assert last.cancelled()


def test_a_lost_unit_and_one_that_timed_out_stop_too(busy: workq.WorkMgr) -> None:
    for bad in (lambda: busy.queue(os._exit, 3), lambda: busy.options(timeout=0.02).queue(signal.pause)):
        long = busy.queue(signal.pause)
        bad()
        with pytest.raises(workq.WorkErrors):
            busy.sync(DEADLINE_S, stop_on_error=True)
        assert long.cancelled()


def test_without_stop_on_error_all_units_run_whatever_fails(wq: workq.WorkMgr) -> None:
    for number in range(10):
        wq.queue(fail, "no") if number % 2 else wq.queue(abs, number)
    with pytest.raises(workq.WorkErrors):
        wq.sync(DEADLINE_S)
    assert (wq.statistics().done, wq.statistics().failed, wq.statistics().cancelled) == (5, 5, 0)


def test_a_retry_that_may_still_succeed_does_not_stop(busy: workq.WorkMgr, tmp_path: Path) -> None:
    unit = busy.options(retries=5).queue(fail_until, str(tmp_path / "tries"), 3)
    busy.sync(DEADLINE_S, stop_on_error=True)
    assert unit.result() == 3
