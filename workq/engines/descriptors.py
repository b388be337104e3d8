"""All descriptors of a new worker, made by the application: its own ends in a lane, the worker's in a list to be handed over."""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import ExitStack

from workq.engines.protocol import Lane
from workq.process import messages
from workq.process.standard import above_standard
from workq.transport.board import Board

SOCKET_BYTES = 1 << 20
PIPE_BYTES = 1 << 20


def make_lane(number: int, *, wide: bool) -> tuple[Lane, list[int]]:
    """Make all descriptors of one worker: the lane, and the worker's ends in the order of ``become.Ends``. OSError leaves nothing open."""
    process_info_id = uuid4()
    with ExitStack() as undo:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours = above_standard(ours)
        undo.callback(ours.close)
        undo.callback(theirs.close)
        for end in (ours, theirs):
            end.setblocking(True)  # whatever socket.setdefaulttimeout says
            widen_socket(end)
        board = Board.create()
        undo.callback(board.close)
        output_fd, output = make_pipe(undo, wide)
        error_fd, error = make_pipe(undo, wide)
        worker_ends: list[int] = []
        undo.callback(messages.close_all, worker_ends)
        worker_ends += map(os.dup, (theirs.fileno(), board.fd, output, error, output_fd, error_fd))
        board.close_fd()
        os.close(output)
        os.close(error)
        undo.pop_all()
    name = f"worker_{process_info_id[:8]}"
    return Lane(number, name, process_info_id, ours, theirs, board, output_fd, error_fd), worker_ends


def make_pipe(undo: ExitStack, wide: bool) -> tuple[int, int]:
    """Make a pipe; its read end does not block (on either side: the two sides share the open file)."""
    reader, writer = os.pipe()
    undo.callback(messages.close_all, [reader, writer])
    os.set_blocking(reader, False)
    if wide and hasattr(fcntl, "F_SETPIPE_SZ"):
        try:
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            pass  # the user's share of pipe memory is used up
    return reader, writer


def widen_socket(end: socket.socket) -> None:
    """Ask for a large buffer in both directions; the kernel gives what it allows."""
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        try:
            end.setsockopt(socket.SOL_SOCKET, option, SOCKET_BYTES)
        except OSError:
            pass


def uuid4() -> str:
    """Return what ``str(uuid.uuid4())`` does. To import that module takes longer than to start a worker."""
    number = int.from_bytes(os.urandom(16)) & ~(0xF << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62
    digits = f"{number:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
