"""Signals of the application: handlers that queue, handlers that raise in the middle of anything, and Ctrl-C in a terminal."""

from __future__ import annotations

import _thread
import os
import pty
import re
import select
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import workq
from tests.support import DEADLINE_S, ROOT, application, tries, wait_gone, wait_until
from tests.system.held import Held, hold

pytestmark = pytest.mark.slow

# ---------------------------------------------------------------- handlers that raise

STORM = """
    import contextlib, os, random, signal, sys, threading, time, workq

    class Struck(Exception): pass

    strikes = 0

    def strike(number, frame):
        global strikes
        strikes += 1
        raise Struck

    def note(path, n):
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, b"%d\\n" % n)
        os.close(fd)
        return n

    def fail(path, n):
        note(path, n)
        raise LookupError(n)

    def deed(wq, chance, path, units, numbers):
        what = chance.random()
        if what < 0.4:
            for _ in range(chance.choice((1, 3, 40))):
                n = next(numbers)
                units.append((n, wq.queue(note, path, n)))
        elif what < 0.5:
            n = next(numbers)
            units.append((n, wq.queue(note, path, n)))
            units[-1][1].result()
        elif what < 0.6:
            for _, unit in units[-20:]:
                unit.result(0.001)
        elif what < 0.7 and units:
            chance.choice(units)[1].cancel()
        elif what < 0.75:
            wq.queue(time.sleep, 0.002).cancel()
        elif what < 0.8:
            n = next(numbers)
            called = []
            unit = wq.queue(note, path, n)
            units.append((n, unit))
            unit.add_done_callback(called.append)
        elif what < 0.85:
            with contextlib.suppress(LookupError):
                wq.queue(fail, path, next(numbers)).result()
        elif what < 0.9:
            wq.sync(0.005)
        elif what < 0.95:
            wq.wait_one(0.001)
        else:
            assert len(wq.queue(bytes, 200_000).result()) == 200_000

    if __name__ == "__main__":
        import itertools
        seed, least = int(sys.argv[1]), int(sys.argv[2])
        chance = random.Random(seed)
        path = os.path.abspath(__file__) + ".ran"
        signal.signal(signal.SIGALRM, strike)
        wq = workq.WorkMgr(2)
        wq.queue(abs, 1).result()
        units, numbers = [], itertools.count(1)
        odd = []
        until = time.monotonic() + 60
        while strikes < least and time.monotonic() < until:
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, chance.uniform(50e-6, 500e-6))
                    deed(wq, chance, path, units, numbers)
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except (Struck, TimeoutError, workq.UnitCancelled, workq.WorkErrors):
                pass
            except workq.PicklingError as error:
                assert isinstance(error.__cause__, Struck), error  # struck while it pickled: nothing was queued
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        ends = {}
        for n, unit in units:
            try:
                end = "right" if unit.result(60) == n else "wrong"
            except workq.UnitCancelled:
                end = "cancelled"
            ends[end] = ends.get(end, 0) + 1
        with contextlib.suppress(workq.WorkErrors):
            wq.sync(60)
        elsewhere = []
        thread = threading.Thread(target=lambda: elsewhere.append(wq.queue(abs, -5).result(60)))
        thread.start()
        thread.join(60)
        assert elsewhere == [5], "a lock is held"
        assert wq.queue(abs, -6).result(60) == 6
        ran = open(path).read().split()
        wq.close()
        print(strikes >= least, len(ran) - len(set(ran)), sorted(ends), ends["right"] > 100)
"""


@pytest.mark.parametrize("seed", [1, 2])
def test_no_exception_of_a_signal_handler_loses_a_unit_or_leaves_a_lock_held(seed: int) -> None:
    """Thousands of strikes into queueing, waiting and cancelling; every accepted unit ends, none runs twice, everything goes on."""
    ended = application(STORM, str(seed), "2000", deadline_s=150)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split(" ", 2)[:2] == ["True", "0"], ended.stdout
    assert "wrong" not in ended.stdout
    assert "failed" not in ended.stderr, ended.stderr


