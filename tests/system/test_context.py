"""What units are given of their caller's context, by opt-in: context variables that pickle, and the trace."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import workq
from tests.leaks import Holdings, wait_for_no_more_than
from tests.support import application
from tests.system import variables
from tests.system.variables import both, change, nest, raise_here, request, trace_id, user, who
from workq import ArgumentError, WorkMgr

pytestmark = pytest.mark.slow

nowhere = contextvars.ContextVar("nowhere", default=0)
HOLDS = {"a variable": contextvars.ContextVar("held", default=0)}


@pytest.fixture(scope="module", autouse=True)
def _no_leaks_of_the_module() -> Iterator[None]:
    before = Holdings.now()
    yield
    workq.Controller.default().close()
    wait_for_no_more_than(before)


@pytest.fixture(autouse=True)
def _no_leaks(_no_leaks_of_the_module: None) -> None:
    """Instead of a look after each test: the controller lives as long as the module."""


@pytest.fixture(scope="module")
def controller() -> Iterator[workq.Controller]:
    with workq.Controller() as made:
        yield made


@pytest.fixture(params=[1, 0], ids=["workers", "inline"])
def wq(request: pytest.FixtureRequest, controller: workq.Controller) -> Iterator[WorkMgr]:
    with WorkMgr(request.param, controller=controller, contextvars=True) as queue:
        yield queue


def as_user(name: str, call: Any, *args: Any, **kwargs: Any) -> Any:
    """Call in a context in which `user` has this value."""

    def inside() -> Any:
        user.set(name)
        return call(*args, **kwargs)

    return contextvars.copy_context().run(inside)


def test_the_callers_context_variables_are_the_units(wq: WorkMgr) -> None:
    units = [as_user(name, wq.queue, who) for name in ("ada", "bob", "cy")]
    assert [unit.result() for unit in [*units, wq.queue(who)]] == ["ada", "bob", "cy", "nobody"]
    assert units[0].name == "who"


def test_without_opt_in_nothing_is_carried(controller: workq.Controller) -> None:
    with WorkMgr(1, controller=controller) as plain:
        assert as_user("ada", plain.queue, who).result() == "nobody"


def test_what_a_unit_sets_is_seen_by_nobody_else(wq: WorkMgr) -> None:
    assert as_user("ada", wq.queue, change, "eve").result() == "ada"
    assert [as_user(name, wq.queue, change, "eve").result() for name in ("bob", "cy")] == ["bob", "cy"]
    assert user.get() == "nobody"


def test_the_context_is_that_of_the_moment_of_queueing(wq: WorkMgr) -> None:
    def inside() -> list[Any]:
        value = {"id": 1}
        request.set(value)
        unit = wq.queue(both, 1, two=2)
        value["id"] = 2
        request.set({"id": 3})
        return [unit.result(), wq.queue(both).result()]

    first, second = contextvars.copy_context().run(inside)
    assert first == ("nobody", {"id": 1}, (1,), {"two": 2})
    assert second == ("nobody", {"id": 3}, (), {})


def test_a_list_names_the_variables_that_are_carried(controller: workq.Controller) -> None:
    def inside() -> Any:
        user.set("ada")
        request.set(5)
        return named.queue(both).result()

    with WorkMgr(1, controller=controller, contextvars=[request]) as named:
        assert contextvars.copy_context().run(inside) == ("nobody", 5, (), {})


def test_variables_that_do_not_pickle_or_are_in_no_module_are_skipped_and_named_once(wq: WorkMgr, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "workq")

    def inside() -> list[Any]:
        user.set("ada")
        request.set(threading.Lock())
        HOLDS["a variable"].set(1)
        return [wq.queue(both).result() for _ in range(2)]

    assert contextvars.copy_context().run(inside) == [("ada", None, (), {})] * 2
    told = [record.getMessage() for record in caplog.records if "context variable" in record.getMessage()]
    assert any("'request' is not carried to units: its value cannot be pickled: TypeError" in text for text in told)
    assert any("'held' is not carried to units: it is no global variable of a module" in text for text in told)
    assert len(told) == len(set(told))


def test_options_map_lambdas_and_large_arguments_keep_the_context(wq: WorkMgr) -> None:
    assert as_user("ada", wq.options(retries=1, name="named", queue_timeout=60).queue, who).result() == "ada"
    assert as_user("bob", lambda: list(wq.map(lambda n: (n, variables.user.get()), range(300)))) == [(n, "bob") for n in range(300)]
    extra = 5
    assert as_user("cy", wq.queue, lambda n: (n + extra, variables.who()), 1).result() == (6, "cy")
    for _ in range(3):
        assert as_user("di", wq.queue, both, b"x" * 300_000).result()[0] == "di"
    assert as_user("ed", wq.queue, nest).result() == ["ed", "ed"]


def test_errors_name_what_the_caller_wrote(wq: WorkMgr) -> None:
    with pytest.raises(workq.PicklingError, match=r"argument 1 of type _thread\.lock"):
        as_user("ada", wq.queue, both, threading.Lock())
    with pytest.raises(ArgumentError, match="fn must be callable"):
        as_user("ada", wq.queue, 7)
    error = as_user("ada", wq.queue, raise_here).exception()
    assert str(error) == "ada"
    assert "incontext.py" not in str(error.__cause__)


@pytest.mark.parametrize("value", ["user", [1], 5, [HOLDS["a variable"]]])
def test_contextvars_that_make_no_sense_are_refused(value: Any) -> None:
    with pytest.raises(ArgumentError, match="contextvars must be"):
        WorkMgr(1, contextvars=value)
    with pytest.raises(ArgumentError, match="trace_context must be"):
        WorkMgr(1, trace_context=1)  # type: ignore[arg-type]


def test_variables_of_the_script_are_carried() -> None:
    ended = application(
        """
        import contextvars
        import workq
        user = contextvars.ContextVar("user", default="nobody")
        def who(): return user.get()
        if __name__ == "__main__":
            with workq.WorkMgr(1, contextvars=True) as wq:
                user.set("ada")
                print(wq.queue(who).result())
        """
    )
    assert (ended.stdout, ended.stderr) == ("ada\n", "")


def test_units_go_on_with_the_trace_of_their_caller(controller: workq.Controller) -> None:
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider().get_tracer("test")
    with WorkMgr(1, controller=controller, trace_context=True) as wq, WorkMgr(1, controller=controller) as plain:
        with tracer.start_as_current_span("request") as span:
            expected = format(span.get_span_context().trace_id, "032x")
            assert wq.queue(trace_id).result() == expected
            assert plain.queue(trace_id).result() == "0" * 32
        assert wq.queue(trace_id).result() == "0" * 32, "no trace, and none is left of the unit before"


def test_a_trace_without_opentelemetry_is_refused() -> None:
    ended = application(
        """
        import sys
        sys.modules["opentelemetry"] = None
        import workq
        try: workq.WorkMgr(1, trace_context=True)
        except workq.ArgumentError as error: print(error)
        """
    )
    assert ended.stdout == "trace_context=True needs OpenTelemetry: install workq-manager[opentelemetry]\n"
