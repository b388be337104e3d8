"""The text and byte streams that stand as ``sys.stdout`` and ``sys.stderr`` in a worker.

No unit can close, detach or reconfigure them: they serve the next one too. What they write is kept by an `Output`.
"""

from __future__ import annotations

import io
import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from workq.worker.output import Output


class TextStream(io.TextIOBase):
    """What stands as ``sys.stderr`` in a worker. It cannot be closed, detached or reconfigured by a unit."""

    encoding = "utf-8"
    errors = "backslashreplace"
    newlines = None
    line_buffering = False
    write_through = False
    mode = "w"

    def __init__(self, output: Output, number: int, name: str) -> None:
        self._output = output
        self._number = number
        self.name = name
        self.buffer = ByteStream(output, number, name)

    def write(self, text: str, /) -> int:
        """Write the text to the descriptor at once."""
        self._output.add_bytes(self._number, encoded(plain_text(text)))
        return len(text)

    def flush(self) -> None:
        """Nothing is held here."""

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return False

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """Only flush: the next unit needs the stream."""
        self.flush()

    def detach(self) -> Any:
        """Return the byte stream; this one goes on."""
        return self.buffer

    def reconfigure(self, **options: Any) -> None:
        """Do nothing: encoding and buffering are workq's."""


class KeptStream(TextStream):
    """What stands as ``sys.stdout``: keeps its text, see `Output.pending`."""

    def write(self, text: str, /) -> int:
        """Keep the text. Two of these are one print, so that this is short."""
        output = self._output
        length = len(text)
        if type(text) is not str or length > output.room:
            output.add_text(plain_text(text))
        else:
            output.room -= length
            output.pending.append(text)
        return length

    def flush(self) -> None:
        """Bring what was written before into order with what others write to the descriptor from now on."""
        if self._output.pending:
            self._output.send_text_down()


def plain_text(text: str) -> str:
    """Return the text as a real str. Raises TypeError, as any text stream does."""
    if not isinstance(text, str):
        raise TypeError(f"write() argument must be str, not {type(text).__name__}")
    return str.__str__(text)


class ByteStream(io.RawIOBase):
    """The ``buffer`` of a stream: bytes go to the descriptor at once, after the text before them."""

    mode = "wb"

    def __init__(self, output: Output, number: int, name: str) -> None:
        self._output = output
        self._number = number
        self.name = name

    def write(self, data: Any, /) -> int:
        whole = bytes(data)
        self._output.add_bytes(self._number, whole)
        return len(whole)

    def flush(self) -> None:
        """Nothing is held here."""

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Stay open: a ``TextIOWrapper`` that a unit has put around this closes it when it is collected."""


def write_all(fd: int, data: bytes) -> None:
    """Write all of it, also where a unit has made the descriptor non-blocking. Raises OSError where it is closed."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()


def encoded(text: str) -> bytes:
    """Return text as bytes; lone surrogates as backslash escapes."""
    return text.encode("utf-8", "backslashreplace")
