"""A progress bar, for `map(progress=True)` and `sync(progress=True)`: by tqdm or rich where one is installed, else a plain line.

Drawn by the thread that waits, in its own pauses: there is no other. Where stderr is no terminal, and this no notebook, nothing is shown.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from workq.given.arguments import check_progress
from workq.seeing.tables import rate, seconds

if TYPE_CHECKING:
    from workq.controller.records import Queue

EACH_S = 0.1  # between two drawings
MOST_NOTES = 2  # running units whose own progress is shown


class Face(Protocol):
    """What draws."""

    def draw(self, done: int, failed: int, total: int | None, note: str) -> None: ...
    def aside(self) -> contextlib.AbstractContextManager[object]: ...
    def close(self) -> None: ...


class Bar:
    """How far a wait has come. Owned by the thread that waits."""

    def __init__(self, row: Queue, total: int | None, make: Callable[[int, int | None], Face], notes: Callable[[], list[str]]) -> None:
        self._row = row
        self._total = total
        self._make = make  # given what had ended before, and the total
        self._face: Face | None = None  # until something is shown: a map that nobody reads leaves nothing on the screen
        self._notes = notes
        self._next = 0.0
        self._last = (0, 0)
        self._closed = False

    def pause_s(self, left: float | None) -> float:
        """Return how long to wait before the next drawing, at most."""
        pause = max(0.001, self._next - time.monotonic())
        return pause if left is None else min(pause, left)

    def show(self, done: int, failed: int, total: int | None = None) -> None:
        """Draw, if it is time."""
        self._last = done, failed
        self._total = total if total is not None else self._total
        if self._face is None and not self._closed:
            self._face = self._make(done, self._total)
            self._row.bar = self  # whoever writes output of its units makes room first
        if time.monotonic() >= self._next:
            self._draw(" | ".join(self._notes()[:MOST_NOTES]))

    def _draw(self, note: str) -> None:
        if self._face is not None:
            self._face.draw(*self._last, self._total, note)
            self._next = time.monotonic() + EACH_S

    def aside(self) -> contextlib.AbstractContextManager[object]:
        """Around what is written to the terminal meanwhile."""
        return self._face.aside() if self._face is not None else contextlib.nullcontext()

    def close(self) -> None:
        """Draw for the last time. Safe to call twice."""
        self._draw("")
        self._closed = True
        face, self._face = self._face, None
        if face is not None:
            face.close()
        if self._row.bar is self:
            self._row.bar = None


def bar_for(row: Queue, progress: object, title: str, total: int | None, notes: Callable[[], list[str]]) -> Bar | None:
    """Return the bar that was asked for, or None where there is none to be shown.

    Raises:
        ArgumentError: There is no such bar, or its library is not installed.
    """
    check_progress(progress)
    if progress is False:
        return None
    if _in_notebook():
        return Bar(row, total, partial(Cell, title), notes)
    if not _on_terminal():
        return None
    return Bar(row, total, partial(_face, str(progress), title), notes)


def _face(kind: str, title: str, before: int, total: int | None) -> Face:
    for name, make in (("tqdm", Tqdm), ("rich", Rich)):
        if kind in (name, "True"):
            try:
                return make(title, before, total)
            except ImportError:
                if kind == name:
                    raise
    return Line(title, before, total)


def _on_terminal() -> bool:
    try:
        return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):  # None, closed, or of anybody's making
        return False


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and getattr(shell, "kernel", None) is not None


# ---------------------------------------------------------------- what draws


class Line:
    """One line of a terminal, drawn again and again. No colours."""

    def __init__(self, title: str, before: int, total: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._title = title
        self._before = before  # ended when the wait began, and so no part of the rate
        self._clock = clock
        self._begun = clock()
        self._text = ""

    def text(self, done: int, failed: int, total: int | None, note: str) -> str:
        """Return what is to be said."""
        spent_s = self._clock() - self._begun
        ended = done - self._before
        per_s = ended / spent_s if spent_s > 0 else 0.0
        parts = [f"{self._title}: {done}" + (f"/{total} ({100 * done // total} %)" if total else ""), f"{failed} failed" if failed else ""]
        parts += [f"{rate(per_s)}/s" if ended > 0 else "", seconds(spent_s)]
        if total and per_s > 0 and done < total:
            parts.append(f"{seconds((total - done) / per_s)} left")
        return ", ".join(filter(None, parts)) + (f" | {note}" if note else "")

    def draw(self, done: int, failed: int, total: int | None, note: str) -> None:
        self._text = self.text(done, failed, total, note)
        self._write("\r" + self._text[: shutil.get_terminal_size().columns - 1] + "\033[K")

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        self._write("\r\033[K")
        yield
        self._write("\r" + self._text[: shutil.get_terminal_size().columns - 1])

    def close(self) -> None:
        self._write("\n")

    def _write(self, text: str) -> None:
        with contextlib.suppress(Exception):  # the terminal has gone: no unit suffers from it
            sys.stderr.write(text)
            sys.stderr.flush()


class Cell:
    """An output of a notebook's cell, written anew each time."""

    def __init__(self, title: str, before: int, total: int | None) -> None:
        self._line = Line(title, before, total)
        self._handle: Any = None

    def draw(self, done: int, failed: int, total: int | None, note: str) -> None:
        from IPython import display as ipython

        display: Any = ipython.display
        data = {"text/plain": self._line.text(done, failed, total, note)}
        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)

    def aside(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()

    def close(self) -> None:
        return


class Tqdm:
    """tqdm's bar, without its thread."""

    def __init__(self, title: str, before: int, total: int | None) -> None:
        from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

        class Bar(tqdm):  # type: ignore[misc,type-arg,unused-ignore]
            monitor_interval = 0  # its thread would look after bars that nobody draws

        self._bar = Bar(desc=title, total=total, initial=before, unit="", file=sys.stderr, dynamic_ncols=True, miniters=0, mininterval=0)

    def draw(self, done: int, failed: int, total: int | None, note: str) -> None:
        self._bar.total = total
        self._bar.n = done
        self._bar.set_postfix_str(", ".join(filter(None, [f"{failed} failed" if failed else "", note])), refresh=False)
        self._bar.refresh()

    def aside(self) -> contextlib.AbstractContextManager[object]:
        return self._bar.external_write_mode(file=sys.stderr)  # type: ignore[no-any-return,unused-ignore]

    def close(self) -> None:
        self._bar.close()


class Rich:
    """rich's bar, without its thread. It keeps to NO_COLOR."""

    def __init__(self, title: str, before: int, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
        self._progress = Progress(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(file=sys.stderr), auto_refresh=False
        )
        self._progress.start()
        self._task = self._progress.add_task(title, total=total, completed=before, note="")

    def draw(self, done: int, failed: int, total: int | None, note: str) -> None:
        from rich.markup import escape

        said = escape(", ".join(filter(None, [f"{failed} failed" if failed else "", note])))
        self._progress.update(self._task, completed=done, total=total, note=said, refresh=True)

    def aside(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()  # it writes what goes to stdout and stderr above itself

    def close(self) -> None:
        self._progress.stop()