def test_a_handler_may_queue_in_the_middle_of_a_dispatch_or_a_wait() -> None:
    ended = application(
        """
        import signal, workq

        if __name__ == "__main__":
            wq = workq.WorkMgr(2)
            wq.queue(abs, 1).result()
            by_handler = []

            def queue_one(number, frame):
                by_handler.append(wq.queue(abs, -len(by_handler)))
                signal.setitimer(signal.ITIMER_REAL, 200e-6)

            signal.signal(signal.SIGALRM, queue_one)
            signal.setitimer(signal.ITIMER_REAL, 200e-6)
            while len(by_handler) < 2000:
                units = [wq.queue(abs, -n) for n in range(50)]
                assert [unit.result() for unit in units] == list(range(50))
                wq.sync()
            signal.setitimer(signal.ITIMER_REAL, 0)
            wq.sync()
            print([unit.result() for unit in by_handler] == list(range(len(by_handler))))
        """,
        deadline_s=90,
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "True"), ended.stderr


def test_a_handler_that_waits_where_it_cannot_is_told_so_at_once() -> None:
    """A wait inside of a handler that interrupted a wait: an error, or a result where the handler came between; never a hang."""
    ended = application(
        """
        import signal, time, workq

        def wait_in_handler(number, frame):
            try:
                said.append(wq.queue(abs, -3).result(60))
            except workq.WaitError as error:
                said.append(type(error).__name__)
            if len(said) > 1:
                signal.setitimer(signal.ITIMER_REAL, 300e-6)

        if __name__ == "__main__":
            said = []
            wq = workq.WorkMgr(2)
            wq.queue(abs, 1).result()
            signal.signal(signal.SIGALRM, wait_in_handler)
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            assert wq.queue(time.sleep, 0.2).result() is None
            print(said)
            said.append("WaitError")
            signal.setitimer(signal.ITIMER_REAL, 300e-6)
            while len(said) < 500:
                assert [unit.result() for unit in [wq.queue(abs, -n) for n in range(20)]] == list(range(20))
            signal.setitimer(signal.ITIMER_REAL, 0)
            print(set(said) <= {3, "WaitError"}, wq.queue(abs, -7).result())
        """,
        deadline_s=90,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ["['WaitError']", "True 7"]


# ---------------------------------------------------------------- Ctrl-C in a terminal


class Terminal:
    """A program that has a terminal of its own: its process group is in the foreground, so that Ctrl-C reaches it."""

    def __init__(self, *command: str, folder: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb", "PYTHONUNBUFFERED": "1", "PYTHON_BASIC_REPL": "1"}
            os.execve(command[0], list(command), environment)
        self.text = ""
        self._seen = 0

    def wait_for(self, pattern: str, deadline_s: float = DEADLINE_S) -> str:
        """Read until the pattern is in what came since the last call; return all of that."""
        deadline = time.monotonic() + deadline_s
        while not (match := re.search(pattern, self.text[self._seen :])):
            if not select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))[0] or not self._read():
                raise AssertionError(f"no {pattern!r} in:\n{self.text[self._seen :]}")
        since = self.text[self._seen : self._seen + match.end()]
        self._seen += match.end()
        return since

    def _read(self) -> bool:
        try:
            piece = os.read(self.fd, 65536)
        except OSError:  # the other side is gone
            return False
        self.text += piece.decode(errors="replace").replace("\r\n", "\n")
        return bool(piece)

    def wait_asleep(self) -> None:
        """Wait until the main thread has gone to sleep: it has said that it is about to wait."""
        looks = 0

        def asleep() -> bool:
            nonlocal looks
            looks = looks + 1 if Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "S" else 0
            return looks > 20

        wait_until(asleep)

    def press_ctrl_c(self) -> None:
        """Press it once the program waits."""
        self.wait_asleep()
        self.type("\x03")

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.fd, text.encode())

    def finish(self) -> int:
        """Read to the end and return the exit code."""
        while select.select([self.fd], [], [], DEADLINE_S)[0] and self._read():
            pass
        wait_gone(self.pid)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@contextmanager
