"""What people get wrong: names with a letter missing, times that cannot be, things in the place of their names. Each is told at once."""

from __future__ import annotations

import copy
import math
import pickle
import time
from collections.abc import Callable
from typing import Any

import pytest

import workq
from tests.support import DEADLINE_S, application
from workq.adapters.executor import Executor

BELOW_0: dict[str, Callable[[workq.WorkMgr], object]] = {
    "sync": lambda wq: wq.sync(-1),
    "wait": lambda wq: wq.wait(-1),
    "wait_one": lambda wq: wq.wait_one(-0.5),
    "as_completed": lambda wq: wq.as_completed(-1),
    "completed": lambda wq: wq.completed(-1),
    "map": lambda wq: wq.map(abs, [1], timeout=-1),
    "pause": lambda wq: wq.pause(-1),
    "clear": lambda wq: wq.clear(-1),
    "Lock.acquire": lambda wq: workq.Lock("a").acquire(timeout=-3),
    "Event.wait": lambda wq: workq.Event("a").wait(-3),
}


@pytest.mark.parametrize("wait", BELOW_0.values(), ids=BELOW_0)
def test_a_time_below_0_is_refused_by_name(wait: Callable[[workq.WorkMgr], object], wq: workq.WorkMgr) -> None:
    with pytest.raises(workq.ArgumentError, match=r"^timeout must be a number of seconds of 0 or more"):
        wait(wq)


def test_a_unit_takes_a_time_below_0_as_any_future_does(busy: workq.WorkMgr) -> None:
    unit = busy.queue(time.sleep, 60)
    with pytest.raises(TimeoutError):
        unit.result(-5)
    with pytest.raises(TimeoutError):
        unit.exception(-5)
    unit.cancel()


# ---------------------------------------------------------------- what a time-out says


OUT_OF_TIME: dict[str, Callable[[workq.WorkMgr], object]] = {
    "sync": lambda wq: wq.sync(0.03),
    "sync with output": lambda wq: (wq.queue(print, "x"), wq.sync(0.03)),
    "wait_one": lambda wq: wq.wait_one(0.03),
    "as_completed": lambda wq: list(wq.as_completed(0.03)),
    "map": lambda wq: list(wq.map(time.sleep, [60], timeout=0.03)),
}


@pytest.mark.parametrize("wait", OUT_OF_TIME.values(), ids=OUT_OF_TIME)
def test_a_wait_that_took_too_long_says_the_time_that_it_was_given(wait: Callable[[workq.WorkMgr], object], busy: workq.WorkMgr) -> None:
    busy.queue(time.sleep, 60)
    with pytest.raises(TimeoutError, match=r"after 0\.03 s; it goes on"):
        while True:  # units of before may have to be handed out
            wait(busy)


def test_a_unit_that_took_too_long_says_the_time_that_it_was_given_also_where_others_print(busy: workq.WorkMgr) -> None:
    unit = busy.queue(time.sleep, 60)
    busy.queue(print, "x").add_done_callback(lambda unit: None)
    with pytest.raises(TimeoutError, match=r"after 0\.2 s; it goes on"):
        unit.result(0.2)


def test_a_map_of_an_executor_that_took_too_long_says_the_time_that_it_was_given() -> None:
    with Executor(1) as executor:
        results = executor.map(time.sleep, [60], timeout=0.05)
        with pytest.raises(TimeoutError, match=r"after 0\.05 s; it goes on"):
            next(results)
        executor.work_queue.clear(0.0)


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["num_worker", "delete_time_out", "max_pendings"])
def test_a_name_that_a_queue_has_not_cannot_be_set(name: str, wq: workq.WorkMgr) -> None:
    with pytest.raises(AttributeError, match=name):
        setattr(wq, name, 3)
    with pytest.raises(AttributeError, match=name):
        setattr(wq.options(timeout=1), name, 3)
    with wq.session() as session, pytest.raises(AttributeError, match=name):
        setattr(session, name, 3)


def test_the_priority_of_a_unit_can_be_read_and_not_set(wq: workq.WorkMgr) -> None:
    unit = wq.options(priority=2).queue(abs, -1)
    with pytest.raises(AttributeError, match="priority"):
        unit.priority = 3  # type: ignore[misc]
    assert (unit.priority, unit.result(DEADLINE_S)) == (2, 1)


