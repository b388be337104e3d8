"""A rule for rooms that run in the application's threads: no loop stands inside a ``try`` or a ``with`` of its own function.

A signal handler may raise anywhere there, also at the jump back of a loop. In Python 3.13 that jump is missing in the table of exceptions:
what strikes there passes by the ``try`` and the ``with`` that the loop stands in, and a lock stays held for ever. One function further
down it does not, as the call itself is in the table.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT

ROOMS = [*(ROOT / "workq" / "controller").glob("*.py"), *(ROOT / "workq" / "face").glob("*.py"), *(ROOT / "workq" / "hosts").glob("*.py")]
ROOMS += [*(ROOT / "workq" / "transport").glob("*.py"), *(ROOT / "workq").glob("*.py")]

LOOPS = ast.For | ast.AsyncFor | ast.While | ast.ListComp | ast.SetComp | ast.DictComp
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef | ast.GeneratorExp

IN_THE_CONTROLLERS_THREAD = {
    *("dispatch.drop_all", "halts.fail_category", "halts.exited", "halts._forget", "halts._read_all", "halts._read_while_it_flows"),
    *("fitting.fail_queue", "loop._run", "loop._decide", "loop._end", "recalling.hold_back", "sessions.lose"),
    *("waiting.close", "withdrawing.drop_waiting", "withdrawing.fail_everything"),
}
IN_A_WORKER_BETWEEN_UNITS = {"channel.push"}
NOTHING_IS_GIVEN_BACK = {  # the `try` is there for an exception of its own, which is no signal handler's
    *("backlog.place_of", "backlog.trim", "draining._wait", "exiting._drain_queues", "segments.over"),
    *("mapping._parts", "running._freed_locks", "running._set_up"),  # the loop is in the `finally` or the `except`
}


def loops_inside(node: ast.AST, function: str, guarded: bool) -> Iterator[tuple[str, int]]:
    """Yield the function and the line of each loop below a node that stands inside a ``try`` or ``with`` of the same function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, FUNCTIONS):
            yield from loops_inside(child, getattr(child, "name", function), False)
            continue
        inside = guarded or isinstance(child, ast.With | ast.Try)
        if inside and isinstance(child, LOOPS):
            yield function, child.lineno
        yield from loops_inside(child, function, inside)


@pytest.mark.parametrize("path", ROOMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_loop_stands_where_something_has_to_be_given_back(path: Path) -> None:
    known = IN_THE_CONTROLLERS_THREAD | IN_A_WORKER_BETWEEN_UNITS | NOTHING_IS_GIVEN_BACK
    found = [(function, line) for function, line in loops_inside(ast.parse(path.read_text()), "module", False)]
    assert [(function, line) for function, line in found if f"{path.stem}.{function}" not in known] == []


def test_the_exceptions_of_the_rule_exist() -> None:
    found = {f"{path.stem}.{function}" for path in ROOMS for function, _ in loops_inside(ast.parse(path.read_text()), "module", False)}
    assert found >= IN_THE_CONTROLLERS_THREAD | IN_A_WORKER_BETWEEN_UNITS | NOTHING_IS_GIVEN_BACK


def test_the_rule_sees_a_loop_under_a_lock_and_not_one_in_a_function_of_its_own() -> None:
    source = "def a():\n with lock:\n  for x in y: pass\ndef b():\n with lock:\n  c()\ndef c():\n for x in y: pass\n"
    assert list(loops_inside(ast.parse(source), "module", False)) == [("a", 3)]
