"""What units write: kept per unit, whole, in order of completion, told once, and never in anybody's way."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import workq
import workq.config
from tests.support import DEADLINE_S, application, wait_until
from tests.system import deeds
from workq import WorkMgr

pytestmark = pytest.mark.slow


@pytest.fixture
def wq() -> Iterator[WorkMgr]:
    queue = WorkMgr(1)
    yield queue
    queue.close()


def text_of(unit: Any) -> str:
    return str(unit.output)


# ---------------------------------------------------------------- what is caught


def test_every_way_of_writing_is_caught_and_in_order(wq: WorkMgr, capfd: pytest.CaptureFixture[str]) -> None:
    unit = wq.queue(deeds.write_in_all_ways, "one")
    assert unit.result(DEADLINE_S) == "one"
    lines = ["print", "os.write", "print again", "subprocess", "system", "printf"]
    assert capfd.readouterr() == ("".join(f"one {line}\n" for line in lines), "one stderr\n")
    assert sorted(text_of(unit).splitlines()) == sorted(f"one {line}" for line in [*lines, "stderr"])


def test_binary_output_is_told_in_escapes(wq: WorkMgr) -> None:
    unit = wq.queue(deeds.write_bytes, b"\xff\x00\xfe\n")
    assert unit.result(DEADLINE_S) == 4
    assert text_of(unit) == "\\xff\0\\xfe\n"


@pytest.mark.parametrize("deed", [deeds.write_much, deeds.write_much_here])
def test_a_hundred_megabytes_are_cut_at_the_bound_with_a_line_that_says_so(
    wq: WorkMgr, capfd: pytest.CaptureFixture[str], deed: Callable[[int], int]
) -> None:
    size = 100 << 20
    unit = wq.queue(deed, size)
    assert unit.result(DEADLINE_S) is not None
    text = text_of(unit)
    assert 1 << 20 <= len(text) <= (1 << 20) + 200
    assert text.endswith(" bytes dropped]\n")
    dropped = int(text.splitlines()[-1].split("output cut, ")[1].split()[0])
    assert dropped >= size - (1 << 20)
    assert capfd.readouterr().out == text


def test_c_code_that_writes_more_than_a_pipe_holds_and_keeps_the_lock_is_not_stuck(capfd: pytest.CaptureFixture[str]) -> None:
    """Nobody in the worker can read meanwhile: the parent does it, once the heartbeat is missing."""
    settings = workq.config.Settings(heartbeat_s=0.1, stalled_after_s=0.35)
    with workq.Controller(settings=settings) as controller, WorkMgr(1, controller=controller) as wq:
        unit = wq.queue(deeds.write_much_in_c, 5 << 20)
        assert unit.result(DEADLINE_S) == 5 << 20
        text = text_of(unit)
        assert text.startswith("x" * 1000)
        assert " bytes dropped]\n" in text
        assert len(text) <= (2 << 20) + 1000
        after = wq.queue(deeds.write_bytes, b"after\n")
        assert after.result(DEADLINE_S) == 6
        assert text_of(after) == "after\n"


def test_what_a_silent_worker_writes_again_and_again_is_kept_up_to_the_bound_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = workq.config.Settings(heartbeat_s=0.1, stalled_after_s=0.35)
    fifo, size = str(tmp_path / "fifo"), 5 << 20  # far more than a pipe holds: the worker itself may read what is left in it
    os.mkfifo(fifo)
    with workq.Controller(settings=settings) as controller, WorkMgr(1, controller=controller) as wq:
        unit = wq.queue(deeds.write_much_in_c_again_and_again, size, fifo, 4)
        with open(fifo, "wb", buffering=0) as go_on:
            for times in range(1, 4):
                wait_until(lambda times=times: len(unit.output.split("output cut")) > times)  # the parent has read it
                go_on.write(b"x")
        unit.result(DEADLINE_S)
        assert len(text_of(unit)) <= (2 << 20) + 1000  # by the parent, and by the worker once it could


# ---------------------------------------------------------------- who tells it, and when


def test_output_is_whole_per_unit_and_in_order_of_completion(capfd: pytest.CaptureFixture[str]) -> None:
    with WorkMgr(2) as wq:
        units = [wq.queue(deeds.print_lines, name, 50) for name in "abcdefghij"]
        ended = list(wq.as_completed(DEADLINE_S))
    assert len(ended) == len(units)
    assert capfd.readouterr().out == "".join(map(text_of, ended))
    for unit in units:
        names = {line.split()[0] for line in text_of(unit).splitlines()}
        assert len(names) == 1
        assert len(text_of(unit).splitlines()) == 50


def by_sync(wq: WorkMgr, unit: Any) -> None:
    wq.sync(DEADLINE_S)


def by_result(wq: WorkMgr, unit: Any) -> None:
    unit.result(DEADLINE_S)


def by_exception(wq: WorkMgr, unit: Any) -> None:
    unit.exception(DEADLINE_S)


def by_wait_one(wq: WorkMgr, unit: Any) -> None:
    assert wq.wait_one(DEADLINE_S) is unit


def by_close(wq: WorkMgr, unit: Any) -> None:
    wait_until(unit.done)
    wq.close()


@pytest.mark.parametrize("how", [by_sync, by_result, by_exception, by_wait_one, by_close])
def test_output_is_told_exactly_once_by_whoever_asks_first(capfd: pytest.CaptureFixture[str], how: Callable[[WorkMgr, Any], None]) -> None:
    with WorkMgr(1) as wq:
        how(wq, wq.queue(deeds.print_lines, "once", 2))
        assert capfd.readouterr().out == "once 0\nonce 1\n"
    assert capfd.readouterr().out == ""


def test_a_unit_that_fails_or_dies_has_told_what_it_wrote(wq: WorkMgr, capfd: pytest.CaptureFixture[str]) -> None:
    failed, died = wq.queue(deeds.print_and_raise, "before it failed"), wq.queue(deeds.write_and_die, "before it died\n")
    assert isinstance(failed.exception(DEADLINE_S), LookupError)
    assert isinstance(died.exception(DEADLINE_S), workq.WorkerHalted)
    assert text_of(failed) == "before it failed\n"
    assert capfd.readouterr().out.startswith("before it failed\n")


def test_discarded_output_is_written_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    with WorkMgr(1, output="discard") as wq:
        units = [wq.queue(deeds.write_in_all_ways, "x"), wq.queue(deeds.print_lines, "y", 3), wq.queue(deeds.print_flush, "z")]
        wq.sync(DEADLINE_S)
        assert [unit.exception(DEADLINE_S) for unit in units] == [None] * 3
    assert capfd.readouterr() == ("", "")


def test_flush_hands_over_what_was_written_so_far(wq: WorkMgr, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    unit = wq.queue(deeds.print_flush_wait, "early", fifo)
    wait_until(lambda: text_of(unit))
    os.close(os.open(fifo, os.O_WRONLY))  # its reader is let go
    assert wq.wait_one(DEADLINE_S) is unit
    assert text_of(unit) == "early\nthe rest\n"
    assert capfd.readouterr().out == "early\nthe rest\n"


def speak(fifo: str, *texts: str) -> None:
    """Print and flush a text each time that the other end of a fifo is closed."""
    for text in texts:
        print(text, end="")
        workq.flush()
        with open(fifo, "rb") as file:
            file.read()


@pytest.mark.parametrize("how", ["sync", "result", "wait_one", "map"])
def test_flushed_output_is_written_while_somebody_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str) -> None:
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    with WorkMgr(1) as wq:
        results = None
        if how == "map":
            results = wq.map(speak, [fifo], ["one\n"], ["two\n"])
        else:
            unit = wq.queue(speak, fifo, "one\n", "two\n")
        waiting = {
            "sync": lambda: wq.sync(),
            "result": lambda: unit.result(),
            "wait_one": lambda: wq.wait_one(),
            "map": lambda: list(results or ()),
        }
        thread = threading.Thread(target=waiting.get(how, lambda: list(results or ())))
        thread.start()
        pieces: list[str] = []

        def said() -> str:
            pieces.append(capsys.readouterr().out)
            return "".join(pieces)

        for expected in ("one\n", "two\n"):
            wait_until(lambda expected=expected: said().endswith(expected), what=expected)
            os.close(os.open(fifo, os.O_WRONLY))
        thread.join(DEADLINE_S)
        assert said() == "one\ntwo\n"


def test_a_line_that_is_not_whole_is_kept_back_until_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    with WorkMgr(2) as wq:
        unit = wq.queue(speak, fifo, "first\nhalf a ", "line\n")
        wait_until(lambda: unit.output == "first\nhalf a ")
        wq.queue(print, "another").result()
        assert capsys.readouterr().out == "first\nanother\n"
        os.close(os.open(fifo, os.O_WRONLY))
        wait_until(lambda: "line" in unit.output)
        os.close(os.open(fifo, os.O_WRONLY))
        unit.result()
        assert capsys.readouterr().out == "half a line\n"
        assert unit.output == "first\nhalf a line\n"


def test_the_end_of_a_half_written_unit_writes_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    with WorkMgr(1) as wq:
        unit = wq.queue(speak, fifo, "no end of line")
        wait_until(lambda: unit.output)
        with pytest.raises(TimeoutError):
            unit.result(0.01)
        assert capsys.readouterr().out == ""
        os.close(os.open(fifo, os.O_WRONLY))
        wq.sync()
        assert capsys.readouterr().out == "no end of line"


def test_two_threads_that_sync_tell_each_unit_once_and_whole(capfd: pytest.CaptureFixture[str]) -> None:
    with WorkMgr(2) as wq:
        for number in range(100):
            wq.queue(deeds.print_lines, f"u{number}", 20)
        threads = [threading.Thread(target=wq.sync, args=(20,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 2000
    runs = [lines[at : at + 20] for at in range(0, 2000, 20)]
    assert sorted(run[0] for run in runs) == sorted(f"u{number} 0" for number in range(100))
    assert all(run == [f"{run[0].split()[0]} {n}" for n in range(20)] for run in runs)


class Meddling(io.StringIO):
    """At its first word, has another thread try to tell the next unit's output."""

    def __init__(self, sync: Callable[[], object]) -> None:
        super().__init__()
        self.other = threading.Thread(target=sync)

    def write(self, text: str) -> int:
        if self.other.ident is None:
            self.other.start()
            self.other.join(0.2)  # it cannot end before we have written; if it did, its words came first
        return super().write(text)