def test_completion_offers_public_names_only(wq: workq.WorkMgr) -> None:
    unit = wq.queue(abs, -1)
    assert unit.result(DEADLINE_S) == 1
    with wq.session() as session:
        things = {"queue": wq, "result": unit, "map": wq.options(timeout=1), "run": session, "every": session.options(timeout=1)}
        for name, thing in things.items():
            offered = dir(thing)
            assert name in offered
            assert not [each for each in offered if each.startswith("_")]
            for each in offered:
                assert getattr(type(thing), each, None) is not None, each
    assert {"id", "name", "state", "worker", "cancel"} < set(dir(unit))
    assert not {"call", "data", "extra", "value", "need_extra", "queued_ns", "set_result"} & set(dir(unit))
    assert "controller" in dir(wq)


def test_a_subclass_of_a_queue_may_have_names_of_its_own() -> None:
    class Mine(workq.WorkMgr):
        pass

    with Mine(0) as mine:
        mine.colour = "red"  # type: ignore[attr-defined]
        assert "colour" in dir(mine)


# ---------------------------------------------------------------- things in the place of others


def test_a_category_in_the_place_of_its_name_is_told_what_to_do() -> None:
    with pytest.raises(workq.CategoryError, match=r"add 'zz' with workq\.categories\(\)\.create\(\.\.\.\), or pass its name") as caught:
        workq.WorkMgr(category=workq.Category("zz"))  # type: ignore[arg-type]
    assert "max_active_workers" not in str(caught.value)


def test_default_workers_above_max_workers_are_clamped(controller: workq.Controller) -> None:
    controller.add_category(workq.Category("clamped", default_workers=4, max_workers=2))
    with workq.WorkMgr(category="clamped", controller=controller) as wq:
        assert wq.num_workers == 2


def test_a_category_that_is_put_in_the_place_of_another_keeps_nothing_of_it(controller: workq.Controller) -> None:
    controller.add_category(workq.Category("twice", max_units=5, max_workers=3))
    controller.add_category(workq.Category("twice", max_workers=4))
    assert controller.category("twice") == workq.Category("twice", max_workers=4)


def test_a_wrong_call_of_a_method_is_told_by_the_name_under_which_people_know_it(wq: workq.WorkMgr) -> None:
    for call in (lambda: wq.queue(), lambda: wq.sync(1, 2, 3), lambda: wq.pause(how=1)):  # type: ignore[call-arg, misc]
        with pytest.raises(TypeError, match=r"^WorkMgr\.(queue|sync|pause)\(\) "):
            call()
    assert pickle.loads(pickle.dumps(workq.WorkMgr.queue)) is workq.WorkMgr.queue


@pytest.mark.parametrize("kind", [workq.Lock, workq.Event])
def test_a_lock_without_a_name_is_told_so(kind: Any) -> None:
    with pytest.raises(TypeError, match=rf"{kind.__name__}\S*\(\) missing .* 'name'"):
        kind()


def test_a_start_method_in_the_place_of_a_context_is_told_how_to_have_that() -> None:
    with pytest.raises(workq.ArgumentError, match=r"multiprocessing\.get_context\('fork'\)"):
        Executor(mp_context="fork")  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [2, -0.1, "0.5", None, float("nan"), True])
def test_a_quantile_is_of_a_share_from_0_to_1(share: Any) -> None:
    with pytest.raises(workq.ArgumentError, match=r"^share must be a number from 0 to 1"):
        workq.Histogram(0, 0.0).quantile_s(share)


def test_metrics_of_a_category_that_is_not_there_name_those_that_are(controller: workq.Controller) -> None:
    categories = controller.metrics().categories
    with pytest.raises(workq.CategoryError, match=r"no category 'nope'; there are .*Default"):
        categories["nope"]
    assert "nope" not in categories
    assert categories.get("nope") is None


def test_a_queue_without_workers_that_nobody_holds_says_so() -> None:
    unit = workq.WorkMgr(0).queue(abs, -1)
    with pytest.raises(workq.UnitCancelled, match="nobody held its WorkMgr any more"):
        unit.result()


@pytest.mark.slow
def test_a_function_under_the_guard_is_told_where_to_define_it_in_the_last_line() -> None:
    ended = application(
        """
        import workq

        if __name__ == "__main__":
            def work():
                return 1

            with workq.WorkMgr(1) as wq:
                print(type(wq.queue(work).exception(60)).__name__, wq.queue(work).exception(60))
            with workq.Executor(1, initializer=work) as executor:
                print(executor.submit(abs, -1).exception(60))
        """
    )
    assert ended.returncode == 0, ended.stderr
    hint = "a worker imports the script without what stands under its guard: define it above that"
    first, second = ended.stdout.strip().split("\n", 1)
    assert first.startswith("AttributeError")
    assert first.endswith(hint)
    assert hint in second


# ---------------------------------------------------------------- handles that are sent


