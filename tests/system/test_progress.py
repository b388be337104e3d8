"""Progress: what units say of themselves, and the bar that whoever waits draws. Bars are looked at on a real terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import workq
from tests.support import DEADLINE_S, ROOT, application, wait_readable
from tests.system.held import Held
from workq.seeing.bar import Line
from workq.testing.clock import ManualClock

pytestmark = pytest.mark.slow

PROGRAM = """
import sys, threading, workq

def crunch(number):
    workq.progress(0.4, f"fold {number}/9")
    print(f"unit {number} speaks")
    if number == 3:
        raise ValueError(number)
    return number

if __name__ == "__main__":
    how = {"True": True}.get(sys.argv[1], sys.argv[1])
    with workq.WorkMgr(2, name="night") as wq:
        print(sum(wq.map(crunch, range(10), errors="skip", progress=how)))
        units = [wq.queue(crunch, number) for number in range(5)]
        try:
            wq.sync(progress=how)
        except workq.WorkErrors as error:
            print(error)
        print("threads:", sorted(thread.name for thread in threading.enumerate() if not thread.name.startswith(("workq", "Main"))))
"""


def on_terminal(code: str, *arguments: str, **environment: str) -> str:
    """Run a program whose streams are a terminal, and return all that it wrote there."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", **environment},
        cwd=ROOT,
    ):
        os.close(slave)
        pieces = []
        while True:
            wait_readable(master)
            try:
                piece = os.read(master, 65536)
            except OSError:  # its last writer has ended
                break
            if not piece:
                break
            pieces.append(piece)
    os.close(master)
    return b"".join(pieces).decode()


@pytest.mark.parametrize("how", ["tqdm", "rich", "plain", "True"])
def test_a_bar_shows_units_failures_and_rate_and_makes_room_for_output(how: str) -> None:
    shown = on_terminal(PROGRAM, how, NO_COLOR="1")
    assert "10/10" in shown
    assert "crunch" in shown
    assert "night" in shown
    assert "5/5" in shown
    assert "1 failed" in shown
    assert shown.count("unit 4 speaks") == 2
    assert "42\r\n" in shown
    assert "threads: []" in shown, "no thread of its own"
    assert "\033[3" not in shown, "NO_COLOR"
    assert "/s" in shown or how == "rich"


@pytest.mark.parametrize("how", ["tqdm", "rich", "plain"])
def test_a_map_that_nobody_reads_leaves_nothing_on_the_screen(how: str) -> None:
    shown = on_terminal(
        f"""
import workq

if __name__ == "__main__":
    with workq.WorkMgr(1) as wq:
        never_read = wq.map(abs, [1], progress={how!r})
        del never_read
        never_begun = wq.map(abs, [1], progress={how!r})
        never_begun.close()
        print("end")
"""
    )
    assert shown == "end\r\n"


def test_the_rate_counts_from_the_beginning_of_the_wait() -> None:
    clock = ManualClock()
    line = Line("night", 1000, 1002, clock.monotonic)
    clock.advance(10.0)
    assert line.text(1000, 0, 1002, "") == "night: 1000/1002 (99 %), 10 s"
    assert line.text(1001, 0, 1002, "") == "night: 1001/1002 (99 %), 0.1/s, 10 s, 10 s left"
    assert "1580/s" in line.text(1000 + 15_800, 0, None, ""), "and not 1.58e+03"


@pytest.mark.parametrize("environment", [{}, {"TERM": "dumb"}])
def test_nothing_is_drawn_where_there_is_no_terminal(environment: dict[str, str]) -> None:
    ended = application(PROGRAM, "True", **environment)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "42" in ended.stdout.splitlines()


def test_a_bar_needs_no_library() -> None:
    hide = "import sys; sys.modules['tqdm'] = sys.modules['rich'] = None\n"
    shown = on_terminal(hide + PROGRAM, "True")
    assert "crunch: 10/10 (100 %), 1 failed" in shown
    assert "night: 5/5 (100 %), 1 failed" in shown


def test_a_library_that_is_not_installed_is_named_at_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with workq.WorkMgr(0) as wq, pytest.raises(workq.ArgumentError, match="package tqdm"):
        wq.sync(progress="tqdm")


# ---------------------------------------------------------------- what units say


def tell(fifo: str, fraction: float | None, text: str) -> None:
    workq.progress(fraction, text)
    with open(fifo, "rb") as file:
        file.read()


def tell_in_threads(times: int) -> None:
    def many(letter: str) -> None:
        for _ in range(times):
            workq.progress(0.5, letter * 300)

    threads = [threading.Thread(target=many, args=(letter,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture
def wq() -> Iterator[workq.WorkMgr]:
    with workq.WorkMgr(1) as wq:
        yield wq


@pytest.mark.parametrize(
    ("fraction", "text", "shown"), [(0.4, "fold 2/5", "fold 2/5 40 %"), (None, "saving \u2603", "saving \u2603"), (1, "", "100 %")]
)
def test_progress_of_a_running_unit_is_seen_in_unit_and_workers(
    wq: workq.WorkMgr, tmp_path: Path, fraction: float | None, text: str, shown: str
) -> None:
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    unit = wq.queue(tell, fifo, fraction, text)
    end = os.open(fifo, os.O_WRONLY)
    assert unit.progress == (fraction, text)
    (row,) = wq.workers()
    assert row.progress == (fraction, text)
    assert f"tell ({shown})" in repr(wq.workers())
    os.close(end)
    unit.result(DEADLINE_S)
    assert unit.progress is None
    assert wq.workers()[0].progress is None


def test_the_next_unit_does_not_inherit_it(wq: workq.WorkMgr, tmp_path: Path) -> None:
    wq.queue(workq.progress, 0.5, "first").result(DEADLINE_S)
    with Held(wq, tmp_path) as held:
        assert held.unit.progress is None


def test_what_is_read_while_threads_write_is_never_mixed(wq: workq.WorkMgr) -> None:
    unit = wq.queue(tell_in_threads, 20_000)
    seen = set()
    while not unit.done():
        said = unit.progress
        if said is not None:
            seen.add(said[1])
    unit.result(DEADLINE_S)
    assert seen <= {"a" * 300, "b" * 300}
    assert seen


def test_progress_costs_little_and_a_long_text_is_cut(wq: workq.WorkMgr, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    unit = wq.queue(tell, str(tmp_path / "fifo"), 0.0, "x" * 5000)
    end = os.open(tmp_path / "fifo", os.O_WRONLY)
    assert unit.progress == (0.0, "x" * 400)
    os.close(end)


@pytest.mark.parametrize("arguments", [(1.5,), (-0.1,), ("half",), (float("nan"),)])
def test_progress_that_is_none_is_refused(arguments: tuple[object, ...]) -> None:
    with pytest.raises(workq.ArgumentError, match="fraction"):
        workq.progress(*arguments)
    with pytest.raises(workq.ArgumentError, match="text"):
        workq.progress(0.5, 7)


def test_progress_outside_of_a_unit_and_without_workers() -> None:
    workq.progress(0.5)
    with workq.WorkMgr(0) as wq:
        unit = wq.queue(progress_seen)
        assert unit.result() == (0.3, "here")
        assert unit.progress is None


def progress_seen() -> object:
    workq.progress(0.3, "here")
    unit = workq.current_unit()
    assert unit is not None
    return unit.progress