def terminal(*arguments: str, script: str = "") -> Iterator[Terminal]:
    """Run Python in a terminal: a script, or at its prompt."""
    with tempfile.TemporaryDirectory(prefix="workq-test-") as folder:
        if script:
            path = Path(folder) / "app.py"
            path.write_text(script)
            arguments = (str(path), *arguments)
        term = Terminal(sys.executable, *arguments, folder=folder)
        try:
            yield term
        finally:
            try:
                os.kill(term.pid, signal.SIGKILL)
                os.waitpid(term.pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
            os.close(term.fd)


SCRIPT = """
import os, sys, time, workq

def say_and_sleep():
    with open(FIFO, "w") as file:
        file.write("x")
    time.sleep(600)

FIFO = os.path.abspath(__file__) + ".fifo"
workq.WorkerHalted  # else the controller loads it after 0.1 s: an eval() while the interpreter ends has it forget that it was interrupted

if __name__ == "__main__":
    os.mkfifo(FIFO)
    pipe = os.open(FIFO, os.O_RDWR)
    wq = workq.WorkMgr(2)
    units = [wq.queue(say_and_sleep) for _ in range(4)]
    os.read(pipe, 1)
    os.read(pipe, 1)
    begun = time.monotonic()
    print("waiting", [row.pid for row in wq.workers()], flush=True)
    try:
        WAIT
    except KeyboardInterrupt:
        print("caught", flush=True)
    CHECK
    print("bye", flush=True)
"""


@pytest.mark.parametrize(
    ("wait", "ended"),
    [("units[0].result()", 1), ("wq.sync()", 4), ("wq.wait_one()", 4), ("list(wq.as_completed())", 4)],
)
def test_ctrl_c_ends_what_was_waited_for_and_the_queue_lives_on(wait: str, ended: int) -> None:
    check = """
    import concurrent.futures
    ended = units[:1] if "result" in sys.argv[1] else units
    concurrent.futures.wait(ended)
    print([unit.state.value for unit in ended])
    for unit in units:
        unit.cancel()
    print(wq.queue(abs, -1).result())
    wq.close()
"""
    script = SCRIPT.replace("WAIT", wait).replace("CHECK", check.strip())
    with terminal(wait, script=script) as term:
        term.wait_for("waiting.*\n")
        term.press_ctrl_c()
        term.wait_for("caught")
        said = term.wait_for("bye")
        assert f"{['cancelled'] * ended}\n1\n" in said
        assert term.finish() == 0
        assert "Traceback" not in term.text, term.text


def test_ctrl_c_is_over_within_a_second() -> None:
    took = []
    for _ in tries():
        with terminal(script=SCRIPT.replace("WAIT", "wq.sync()").replace("CHECK", "wq.close()")) as term:
            term.wait_for("waiting.*\n")
            term.wait_asleep()
            pressed = time.monotonic()
            term.type("\x03")
            term.wait_for("bye")
            took.append(time.monotonic() - pressed)
            assert term.finish() == 0
        if took[-1] < 1:
            break
    assert took[-1] < 1, took


def test_ctrl_c_of_a_script_ends_it_with_one_traceback_and_no_worker_is_left() -> None:
    with terminal(
        script=SCRIPT.replace("WAIT", "wq.sync()").replace("except KeyboardInterrupt", "except LookupError").replace("CHECK", "")
    ) as term:
        pids = [int(pid) for pid in re.findall(r"\d+", term.wait_for("waiting.*\n"))]
        assert len(pids) >= 2  # those of units that were judged blocked have stand-ins
        term.press_ctrl_c()
        assert term.finish() == -signal.SIGINT, term.text
        assert term.text.count("Traceback") == 1, term.text
        assert re.search(r"KeyboardInterrupt\nworkq: \d+ units? of queue .* cancelled\n", term.text), term.text
        assert "the interpreter ends" not in term.text, term.text
        for pid in pids:
            wait_gone(pid)


def test_at_the_prompt_ctrl_c_ends_the_units_and_the_queue_lives_on() -> None:
    with terminal("-i", "-q") as term:
        term.wait_for(">>> ")
        term.type("import time, workq; wq = workq.WorkMgr(2)\n")
        term.wait_for(">>> ")
        term.type("unit = wq.queue(time.sleep, 600); print('queued'); unit.result()\n")
        term.wait_for("\nqueued")
        term.press_ctrl_c()
        said = term.wait_for("KeyboardInterrupt\n>>> ")
        assert said.count("Traceback") == 1
        term.type("wq.sync().cancelled, wq.queue(abs, -7).result()\n")
        term.wait_for(r"\n\(1, 7\)\n>>> ")
        term.type("exit()\n")
        assert term.finish() == 0


def test_a_second_ctrl_c_kills_what_does_not_end() -> None:
    script = """
import os, time, workq

def deaf(fifo):
    with open(fifo, "w") as file:
        file.write("x")
    while True:
        try:
            time.sleep(600)
        except BaseException:
            pass

if __name__ == "__main__":
    fifo = os.path.abspath(__file__) + ".fifo"
    os.mkfifo(fifo)
    pipe = os.open(fifo, os.O_RDWR)
    wq = workq.WorkMgr(1, delete_timeout=600)
    unit = wq.queue(deaf, fifo)
    os.read(pipe, 1)
    for times in ("once", "twice"):
        print("waiting", flush=True)
        try:
            unit.result()
        except KeyboardInterrupt:
            print(times, unit.state.value, flush=True)
    import concurrent.futures
    concurrent.futures.wait([unit])
    print(unit.state.value, wq.queue(abs, -1).result())
"""
    with terminal(script=script) as term:
        term.wait_for("waiting")
        term.press_ctrl_c()
        term.wait_for("once.*\nwaiting")
        term.press_ctrl_c()
        term.wait_for("twice")
        term.wait_for("cancelled 1")
        assert term.finish() == 0


# ---------------------------------------------------------------- signals that interrupt no system call


def waits_for_a_lock(wq: workq.WorkMgr, held: Held) -> None:
    workq.Lock("door").acquire()


def waits_alone(wq: workq.WorkMgr, held: Held) -> None:
    held.unit.result()


def leads(wq: workq.WorkMgr, held: Held) -> None:
    wq.sync()


def holds_a_lock(fifo: str) -> None:
    with workq.Lock("door"):
        hold(fifo)


WAITS = {"wait": waits_for_a_lock, "wait_one_byte": waits_alone, "_block": leads}


@pytest.mark.parametrize("where", WAITS)
def test_a_signal_that_comes_right_before_a_wait_blocks_ends_it_all_the_same(where: str, tmp_path: Path) -> None:
    """No system call is interrupted by it: as here, where the interpreter notes a signal that nobody has sent.

    Who waits alone is now and then made to wait in the ordinary way, `_block`, by a turn that the controller takes meanwhile.
    """
    main = threading.get_ident()

    def is_there() -> bool:
        code = sys._current_frames()[main].f_code
        return code.co_name in (where, "_block") and code.co_filename.startswith(os.path.dirname(workq.__file__))

    def press() -> None:
        wait_until(is_there, what=f"the main thread is in {where}")
        _thread.interrupt_main()

    with workq.WorkMgr(1) as wq, Held(wq, tmp_path, holds_a_lock) as held:
        presser = threading.Thread(target=press)
        presser.start()
        with pytest.raises(KeyboardInterrupt):
            WAITS[where](wq, held)
        presser.join(DEADLINE_S)
