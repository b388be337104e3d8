"""detach and attach, cleanup, and queues that nobody can reach any more."""

from __future__ import annotations

import gc
import os
import threading
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


# ---------------------------------------------------------------- detach and attach


def test_work_goes_on_without_the_object_and_the_token_gives_it_back(controller: workq.Controller, tmp_path: Path) -> None:
    wq = workq.WorkMgr(1, name="given", delete_timeout=0.5, controller=controller)
    with Held(wq, tmp_path) as held:
        waiting = wq.queue(abs, -2)
        token = wq.detach()
        del wq
        gc.collect()
        assert held.unit.running()
    assert waiting.result(DEADLINE_S) == 2
    with workq.WorkMgr.attach(token) as again:
        assert (again.name, again.delete_timeout, again.num_workers) == ("given", 0.5, 1)
        assert again.queue(abs, -3).result(DEADLINE_S) == 3
        assert {unit.id for unit in again.as_completed(DEADLINE_S)} == {held.unit.id}  # the other one was asked for
        assert again.sync(DEADLINE_S).done == 3


def test_output_and_callbacks_are_kept_for_the_one_who_attaches(wq: workq.WorkMgr, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[str] = []
    unit = wq.queue_callback(print, lambda unit, text: seen.append(text), "printed")
    wq.queue(fail, "kept")
    token = wq.detach()
    unit.result(DEADLINE_S)
    assert (capsys.readouterr().out, seen) == ("", [])
    again = workq.WorkMgr.attach(token)
    with pytest.raises(workq.WorkErrors, match="1 unit"):
        again.sync(DEADLINE_S)
    assert (capsys.readouterr().out, seen) == ("printed\n", ["printed"])
    again.close()


def test_tokens_are_secret_long_and_never_the_same(controller: workq.Controller) -> None:
    tokens = []
    for _ in range(50):
        wq = workq.WorkMgr(1, controller=controller)
        tokens.append(wq.detach())
    assert len(set(tokens)) == 50
    assert min(len(set(token)) for token in tokens) > 15
    assert all(len(token) * 6 >= 256 for token in tokens)  # 6 bits in each character
    for token in tokens:
        workq.WorkMgr.attach(token).close()


def test_most_calls_on_the_detached_object_raise_and_its_counts_are_minus_1(wq: workq.WorkMgr) -> None:
    view = wq.options(priority=1)
    wq.queue(abs, 1)
    token = wq.detach()
    calls: list[Any] = [
        lambda: wq.queue(abs, 1),
        lambda: view.queue(abs, 1),
        lambda: view.queue_callback(abs, print, 1),
        lambda: wq.queue_callback(abs, print, 1),
        lambda: list(wq.map(abs, [1])),
        lambda: list(view.map(abs, [1])),
        lambda: wq.options(priority=2).queue(abs, 1),
        wq.sync,
        wq.wait,
        wq.wait_one,
        lambda: list(wq.as_completed()),
        wq.pause,
        wq.resume,
        wq.clear,
        wq.statistics,
        wq.detach,
        lambda: wq.cleanup(print),
        lambda: wq.delete_timeout,
        lambda: setattr(wq, "delete_timeout", 1.0),
    ]
    for number, call in enumerate(calls):
        with pytest.raises(workq.QueueDetached, match=r"face was detached.*attach\(token\)"):
            pytest.fail(f"call {number} returned {call()!r}")
    assert (wq.num_workers, wq.num_active_workers, wq.name, wq.category) == (-1, -1, "face", "Default")
    assert repr(wq) == "<WorkMgr face: detached>"
    wq.close()
    with wq:
        pass
    with workq.WorkMgr.attach(token) as again:
        assert again.sync(DEADLINE_S).done == 1


def test_leaving_with_after_a_detach_leaves_the_work_alone(controller: workq.Controller, tmp_path: Path) -> None:
    with workq.WorkMgr(1, controller=controller) as wq, Held(wq, tmp_path) as held:
        token = wq.detach()
    again = workq.WorkMgr.attach(token)
    assert held.unit.result(DEADLINE_S)
    again.close()


@pytest.mark.parametrize("token", ["", "nonsense", "\ud800", "x" * 100_000, None, 7, b"bytes"])
def test_a_token_of_no_queue_is_refused_and_says_so(token: Any) -> None:
    with pytest.raises(workq.TokenError, match="no token of a queue that was detached in this process"):
        workq.WorkMgr.attach(token)


def test_a_token_is_good_once(wq: workq.WorkMgr) -> None:
    token = wq.detach()
    again = workq.WorkMgr.attach(token)
    with pytest.raises(workq.TokenError, match="face has been used"):
        workq.WorkMgr.attach(token)
    other = again.detach()
    assert other != token
    workq.WorkMgr.attach(other).close()


def test_of_many_threads_one_attaches(wq: workq.WorkMgr) -> None:
    token = wq.detach()
    won: list[Any] = []
    lost: list[Exception] = []
    gate = threading.Barrier(8)

    def attach() -> None:
        gate.wait()
        try:
            won.append(workq.WorkMgr.attach(token))
        except workq.TokenError as error:
            lost.append(error)

    threads = [threading.Thread(target=attach) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert (len(won), len(lost)) == (1, 7)
    won[0].close()


def test_a_token_that_expires_deletes_its_queue_and_what_runs_in_it(controller: workq.Controller, tmp_path: Path) -> None:
    before = controller.metrics().inactive_queues
    wq = workq.WorkMgr(1, name="late", delete_timeout=0.05, controller=controller)
    with Held(wq, tmp_path, deaf) as held:
        waiting = wq.queue(abs, 1)
        token = wq.detach(timeout=0.05)
        wait_until(lambda: held.unit.done() and waiting.done())
        assert held.unit.cancelled()
        with pytest.raises(workq.UnitCancelled, match="nobody has attached it in time"):
            waiting.result()
    with pytest.raises(workq.TokenError, match="expired, and queue late was deleted"):
        workq.WorkMgr.attach(token)
    assert controller.metrics().inactive_queues == before + 1


def test_a_token_expires_without_workers_too(controller: workq.Controller) -> None:
    for number, queued in ((0, True), (1, False)):
        wq = workq.WorkMgr(number, controller=controller)
        unit = wq.queue(abs, -1) if queued else None
        token = wq.detach(timeout=1e-9)
        if unit is not None:
            with pytest.raises(workq.UnitCancelled):
                unit.result()
        with pytest.raises(workq.TokenError, match="expired"):
            workq.WorkMgr.attach(token)


def test_an_attached_queue_expires_no_more(controller: workq.Controller, wq: workq.WorkMgr) -> None:
    wq.queue(abs, 1).result(DEADLINE_S)
    token = wq.detach(timeout=0.5)
    again = workq.WorkMgr.attach(token)
    other = workq.WorkMgr(1, controller=controller)
    other.queue(abs, 1).result(DEADLINE_S)
    late = other.detach(timeout=0.5)  # it is due after the other
    wait_until(lambda: is_over(late))
    assert again.queue(abs, -1).result(DEADLINE_S) == 1
    again.close()


def is_over(token: str) -> bool:
    """Whether a token has expired; it is not used up by the question."""
    from workq.face.detaching import _key, _tickets

    return _key(token) not in _tickets._open


@pytest.mark.parametrize("timeout", [0, -1, "1", None, float("inf"), True])
def test_a_detach_names_a_timeout_that_is_none(timeout: Any, wq: workq.WorkMgr) -> None:
    with pytest.raises(ArgumentError, match="timeout"):
        wq.detach(timeout)
    assert wq.sync().done == 0


def test_a_closed_queue_cannot_be_detached_and_one_whose_controller_is_closed_cannot_be_attached() -> None:
    with workq.Controller() as controller:
        wq, other = workq.WorkMgr(1, controller=controller), workq.WorkMgr(1, controller=controller)
        wq.close()
        with pytest.raises(workq.QueueClosed):
            wq.detach()
        token = other.detach()
    with pytest.raises(workq.TokenError, match="with its controller"):
        workq.WorkMgr.attach(token)


def detach_inside() -> list[str]:
    errors = []
    for number in (0, 1):
        wq = workq.WorkMgr(number)
        for call in (wq.detach, lambda wq=wq: wq.cleanup(print)):
            try:
                call()
                errors.append("none")
            except workq.WorkqError as error:
                errors.append(str(error))
        wq.close()
    return errors


def test_a_unit_cannot_detach_its_queues_and_is_told_why(busy: workq.WorkMgr) -> None:
    errors = busy.queue(detach_inside).result(DEADLINE_S)
    assert ["ends with the unit" in error for error in errors] == [True, False, True, True]  # without workers there may be a cleanup
    assert errors[1] == "none"


def test_a_fork_of_the_process_cannot_attach() -> None:
    ended = application(
        """
        import os, workq
        wq = workq.WorkMgr(0)
        token = wq.detach()
        child = os.fork()
        if not child:
            try:
                workq.WorkMgr.attach(token)
            except workq.TokenError as error:
                print(error, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        again = workq.WorkMgr.attach(token)
        print(again.queue(abs, -1).result())
        """
    )
    assert ended.stdout.splitlines() == ["this is no token of a queue that was detached in this process", "1"], ended.stderr


def test_a_detached_queue_ends_with_the_process_and_that_is_said() -> None:
    ended = application(
        """
        import time, workq
        if __name__ == "__main__":
            wq = workq.WorkMgr(1)
            unit = wq.queue(time.sleep, 600)
            wq.detach()
            while not unit.running():
                pass
        """
    )
    assert ended.returncode == 0
    assert "1 unit that had not ended is dropped" in ended.stderr


# ---------------------------------------------------------------- cleanup


def test_cleanup_makes_deletion_asynchronous_and_is_called_once_when_nothing_runs(busy: workq.WorkMgr, tmp_path: Path) -> None:
    gone = threading.Event()
    seen: list[Any] = []
    with Held(busy, tmp_path, deaf) as held:

        def note(word: str) -> None:
            seen.append((word, held.unit.done(), threading.current_thread().name))
            gone.set()

        busy.cleanup(note, "gone")
        busy.delete_timeout = 60
        busy.close()
        assert not held.unit.done()
        assert not seen
        held.let_go()
        assert gone.wait(DEADLINE_S)
    assert seen == [("gone", True, "face-delivery")]
    busy.close()
    assert len(seen) == 1


def test_cleanup_is_called_after_with_after_the_last_reference_and_for_an_unused_queue(controller: workq.Controller) -> None:
    for number in (1, 0):
        gone = [threading.Event() for _ in range(4)]
        with workq.WorkMgr(number, controller=controller) as wq:
            wq.cleanup(gone[0].set)
            wq.cleanup(gone[1].set)
            wq.queue(abs, 1)
        dropped = workq.WorkMgr(number, controller=controller)
        dropped.queue(abs, 1).result(DEADLINE_S)
        dropped.cleanup(gone[2].set)
        del dropped
        unused = workq.WorkMgr(number, controller=controller)
        unused.cleanup(gone[3].set)
        unused.close()
        assert [one.wait(DEADLINE_S) for one in gone] == [True] * 4


def test_a_cleanup_that_raises_is_logged_and_hinders_no_other(wq: workq.WorkMgr, caplog: pytest.LogCaptureFixture) -> None:
    gone = threading.Event()
    wq.cleanup(fail, "in a cleanup")
    wq.cleanup(gone.set)
    wq.queue(abs, 1).result(DEADLINE_S)
    wq.close()
    assert gone.wait(DEADLINE_S)
    assert "in a cleanup" in caplog.text


def test_cleanup_is_called_when_the_controller_is_closed() -> None:
    gone = [threading.Event(), threading.Event()]
    with workq.Controller() as controller:
        used, unused = workq.WorkMgr(1, controller=controller), workq.WorkMgr(1, controller=controller)
        used.cleanup(gone[0].set)
        unused.cleanup(gone[1].set)
        used.queue(abs, 1).result(DEADLINE_S)
    assert gone[0].wait(DEADLINE_S)
    unused.close()
    assert gone[1].wait(DEADLINE_S)


def test_what_is_no_cleanup_and_one_for_a_closed_queue_are_refused(wq: workq.WorkMgr) -> None:
    with pytest.raises(ArgumentError, match="fn"):
        wq.cleanup(7)  # type: ignore[arg-type]
    wq.close()
    with pytest.raises(workq.QueueClosed):
        wq.cleanup(print)


def test_the_output_of_a_queue_with_a_cleanup_is_not_lost(controller: workq.Controller, capfd: pytest.CaptureFixture[str]) -> None:
    gone = threading.Event()
    wq = workq.WorkMgr(1, controller=controller)
    wq.cleanup(gone.set)
    unit = wq.queue(os.system, "echo said")
    wait_until(unit.done)
    wq.close()
    assert gone.wait(DEADLINE_S)
    assert capfd.readouterr().out == "said\n"


# ---------------------------------------------------------------- inactive queues


def test_a_queue_that_nobody_can_reach_is_found_and_deleted(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    settings = workq.config.Settings(heartbeat_s=0.02, inactive_check_s=0.02)
    with workq.Controller(settings=settings) as controller:
        wq = workq.WorkMgr(1, name="lost", controller=controller)
        kept = workq.WorkMgr(1, name="kept", controller=controller)
        kept.queue(abs, 1).result(DEADLINE_S)
        with Held(wq, tmp_path) as held:
            wq._finalizer.detach()  # as where an exception of a signal handler struck it
            del wq
            gc.collect()
            wait_until(held.unit.done)
        assert held.unit.cancelled()
        wait_until(lambda: controller.metrics().inactive_queues == 1)
        assert "queue lost is deleted, with 1 units" in caplog.text
        assert kept.queue(abs, -1).result(DEADLINE_S) == 1
        kept.close()