HANDLES: dict[str, Callable[[workq.WorkMgr], object]] = {
    "WorkMgr": lambda wq: wq,
    "View of queue": lambda wq: wq.options(priority=1),
    "Session": lambda wq: wq.session(),
    "SessionView of queue": lambda wq: wq.session().options(priority=1),
    "Controller": lambda wq: wq.controller,
    "recurring unit": lambda wq: wq.every(3600, abs, -1),
    "unit": lambda wq: wq.queue(abs, -1),
    "the iterator of a map": lambda wq: wq.map(abs, [1]),
    "the table of categories": lambda wq: wq.controller.categories,
}


@pytest.mark.parametrize(("what", "make"), HANDLES.items(), ids=HANDLES)
def test_a_handle_that_is_sent_or_copied_is_told_so(what: str, make: Callable[[workq.WorkMgr], object], busy: workq.WorkMgr) -> None:
    handle = make(busy)
    for send in (
        pickle.dumps,
        copy.copy,
        copy.deepcopy,
        lambda handle: busy.queue(print, handle),
        lambda handle: busy.queue(print, [handle]),
    ):
        with pytest.raises(workq.PicklingError, match=rf"(^|: ){what}.* is a handle that belongs to this process .*; (leave it out|send)"):
            send(handle)  # type: ignore[operator]


class Application:
    def __init__(self, wq: workq.WorkMgr) -> None:
        self.wq = wq

    def job(self) -> None: ...


class Careful(Application):
    def __getstate__(self) -> dict[str, object]:
        return {}


def test_a_method_whose_object_holds_the_queue_is_told_what_to_do_and_it_helps(wq: workq.WorkMgr) -> None:
    with pytest.raises(workq.PicklingError, match=r"function Application\.job: .*WorkMgr .* is a handle .*by __getstate__"):
        wq.queue(Application(wq).job)
    with pytest.raises(workq.PicklingError, match=r"'wq' of type workq\.manager\.WorkMgr: .*is a handle"):
        wq.queue(lambda: wq.name)
    assert wq.queue(Careful(wq).job).result(DEADLINE_S) is None


# ---------------------------------------------------------------- what is shown


HALT = workq.Halt("worker_1", 12, "", "Default", "unit", signal="SIGKILL", unit="one:1 f", run_time_s=0.1, stderr="last\nwords")


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (workq.WorkerHalted(HALT), "WorkerHalted('worker_1 (pid 12) was ended by SIGKILL in unit one:1 f after 0.100 s')"),
        (
            workq.errors.UnitMemoryExceeded("unit one:9 hog", 100 << 20, 101 << 20),
            "UnitMemoryExceeded('unit one:9 hog took 101 MiB of memory, more than its limit of 100 MiB')",
        ),
        (workq.errors.RemoteError("KeyError", "'x'", "a long text"), """RemoteError("KeyError: 'x'")"""),
        (workq.errors.UnitCancelled("why"), "UnitCancelled('why')"),
    ],
    ids=lambda value: "",
)
def test_an_error_is_shown_by_its_message(error: Exception, shown: str) -> None:
    assert repr(error) == shown
    assert repr(pickle.loads(pickle.dumps(error))) == shown


def test_a_time_that_cannot_be_says_what_none_means(wq: workq.WorkMgr) -> None:
    with pytest.raises(workq.ArgumentError, match=r"^timeout must be a finite number of seconds above 0, or None for no limit, not inf$"):
        wq.options(timeout=math.inf)
    with pytest.raises(
        workq.ArgumentError, match=r"^timeout must be a finite number of seconds of 0 or more, or None to wait for ever, not nan"
    ):
        wq.sync(math.nan)
    with pytest.raises(workq.ArgumentError, match=r"^expression must be a cron expression, such as '30 2 \* \* \*', not 'every day': "):
        wq.cron("every day", abs, -1)


def test_a_category_of_another_controller_is_told_how_to_have_it(controller: workq.Controller) -> None:
    with workq.Controller() as other:
        other.categories.create("elsewhere")
        with pytest.raises(workq.CategoryError, match=r"no category 'elsewhere'; there are .*another controller has .*controller="):
            workq.WorkMgr(1, category="elsewhere", controller=controller)
    with pytest.raises(workq.CategoryError, match=r"no category 'elsewhere'; there are [^;]*$"):
        workq.WorkMgr(1, category="elsewhere", controller=controller)


@pytest.mark.parametrize("name", ["", "two\nlines", "a\ttab", 7])
def test_names_of_queues_and_units_stand_in_one_line_of_a_table(name: Any) -> None:
    with pytest.raises(workq.ArgumentError, match="name must be a str of printable characters, or None, not"):
        workq.WorkMgr(0, name=name)
    with workq.WorkMgr(0) as wq, pytest.raises(workq.ArgumentError, match="name must be a str of printable characters, or None, not"):
        wq.options(name=name)
