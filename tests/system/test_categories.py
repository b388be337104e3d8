"""Categories at run time, on real processes: made, read, changed and deleted; every limit can be read, and acts at once."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import workq
from tests.support import DEADLINE_S, wait_until
from tests.system.held import NEVER_JUDGED, Held

pytestmark = pytest.mark.slow


@pytest.fixture
def controller() -> Iterator[workq.Controller]:
    with workq.Controller(settings=NEVER_JUDGED) as made:
        made.categories.create("small", default_workers=2, max_workers=4, max_active_workers=2)
        yield made


def active(controller: workq.Controller) -> int:
    return sum(row.state == "active" for row in controller.workers())


# ---------------------------------------------------------------- create, read, change, delete


def test_three_categories_exist_from_the_start_and_cannot_be_deleted(controller: workq.Controller) -> None:
    assert [name for name in controller.categories if name != "small"] == ["Default", "SQL", "Utility"]
    assert [controller.categories[name].always_queue for name in ("Default", "SQL", "Utility")] == [False, False, True]
    for name in ("Default", "SQL", "Utility"):
        with pytest.raises(workq.CategoryError, match="always exists"):
            controller.categories.delete(name)
        assert controller.categories.change(name, max_workers=3).max_workers == 3


def test_categories_are_created_read_changed_and_deleted_at_run_time(controller: workq.Controller) -> None:
    categories = controller.categories
    made = categories.create("reports", max_workers=7)
    assert (made, "reports" in categories, len(categories)) == (categories["reports"], True, 5)
    assert categories.create(workq.Category("other", max_workers=3)).max_workers == 3
    changed = categories.change("reports", max_total_workers=2, always_queue=True)
    assert (changed.max_workers, changed.max_total_workers, changed.always_queue) == (7, 2, True)
    categories.delete("reports")
    assert "reports" not in categories
    assert categories.get("reports") is None
    with pytest.raises(workq.CategoryError, match="Default, SQL, Utility, other, small"):
        categories["reports"]


def test_a_category_can_be_created_anew_after_it_was_deleted(controller: workq.Controller) -> None:
    for number in range(3):
        controller.categories.create("again", max_workers=number + 1)
        with workq.WorkMgr(9, category="again", controller=controller) as wq:
            assert (wq.queue(abs, -1).result(DEADLINE_S), wq.num_workers) == (1, number + 1)
        controller.categories.delete("again")
    wait_until(lambda: not [row for row in controller.workers() if row.category == "again"])


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_workers": 0}, "max_workers"),
        ({"max_active_workers": "2"}, "max_active_workers"),
        ({"max_total_workers": 1.5}, "max_total_workers"),
        ({"always_queue": 1}, "always_queue"),
        ({"colour": "red"}, "colour"),
        ({"name": "x"}, "name"),
    ],
)
def test_a_change_that_cannot_be_names_the_limit_and_changes_nothing(
    controller: workq.Controller, limits: dict[str, Any], words: str
) -> None:
    before = controller.categories["small"]
    with pytest.raises(workq.ArgumentError, match=words):
        controller.categories.change("small", **limits)
    assert controller.categories["small"] is before


@pytest.mark.parametrize("name", ["", "a b", "ä", "x" * 65, "a/b", "a\n"])
def test_names_of_categories_are_letters_digits_and_three_signs(controller: workq.Controller, name: str) -> None:
    with pytest.raises(workq.ArgumentError, match="name must be"):
        controller.categories.create(name)


def test_a_category_that_exists_is_not_made_again_by_mistake(controller: workq.Controller) -> None:
    with pytest.raises(workq.CategoryError, match=r"already; categories.change"):
        controller.categories.create("small", max_workers=1)
    assert controller.categories.create("Small").name == "Small", "case counts"


def test_a_category_with_open_queues_is_not_deleted_and_names_them(controller: workq.Controller) -> None:
    with workq.WorkMgr(1, category="small", name="busy one", controller=controller) as wq:
        wq.queue(abs, -1).result(DEADLINE_S)
        with pytest.raises(workq.CategoryError, match="busy one"):
            controller.categories.delete("small")
    controller.categories.delete("small")


@pytest.mark.parametrize("workers", [1, 0])
def test_a_queue_on_which_nothing_was_queued_holds_its_category_while_it_lives(controller: workq.Controller, workers: int) -> None:
    def queues() -> int:
        return next(row["queues"] for row in controller.categories.as_dicts() if row["name"] == "small")

    with workq.WorkMgr(workers, category="small", name="quiet one", controller=controller) as wq:
        with pytest.raises(workq.CategoryError, match="quiet one"):
            controller.categories.delete("small")
        assert queues() == 1
        assert (wq.limits.num_workers, wq.queue(abs, -1).result(DEADLINE_S)) == (workers, 1)
    token = workq.WorkMgr(workers, category="small", name="given away", controller=controller).detach()
    with pytest.raises(workq.CategoryError, match="given away"):
        controller.categories.delete("small")
    workq.WorkMgr.attach(token).close()
    dropped = workq.WorkMgr(workers, category="small", controller=controller)
    del dropped
    assert queues() == 0
    controller.categories.delete("small")


def test_the_table_of_categories_prints_and_is_data(controller: workq.Controller) -> None:
    with workq.WorkMgr(1, category="small", controller=controller) as wq:
        wq.queue(abs, -1).result(DEADLINE_S)
        row = next(row for row in controller.categories.as_dicts() if row["name"] == "small")
        assert (row["max_workers"], row["max_total_workers"], row["workers"], row["queues"]) == (4, None, 1, 1)
        head, *lines = repr(controller.categories).splitlines()
        assert head.split()[:3] == ["name", "default_workers", "max_workers"]
        assert [line.split()[0] for line in lines] == ["Default", "SQL", "Utility", "small"]


def test_the_default_controllers_categories_have_a_name_of_their_own() -> None:
    workq.categories().create("here", max_workers=3)
    assert workq.categories()["here"] is workq.Controller.default().category("here")
    assert workq.WorkMgr(9, category="here").num_workers == 3
    workq.categories().delete("here")


# ---------------------------------------------------------------- changes act at once


def test_more_active_workers_are_had_as_soon_as_they_are_allowed(controller: workq.Controller, tmp_path: Path) -> None:
    wq = workq.WorkMgr(4, category="small", controller=controller)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(Held(wq, tmp_path))
        third = Held(wq, tmp_path)
        wait_until(lambda: wq.statistics().queued == 1)
        assert active(controller) == 2
        controller.categories.change("small", max_active_workers=3)
        stack.enter_context(third)
        assert active(controller) == 3
    assert wq.sync(DEADLINE_S).done == 3


def test_fewer_active_workers_retire_as_they_complete_units_and_nothing_is_interrupted(
    controller: workq.Controller, tmp_path: Path
) -> None:
    wq = workq.WorkMgr(4, category="small", controller=controller)
    held = [Held(wq, tmp_path).wait_begun() for _ in range(2)]
    controller.categories.change("small", max_active_workers=1)
    behind = [Held(wq, tmp_path) for _ in range(2)]
    held[0].let_go()
    wait_until(lambda: [row.state for row in controller.workers()].count("retired") == 1)
    assert not any(one.begun for one in behind)
    held[1].let_go()
    for one in behind:
        one.wait_begun()
        assert active(controller) == 1
        one.let_go()
    assert wq.sync(DEADLINE_S).done == 4
    assert controller.metrics().workers_interrupted == 0


def test_a_lower_max_workers_clamps_open_queues_at_once_and_a_higher_one_gives_back_what_was_asked_for(
    controller: workq.Controller, tmp_path: Path
) -> None:
    controller.categories.change("small", max_active_workers=8)
    wq = workq.WorkMgr(3, category="small", controller=controller)
    unused = workq.WorkMgr(3, category="small", controller=controller)
    with Held(wq, tmp_path):
        controller.categories.change("small", max_workers=1)
        assert (wq.num_workers, unused.num_workers) == (1, 1)
        second = Held(wq, tmp_path)
        wait_until(lambda: wq.statistics().queued == 1)
        assert len(controller.workers()) == 1
        controller.categories.change("small", max_workers=9)
        assert (wq.num_workers, unused.num_workers) == (3, 3)
        second.wait_begun().let_go()
    assert wq.sync(DEADLINE_S).done == 2


# ---------------------------------------------------------------- what is asked for, and what is had


def test_a_clamped_number_is_told_once_and_can_be_read_with_its_reason(
    controller: workq.Controller, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "workq"):
        wq = workq.WorkMgr(99, category="small", name="wide", controller=controller)
        assert (wq.num_workers, wq.limits.asked_workers) == (4, 99)
        wq.queue(abs, -1).result(DEADLINE_S)
        workq.WorkMgr(4, category="small", controller=controller)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert said == ["queue wide has 4 workers: 99 were asked for; max_workers of category small is 4"]
    assert wq.limits.reason == "99 were asked for; max_workers of category small is 4"


def test_every_limit_of_a_queue_can_be_read(controller: workq.Controller) -> None:
    limits = workq.WorkMgr(category="small", controller=controller).limits
    assert limits.as_dict() == {
        "num_workers": 2,
        "asked_workers": None,
        "default_workers": 2,
        "max_workers": 4,
        "max_active_workers": 2,
        "max_total_workers": None,
        "always_queue": False,
        "max_pending": None,
        "reason": "no number was named; default_workers of category small was 2",
    }
    assert repr(limits).splitlines()[0].split() == ["num_workers", "2", *limits.reason.split()]
    assert workq.WorkMgr(0, controller=controller).limits.num_workers == 0


def test_more_workers_come_when_their_number_is_raised_at_run_time(controller: workq.Controller, tmp_path: Path) -> None:
    controller.categories.change("small", max_active_workers=8)
    wq = workq.WorkMgr(1, category="small", controller=controller)
    with Held(wq, tmp_path):
        more = [Held(wq, tmp_path) for _ in range(5)]
        wait_until(lambda: wq.statistics().queued == 5)
        wq.num_workers = 3
        wait_until(lambda: sum(one.begun for one in more) == 2)
        assert (len(controller.workers()), wq.statistics().max_workers) == (3, 3)
        wq.num_workers = 99
        assert wq.num_workers == 4
        wait_until(lambda: sum(one.begun for one in more) == 3)
        for one in sorted(more, key=lambda one: not one.begun):
            one.wait_begun().let_go()
    assert wq.sync(DEADLINE_S).done == 6


def test_a_lower_number_lets_running_units_end_and_interrupts_nobody(controller: workq.Controller, tmp_path: Path) -> None:
    controller.categories.change("small", max_active_workers=8)
    wq = workq.WorkMgr(3, category="small", controller=controller)
    held = [Held(wq, tmp_path).wait_begun() for _ in range(3)]
    wq.num_workers = 1
    behind = Held(wq, tmp_path)
    for one in held[:2]:
        one.let_go()
        assert isinstance(one.unit.result(DEADLINE_S), int)
    assert not behind.begun
    held[2].let_go()
    behind.wait_begun().let_go()
    pids = [wq.queue(os.getpid) for _ in range(200)]
    assert len({unit.result(DEADLINE_S) for unit in pids}) == 1
    assert wq.sync(DEADLINE_S).done == 204
    metrics = controller.metrics()
    assert (metrics.workers_interrupted, metrics.workers_killed) == (0, 0)


@pytest.mark.parametrize(("before", "after"), [(0, 1), (2, 0)])
def test_a_queue_with_workers_does_not_become_one_without_nor_the_other_way_round(before: int, after: int) -> None:
    wq = workq.WorkMgr(before)
    with pytest.raises(workq.ArgumentError, match="cannot be changed from or to 0"):
        wq.num_workers = after
    wq.num_workers = before
    assert wq.num_workers == before


@pytest.mark.parametrize("number", [-1, 1.5, "2", True, None])
def test_a_number_of_workers_that_cannot_be_is_refused(number: Any) -> None:
    wq = workq.WorkMgr(2)
    with pytest.raises(workq.ArgumentError, match="num_workers"):
        wq.num_workers = number
    assert wq.num_workers == 2


# ---------------------------------------------------------------- WORKQ_MAX_WORKERS


def test_the_environment_variable_caps_what_no_argument_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKQ_MAX_WORKERS", "1")
    assert [getattr(workq.Category("x"), name) for name in ("default_workers", "max_workers", "max_active_workers")] == [1, 1, 1]
    assert workq.Category("x", max_workers=7).max_workers == 7, "an argument beats it"
    with workq.Controller() as controller:
        assert workq.WorkMgr(controller=controller).num_workers == 1
        wq = workq.WorkMgr(8, controller=controller)
        assert (wq.num_workers, wq.limits.reason) == (
            1,
            "8 were asked for; max_workers of category Default is 1, as WORKQ_MAX_WORKERS says",
        )


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5"])
def test_an_environment_variable_that_says_nothing_usable_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("WORKQ_MAX_WORKERS", text)
    with pytest.raises(workq.ArgumentError, match="WORKQ_MAX_WORKERS"):
        workq.Controller()


# ---------------------------------------------------------------- inside units


def limits_inside(category: str | None, number: int | None) -> tuple[str, int, int]:
    wq = workq.WorkMgr(number, category=category)
    return wq.category, wq.num_workers, wq.queue(os.getpid).result()


def names_inside() -> list[str]:
    return sorted(workq.categories())


def change_inside() -> None:
    workq.categories().change("Default", max_workers=1)


def resize_inside(number: int) -> int:
    with workq.WorkMgr(1) as wq:
        first = wq.queue(abs, -1)
        wq.num_workers = number
        return first.result() + wq.num_workers


def wait_and_look(fifo: str) -> tuple[int, list[str]]:
    with open(fifo, "rb") as file:
        file.read()
    return workq.WorkMgr(99).num_workers, sorted(workq.categories())


def test_a_queue_made_inside_a_unit_draws_from_the_same_category_with_its_limits(controller: workq.Controller) -> None:
    with workq.WorkMgr(1, category="small", controller=controller) as wq:
        assert wq.queue(limits_inside, None, None).result(DEADLINE_S)[:2] == ("small", 2)
        assert wq.queue(limits_inside, None, 99).result(DEADLINE_S)[:2] == ("small", 4)
        assert {row.category for row in controller.workers()} == {"small"}


def test_custom_categories_are_known_inside_units(controller: workq.Controller) -> None:
    controller.categories.create("before", max_workers=3)
    with workq.WorkMgr(1, controller=controller) as wq:
        assert wq.queue(limits_inside, "before", 99).result(DEADLINE_S)[:2] == ("before", 3)
        controller.categories.create("after", max_workers=5)
        category, workers, pid = wq.queue(limits_inside, "after", 99).result(DEADLINE_S)
        assert (category, workers) == ("after", 5)
        assert {row.pid: row.category for row in controller.workers()}[pid] == "after"
        controller.categories.change("after", max_workers=2)
        assert wq.queue(limits_inside, "after", 99).result(DEADLINE_S)[1] == 2
        assert wq.queue(names_inside).result(DEADLINE_S) == sorted(controller.categories)
        with pytest.raises(workq.CategoryError, match=r"no category 'nope'; there are Default, SQL, Utility, after, before, small"):
            wq.queue(limits_inside, "nope", 1).result(DEADLINE_S)


def test_a_unit_that_runs_sees_what_was_changed_meanwhile(controller: workq.Controller, tmp_path: Path) -> None:
    wq = workq.WorkMgr(1, category="small", controller=controller)
    with Held(wq, tmp_path, wait_and_look) as held:
        controller.categories.change("small", max_workers=9)
        controller.categories.create("new")
    assert held.unit.result(DEADLINE_S) == (9, sorted(controller.categories))


def test_categories_are_not_changed_inside_a_unit(controller: workq.Controller) -> None:
    with workq.WorkMgr(1, controller=controller) as wq, pytest.raises(workq.CategoryError, match="not in a unit"):
        wq.queue(change_inside).result(DEADLINE_S)


def test_the_number_of_workers_of_a_queue_made_in_a_unit_can_be_changed(controller: workq.Controller) -> None:
    with workq.WorkMgr(1, category="small", controller=controller) as wq:
        assert wq.queue(resize_inside, 99).result(DEADLINE_S) == 1 + 4
