"""What tests wait with, and how they run a whole application. Nothing here sleeps: it waits for something, with a deadline."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEADLINE_S = 60.0  # far beyond what anything here takes, so that a busy machine fails no test


def wait_readable(descriptor: int, deadline_s: float = DEADLINE_S) -> None:
    """Wait until a descriptor can be read (or is at its end)."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(deadline_s * 1000):
        raise AssertionError(f"descriptor {descriptor} was not readable within {deadline_s} s")


def is_readable(descriptor: int) -> bool:
    """Tell whether a descriptor can be read (or is at its end)."""
    return bool(select.select([descriptor], [], [], 0)[0])


def wait_gone(pid: int, deadline_s: float = DEADLINE_S) -> None:
    """Wait until a process has ended, whoever its parent is."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        wait_readable(pidfd, deadline_s)
    except AssertionError:
        raise AssertionError(f"process {pid} still lives after {deadline_s} s") from None
    finally:
        os.close(pidfd)


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended; one that nobody has reaped yet counts as ended."""
    with contextlib.suppress(AssertionError):
        wait_gone(pid, 0)
        return True
    return False


def wait_until(condition: Callable[[], object], deadline_s: float = DEADLINE_S, what: str = "") -> None:
    """Wait for what no descriptor tells (the contents of /proc, say); looks again every 2 ms. Prefer the other waits."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {deadline_s} s: {what or condition}")
        select.select([], [], [], 0.002)


def tries() -> Iterator[int]:
    """Count tries, for as long as `DEADLINE_S`: what is promised to be quick has to be so once, as a busy machine stretches any of them."""
    deadline = time.monotonic() + DEADLINE_S
    number = 0
    while not number or time.monotonic() < deadline:
        yield number
        number += 1


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of an application."""

    returncode: int
    stdout: str
    stderr: str
    run_time_s: float


class Application:
    """A Python program in a process, session and folder of its own, that a test talks to through its standard streams."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.pid = process.pid
        self._started = time.monotonic()
        self._ahead = b""

    def line(self, deadline_s: float = DEADLINE_S) -> str:
        """Return the next line of its stdout, without the newline."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + deadline_s
        while b"\n" not in self._ahead:
            wait_readable(self.process.stdout.fileno(), max(0.0, deadline - time.monotonic()))
            piece = os.read(self.process.stdout.fileno(), 65536)
            if not piece:
                raise AssertionError(f"the application ended before it said a line; stderr:\n{self.finish().stderr}")
            self._ahead += piece
        line, self._ahead = self._ahead.split(b"\n", 1)
        return line.decode(errors="replace")

    def say(self, line: str) -> None:
        """Write a line to its stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def finish(self, deadline_s: float = DEADLINE_S) -> Ended:
        """Close its stdin, wait for its end and for that of its streams, and return what became of it."""
        try:
            stdout, stderr = self.process.communicate(timeout=deadline_s)
        except subprocess.TimeoutExpired:
            self.kill()
            stdout, stderr = self.process.communicate()
            raise AssertionError(f"the application had not ended after {deadline_s} s\nstdout:\n{stdout}\nstderr:\n{stderr}") from None
        stdout = self._ahead.decode(errors="replace") + stdout
        self._ahead = b""
        return Ended(self.process.returncode, stdout, stderr, time.monotonic() - self._started)

    def kill(self) -> None:
        """SIGKILL it and what is left in its process group. Its workers have groups of their own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


@contextlib.contextmanager
def start_application(code: str, *arguments: str, options: tuple[str, ...] = (), **environment: str) -> Iterator[Application]:
    """Run ``code`` as ``app.py``, in a folder of its own; the process is killed at the end of the block, if it still lives."""
    with tempfile.TemporaryDirectory(prefix="workq-test-") as name:
        folder = Path(name)
        script = folder / "app.py"
        script.write_text(textwrap.dedent(code))
        process = subprocess.Popen(
            [sys.executable, *options, str(script), *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "TMPDIR": name, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        app = Application(process, folder)
        try:
            yield app
        finally:
            if process.poll() is None:
                app.kill()
            with process:  # closes the streams and reaps it
                pass


def application(code: str, *arguments: str, deadline_s: float = DEADLINE_S, options: tuple[str, ...] = (), **environment: str) -> Ended:
    """Run ``code`` as an application to its end, and return what became of it."""
    with start_application(code, *arguments, options=options, **environment) as app:
        return app.finish(deadline_s)
