"""What a unit that runs in the caller writes to ``sys.stdout`` and ``sys.stderr`` is kept, as a worker keeps it."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from workq.config import DEFAULTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workq.unit import Unit


class _Kept(io.TextIOBase):
    """Stands as a stream while a unit runs: keeps what the unit's thread writes, and passes on what others do."""

    def __init__(self, stream: Any, keep: Callable[[str], None]) -> None:
        self._stream = stream
        self._keep = keep
        self._thread = threading.get_ident()

    def write(self, text: str, /) -> int:
        """Keep it, or pass it on."""
        if threading.get_ident() != self._thread:
            return int(self._stream.write(text))
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._keep(text)
        return len(text)

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Stay open: it stands for a stream that is not the unit's to close."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Pieces:
    """The output of one unit, bounded as in a worker."""

    def __init__(self, unit: Unit[Any]) -> None:
        self._unit = unit
        self._room = DEFAULTS.output_bytes

    def keep(self, number: int, text: str) -> None:
        """Add a piece; what is too much is cut, with a line that says so."""
        if self._room <= 0 or not text:
            return
        kept = text[: self._room]
        self._room -= len(text)
        if self._room <= 0:
            kept += f"\n[workq: output cut at {DEFAULTS.output_bytes} bytes]\n"
        self._unit.need_extra().output.append((number, kept))


@contextmanager
def caught_output(unit: Unit[Any]) -> Iterator[None]:
    """Keep what this thread prints, as output of a unit."""
    pieces = _Pieces(unit)
    before = sys.stdout, sys.stderr
    mine = _Kept(before[0], lambda text: pieces.keep(1, text)), _Kept(before[1], lambda text: pieces.keep(2, text))
    sys.stdout, sys.stderr = mine
    try:
        yield
    finally:
        if sys.stdout is mine[0]:
            sys.stdout = before[0]
        if sys.stderr is mine[1]:
            sys.stderr = before[1]


__all__ = ["caught_output"]