def test_a_second_thread_that_syncs_waits_for_the_first_ones_words(wq: WorkMgr, monkeypatch: pytest.MonkeyPatch) -> None:
    units = [wq.queue(deeds.print_lines, name, 1) for name in "ab"]
    wait_until(lambda: all(unit.done() for unit in units))
    stream = Meddling(lambda: wq.sync(DEADLINE_S))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        wq.sync(DEADLINE_S)
        stream.other.join(DEADLINE_S)
    assert stream.getvalue() == "a 0\nb 0\n"


# ---------------------------------------------------------------- odd parents


@pytest.mark.parametrize("stream", ["None", "closed", "raising"])
def test_a_parent_without_a_usable_stdout_loses_no_unit(wq: WorkMgr, monkeypatch: pytest.MonkeyPatch, stream: str) -> None:
    class Raising(io.StringIO):
        def write(self, text: str) -> int:
            raise RuntimeError("this stream takes nothing")

    broken = {"None": None, "closed": io.StringIO(), "raising": Raising()}[stream]
    if stream == "closed":
        broken.close()  # type: ignore[union-attr]
    units = [wq.queue(deeds.print_lines, "x", 3) for _ in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", broken)
        patch.setattr(sys, "stderr", None)
        assert [unit.result(DEADLINE_S) for unit in units] == [None] * 3
        wq.sync(DEADLINE_S)
    assert [text_of(unit) for unit in units] == ["x 0\nx 1\nx 2\n"] * 3


def test_a_parent_whose_descriptors_are_closed_loses_no_unit() -> None:
    ended = application(
        """
        import os, sys, workq

        def speak(n):
            print("said", n)
            os.write(2, b"written\\n")
            return n

        if __name__ == "__main__":
            out = os.dup(1)
            os.closerange(0, 3)
            with workq.WorkMgr(2) as wq:
                os.write(out, repr(list(wq.map(speak, range(5)))).encode())
                low = [f"/proc/self/fd/{fd}" for fd in range(3)]
                os.write(out, repr([link for link in low if os.path.lexists(link) and "socket" in os.readlink(link)]).encode())
        """
    )
    assert ended.stdout == "[0, 1, 2, 3, 4][]", "what is printed there went into a socket of ours"


def test_what_cannot_be_encoded_by_the_parent_is_no_error() -> None:
    ended = application(
        """
        import workq

        if __name__ == "__main__":
            with workq.WorkMgr(1) as wq:
                wq.queue(print, "caf\\u00e9 \\u20ac \\ud800")
                wq.queue(print, "after")
        """,
        PYTHONIOENCODING="ascii",
    )
    assert ended.returncode == 0, ended.stderr
    assert "after\n" in ended.stdout
    assert "caf" in ended.stdout


def test_units_without_workers_write_straight_to_the_callers_streams(capsys: pytest.CaptureFixture[str]) -> None:
    with WorkMgr(0) as wq:
        wq.queue(deeds.print_lines, "inline", 2).result(DEADLINE_S)
    assert capsys.readouterr().out == "inline 0\ninline 1\n"
