"""The messages between the application and its launcher: what they are, and how they travel with descriptors.

One message is one packet, a marshalled tuple whose first item says its kind. Both sides run the same interpreter, and marshal is
built in. Loaded by the launcher: only cheap imports.

To the launcher (after the first packet, which is the configuration, a dict):
    (START, number, name) and the worker's descriptors, see ``launcher.Ends``
From the launcher:
    (HELLO, pid) and a pidfd of the launcher      it is up
    (STARTED, number, pid) and a pidfd            the worker exists
    (FAILED, number, why, errno)                  it could not be made
    (EXITED, number, code, peak_rss_bytes)        it was reaped
End-of-file says the rest: to the launcher "end everything and leave", from the launcher "I am dead".
"""

from __future__ import annotations

import _socket
import marshal
import os
from _socket import CMSG_SPACE, MSG_DONTWAIT, SCM_RIGHTS, SOL_SOCKET

TYPE_CHECKING = False  # typing itself would cost the launcher milliseconds
if TYPE_CHECKING:
    from _socket import socket
    from typing import Any

    Message = tuple[Any, ...]

CLOSE_ON_EXEC = getattr(_socket, "MSG_CMSG_CLOEXEC", 0)  # macOS has neither
NO_SIGNAL = getattr(_socket, "MSG_NOSIGNAL", 0)

START = 1
HELLO = 2
STARTED = 3
FAILED = 4
EXITED = 5

MESSAGE_BYTES = 1 << 16
MESSAGE_DESCRIPTORS = 8
DESCRIPTOR_BYTES = 4


class Outbox:
    """Messages on their way, in order. Nothing here waits: what the socket does not take now is sent by a later ``flush``.

    It owns the descriptors that it is given, and closes them once they are sent. The kernel queues only about ten packets
    (net.unix.max_dgram_qlen), so ``waiting`` is not rare when many workers start or end at once.
    """

    def __init__(self, channel: socket) -> None:
        self.channel = channel
        self._messages: list[tuple[bytes, list[int]]] = []

    @property
    def waiting(self) -> bool:
        """Say whether messages are left, that is, whether it is worth knowing when the socket can be written."""
        return bool(self._messages)

    def post(self, message: Message, descriptors: list[int]) -> None:
        """Send a message as soon as the socket takes it."""
        self._messages.append((marshal.dumps(message), descriptors))
        self.flush()

    def flush(self) -> None:
        """Send what the socket takes now. A broken socket drops everything: its reader will learn of it by end-of-file."""
        while self._messages:
            data, descriptors = self._messages[0]
            try:
                send(self.channel, data, descriptors)
            except BlockingIOError:
                return
            except OSError:
                return self.close()
            del self._messages[0]
            close_all(descriptors)

    def close(self) -> None:
        """Drop the messages that were not sent, and close their descriptors."""
        while self._messages:
            close_all(self._messages.pop()[1])


def send(channel: socket, data: bytes, descriptors: list[int]) -> None:
    """Send one packet without waiting, and without SIGPIPE."""
    rights = memoryview(bytearray(DESCRIPTOR_BYTES * len(descriptors))).cast("i")
    for index, descriptor in enumerate(descriptors):
        rights[index] = descriptor
    ancillary = [(SOL_SOCKET, SCM_RIGHTS, rights.cast("B"))] if descriptors else []
    channel.sendmsg([data], ancillary, MSG_DONTWAIT | NO_SIGNAL)


def receive(channel: socket) -> tuple[Message | None, list[int]]:
    """Take one message and its descriptors, which are not inheritable; None at end-of-file. BlockingIOError: there is none."""
    try:
        space = CMSG_SPACE(DESCRIPTOR_BYTES * MESSAGE_DESCRIPTORS)
        data, ancillary, _, _ = channel.recvmsg(MESSAGE_BYTES, space, MSG_DONTWAIT | CLOSE_ON_EXEC)
    except BlockingIOError:
        raise
    except OSError:  # ECONNRESET and its like: the other side is gone
        return None, []
    descriptors: list[int] = []
    for level, kind, rights in ancillary:
        if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
            whole = len(rights) - len(rights) % DESCRIPTOR_BYTES
            descriptors += memoryview(rights[:whole]).cast("i").tolist()
    return (marshal.loads(data) if data else None), descriptors


def close_all(descriptors: list[int]) -> None:
    """Close descriptors that may be closed already."""
    for descriptor in descriptors:
        try:
            os.close(descriptor)
        except OSError:
            pass
    descriptors.clear()
