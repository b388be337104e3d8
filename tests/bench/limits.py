"""What the machine allows: no library can do better than these."""

from __future__ import annotations

import os
import select
import socket
from time import perf_counter

from tests.bench.calls import processor, spin
from tests.bench.scale import Figures, Scale, trips_of


def raw_trip(scale: Scale, *, cores: int | None = None) -> Figures:
    """Eight bytes to another process and back, over a pair of sockets, with nothing else.

    The two are where the kernel places them, or held to one core, or each to a core of its own.
    """
    usable = sorted(os.sched_getaffinity(0))
    here, there = socket.socketpair()
    child = os.fork()
    if child == 0:
        here.close()
        if cores is not None:
            os.sched_setaffinity(0, {usable[cores - 1]})
        _echo(there)
    there.close()
    if cores is not None:
        os.sched_setaffinity(0, {usable[0]})

    def trip() -> None:
        here.send(b"12345678")
        here.recv(64)

    def processor_of_child() -> int:
        here.send(b"?")
        return int(here.recv(64))

    figures = trips_of(trip, processor_of_child, scale)
    here.close()
    os.waitpid(child, 0)
    return figures


def _echo(there: socket.socket) -> None:
    while data := there.recv(64):
        there.send(data if len(data) > 1 else b"%d" % processor())
    os._exit(0)


def memory_copy(scale: Scale, megabytes: int) -> Figures:
    """An array copied twice into memory that is already there: once for the way to a worker, once for the way back."""
    import numpy

    source = numpy.ones(megabytes << 17)
    target = numpy.zeros_like(source)
    times = []
    for _ in range(5):
        began = perf_counter()
        numpy.copyto(target, source)
        numpy.copyto(source, target)
        times.append(perf_counter() - began)
    return {"ms": sorted(times)[len(times) // 2] * 1000}


def beside_computing(scale: Scale) -> Figures:
    """One plain process with units of 1 ms: the rate that it keeps while its parent computes."""
    count = scale.pick(1000, 100)
    quiet = plain_processes(count, scale.loops_per_ms, processes=1)
    disturbed = plain_processes(count, scale.loops_per_ms, processes=1, compute=True)
    return {"share": quiet["unit_us"] / disturbed["unit_us"]}


def plain_processes(count: int, loops: int, processes: int = 2, *, compute: bool = False) -> Figures:
    """The same units, run in a loop by plain processes that were told how many; nothing is sent but "go" and "done"."""
    pairs = [socket.socketpair() for _ in range(processes)]
    children = []
    for number, (_, there) in enumerate(pairs):
        child = os.fork()
        if child == 0:
            _run(there, count // processes + (number < count % processes), loops)
        children.append(child)
    for here, _ in pairs:
        here.recv(1)
    began = perf_counter()
    for here, _ in pairs:
        here.send(b"g")
    while compute and not select.select([pairs[0][0]], [], [], 0)[0]:
        spin(100_000)
    for here, _ in pairs:
        here.recv(1)
    took = perf_counter() - began
    for child in children:
        os.waitpid(child, 0)
    return {"unit_us": took / count * 1e6}


def _run(there: socket.socket, count: int, loops: int) -> None:
    for _ in range(10):
        spin(loops)
    there.send(b"r")
    there.recv(1)
    for _ in range(count):
        spin(loops)
    there.send(b"d")
    os._exit(0)
