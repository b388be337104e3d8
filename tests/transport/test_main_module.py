"""Functions and classes of the application's ``__main__`` work in every way a program can be started."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support import ROOT, application
from workq.transport import mainmodule

BODY = """
import dataclasses, functools, threading
from tests.transport.pair import call

STEP = 10

@dataclasses.dataclass
class Point:
    x: int
    def moved(self):
        return Point(self.x + STEP)

class Odd(Exception):
    def __init__(self, code, *, why):
        super().__init__(f"{code} {why}")
        self.code = code

def move(point):
    return point.moved()

def main(n):
    return n + STEP

@functools.lru_cache
def cached(n):
    return main(n) * 2

def fail(code):
    raise Odd(code, why="for a reason")

def try_all():
    result = call(move, Point(1))
    assert type(result) is Point and result == Point(11), result
    assert call(main, 1) == 11
    assert call(cached, 1) == 22
    assert call(lambda n: main(n) + 1, 1) == 12
    assert call(functools.partial(main), 1) == 11
    assert call(Point(5).moved) == Point(15)
    assert call(Point, x=3) == Point(3)
    assert call(lambda point: type(point) is Point, Point(1))
    assert call(lambda: [type(p) for p in (Point(1),)]) == [Point]
    assert call(lambda: (lambda: Point(7)))() == Point(7)
    try:
        call(fail, 42)
    except Odd as error:
        assert (error.code, str(error)) == (42, "42 for a reason"), error
    else:
        raise AssertionError
    import sys
    print("all right", sys.modules["__main__"].__name__)
"""

GUARD = 'if __name__ == "__main__":\n    try_all()\n'


@pytest.mark.slow
def test_a_script_with_a_guard() -> None:
    end = application(BODY + GUARD)
    assert (end.returncode, end.stdout) == (0, "all right __main__\n"), end.stderr


@pytest.mark.slow
def test_a_script_without_a_guard_is_not_run_again() -> None:
    end = application(BODY + 'print("begun")\ntry_all()\n')
    assert (end.returncode, end.stdout) == (0, "begun\nall right __main__\n"), end.stderr


@pytest.mark.slow
def test_a_module_by_dash_m(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "module.py").write_text(BODY + GUARD)
    (package / "__main__.py").write_text(BODY + GUARD)
    for name in ("package.module", "package"):
        assert run(["-m", name], cwd=tmp_path) == "all right __main__\n"


@pytest.mark.slow
def test_dash_c(tmp_path: Path) -> None:
    assert run(["-c", BODY + "try_all()"], cwd=tmp_path) == "all right __main__\n"


@pytest.mark.slow
def test_a_prompt(tmp_path: Path) -> None:
    typed = "exec(compile('''" + BODY.replace("\n\n", "\n") + "''', '<stdin>', 'exec'))\ntry_all()\n"
    assert run(["-i", "-q"], cwd=tmp_path, typed=typed) == "all right __main__\n"


@pytest.mark.slow
def test_a_prompt_after_a_script_with_a_guard(tmp_path: Path) -> None:
    """What is typed there is not in the script."""
    (tmp_path / "app.py").write_text(BODY + GUARD)
    typed = (
        "class Typed(Point): pass\n\ndef double(point): return type(point)(point.x * 2)\n\nprint(call(double, Typed(4)), call(main, 5))\n"
    )
    assert run(["-i", "-q", "app.py"], cwd=tmp_path, typed=typed) == "all right __main__\nTyped(x=8) 15\n"


@pytest.mark.slow
def test_a_script_from_standard_input(tmp_path: Path) -> None:
    assert run(["-"], cwd=tmp_path, typed=BODY + GUARD) == "all right __main__\n"


@pytest.mark.slow
def test_a_script_run_by_a_debugger_or_profiler(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(BODY + GUARD)
    assert "all right __main__\n" in run(["-m", "trace", "--count", "-C", str(tmp_path), "app.py"], cwd=tmp_path)


@pytest.mark.slow
def test_ipython(tmp_path: Path) -> None:
    pytest.importorskip("IPython")
    (tmp_path / "cell.ipy").write_text(BODY + "try_all()\n")
    assert "all right __main__\n" in run(["-m", "IPython", "--no-banner", "cell.ipy"], cwd=tmp_path)


@pytest.mark.slow
def test_work_outside_of_the_guard_is_told_what_is_missing() -> None:
    code = """
    from tests.transport.pair import call
    def work(): return 1
    try:
        print(call(work))
    except Exception as error:
        print(type(error).__name__, error)
    if __name__ == "__main__":
        print("guarded")
    """
    end = application(code)
    assert end.stdout == "1\nguarded\n", (end.stdout, end.stderr)  # the copy caught its own error, as its code asks for
    code = """
    from tests.transport.pair import call
    def work(): return 1
    if __name__ == "__main__": pass
    print(call(work))
    """
    end = application(code)
    assert "PicklingError: the main module" in end.stderr
    assert 'put what starts the work under `if __name__ == "__main__":`' in end.stderr
    assert "a unit was queued while the main module was run again" in end.stderr


@pytest.mark.slow
@pytest.mark.parametrize("line", ["sys.exit(3)", "1 / 0", "del work"])
def test_a_script_that_cannot_be_run_again_fails_the_unit_with_a_reason(line: str) -> None:
    code = f"""
    import sys
    from tests.transport.pair import call
    def work(): return 1
    if __name__ == "__main__":
        print(call(work))
    {line}
    """
    end = application(code)
    assert end.stdout == ""
    assert "app.py" in end.stderr.splitlines()[-1] or "work" in end.stderr


def run(options: list[str], cwd: Path, typed: str = "") -> str:
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(cwd), "TERM": "dumb", "PYTHON_BASIC_REPL": "1"}
    end = subprocess.run([sys.executable, *options], cwd=cwd, env=environment, input=typed, capture_output=True, text=True, timeout=60)
    errors = end.stderr.replace(">>> ", "").replace("... ", "").strip()
    assert (end.returncode, errors) == (0, ""), end.stderr
    return end.stdout


@pytest.mark.parametrize(
    ("source", "guarded"),
    [
        ("if __name__ == '__main__': pass", True),
        ('if "__main__" == __name__ and True: pass', True),
        ("if __name__ != '__main__': pass\nelse: print()", True),
        ("if __name__ != '__main__': pass", False),  # what stands below it runs in either case
        ("def main():\n    if __name__ == '__main__': pass", False),
        ("# if __name__ == '__main__':", False),
        ("print(__name__)", False),
        ("if __name__ == 'other': pass", False),
        ("", False),
        ("if __name__ == '__main__'", False),
        ("\0__name__", False),
    ],
)
def test_a_guard_is_a_comparison_at_the_top_level(source: str, guarded: bool) -> None:
    assert mainmodule.has_guard(textwrap.dedent(source).encode()) is guarded


def test_preparation_leaves_the_applications_start_method_open() -> None:
    code = """
    from workq.transport import codec
    if __name__ == "__main__":
        import multiprocessing
        assert codec.preparation_data()
        multiprocessing.set_start_method("spawn")
        print(b"spawn" in codec.preparation_data())
    """
    end = application(code)
    assert (end.returncode, end.stdout) == (0, "True\n"), end.stderr


def test_preparation_data_is_none_where_main_goes_by_value() -> None:
    end = application("from workq.transport import codec\nprint(codec.preparation_data(), codec.main_is_importable())")
    assert (end.returncode, end.stdout) == (0, "None False\n"), end.stderr
