"""Frames on a worker's socket, and what may come between their bytes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from tests.support import wait_readable
from workq.transport.channel import BELL, UP_HEAD, UP_LOG, UP_RESULT, Incoming

PAYLOAD = os.urandom(200_000)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("kind", [UP_RESULT, UP_LOG])
@pytest.mark.parametrize("cut", [1, 9, 10, 100_000])
def test_a_kick_in_the_middle_of_a_frame_does_it_no_harm(pair: tuple[socket.socket, socket.socket], kind: int, cut: int) -> None:
    """The kernel takes a large frame in pieces, and a kick of ours may come between two of them."""
    ours, theirs = pair
    incoming = Incoming(ours)  # type: ignore[arg-type]
    frame = UP_HEAD.pack(kind, len(PAYLOAD)) + PAYLOAD
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:  # another process: the kernel tells them apart
        ours.close()
        os.close(write_end)
        theirs.sendall(frame[:cut])
        os.read(read_end, 1)  # until it is closed
        theirs.sendall(frame[cut:])
        os._exit(0)
    wait_readable(ours.fileno())
    incoming.receive()
    theirs.send(BELL)
    incoming.receive()
    os.close(write_end)
    while not incoming.results and not incoming.others:
        wait_readable(ours.fileno())
        incoming.receive()
    arrived = incoming.results.popleft() if kind == UP_RESULT else incoming.others.popleft().payload
    assert bytes(arrived) == PAYLOAD
    assert not incoming.partial
    os.waitpid(pid, 0)
    os.close(read_end)


def test_a_lone_waiter_is_woken_by_a_kick(pair: tuple[socket.socket, socket.socket]) -> None:
    incoming = Incoming(pair[0])  # type: ignore[arg-type]
    pair[1].send(BELL)
    incoming.wait_one_byte()
    assert not incoming.partial
