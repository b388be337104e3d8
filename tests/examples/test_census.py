"""The main example, as a user runs it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import workq
from tests.support import DEADLINE_S, ROOT, wait_until

pytestmark = pytest.mark.slow


def census(*arguments: str) -> dict:
    command = [sys.executable, str(ROOT / "examples" / "census.py"), "--json", *arguments]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""  # no bar where there is no terminal, and no noise of workers
    return json.loads(answer.stdout)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small library, with files that do not parse in each of the ways that there are."""
    for number in range(40):
        (tmp_path / f"good{number:02}.py").write_text("def short():\n    pass\n\n\nasync def longer():\n    a = 1\n    return a\n" * 50)
    (tmp_path / "longest.py").write_text("def longest():\n" + "    pass\n" * 99)
    (tmp_path / "bad_syntax.py").write_text("print 'two'\n")
    (tmp_path / "bad_bytes.py").write_bytes(b"name = '\xff'\n")
    (tmp_path / "bad_coding.py").write_text("# -*- coding: nonsense -*-\n")
    return tmp_path


def test_the_census_counts_what_is_there(folder: Path) -> None:
    taken = census("--workers", "2", "--folder", str(folder))["census"]
    assert (taken["files"], taken["functions"], taken["lines"]) == (44, 40 * 100 + 1, 40 * 350 + 100)
    assert taken["longest"] == {"lines": 100, "name": "longest", "file": "longest.py", "line": 1}
    assert set(taken["broken"]) == {"bad_syntax.py", "bad_bytes.py", "bad_coding.py"}
    assert taken["lost"] == {}


def test_of_many_workers_that_halted_a_few_are_shown_and_the_others_counted(capsys: pytest.CaptureFixture[str]) -> None:
    specification = importlib.util.spec_from_file_location("census", ROOT / "examples" / "census.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    halts = [workq.Halt(f"worker_{n}", n, "", "Default", "unit", signal="SIGKILL", unit=f"census:{n} parse") for n in range(1, 356)]
    halts += [workq.Halt("worker_356", 356, "", "Default", "idle", exit_code=3, stderr="last\nwords")]
    module.print_halts(halts)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  worker_1 (pid 1) was ended by SIGKILL in unit census:1 parse after 0.000 s"
    assert lines[3:] == ["  ... and 353 more: 352 by SIGKILL, 1 by exit code 3", ""]
    module.print_halts(halts[-1:])
    assert capsys.readouterr().out == "  worker_356 (pid 356) exited with code 3 (idle)\n\n"
    module.print_halts([])
    assert capsys.readouterr().out == ""


def test_a_census_that_is_interrupted_says_so_in_a_line(tmp_path: Path) -> None:
    held = tmp_path / "held.py"
    os.mkfifo(held)
    writers: list[int] = []

    def is_read() -> bool:
        with contextlib.suppress(OSError):  # no reader yet
            writers.append(os.open(held, os.O_WRONLY | os.O_NONBLOCK))
        return bool(writers)

    command = [sys.executable, str(ROOT / "examples" / "census.py"), "--workers", "1", "--folder", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until(is_read)
        process.send_signal(signal.SIGINT)
        shown, told = process.communicate(timeout=DEADLINE_S)
    os.close(writers.pop())
    assert (process.returncode, shown) == (130, "")
    assert len(told.splitlines()) == 1
    assert told.startswith("interrupted")


def test_the_census_is_the_same_while_its_workers_are_killed() -> None:
    calm, rough = census("--workers", "2"), census("--workers", "2", "--kill-workers")
    assert rough["census"] == calm["census"]
    assert calm["run"]["halts"] == []
    assert rough["run"]["halts"]
    assert all("SIGKILL" in halt for halt in rough["run"]["halts"])
