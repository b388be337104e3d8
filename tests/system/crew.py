"""What the tests of workers' surroundings, set-up, sessions, limits and replacement have workers do. Workers import this, not the tests."""

from __future__ import annotations

import os
import random
import sys
import time
from typing import Any

import workq

NAMES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def seen(*names: str) -> list[str | None]:
    """Return what variables say."""
    return [os.environ.get(name) for name in names]


def seen_when_imported() -> Any:
    """Return what the module `tests.system.crew_early` saw when it was imported."""
    from tests.system import crew_early

    return crew_early.SEEN


def see_in_initializer() -> None:
    """Keep what an initializer sees."""
    worker = workq.current_worker()
    assert worker is not None
    KEPT["rank"] = worker.rank
    KEPT["seen"] = (os.environ.get("CREW"), os.getcwd(), sorted(os.sched_getaffinity(0)))


KEPT: dict[str, Any] = {}


def kept(name: str) -> Any:
    """Return what is kept here."""
    return KEPT.get(name)


def rank() -> int:
    """Return this worker's rank."""
    worker = workq.current_worker()
    assert worker is not None
    return worker.rank


def rank_and_wait(fifo: str) -> tuple[int, int]:
    """Return rank and pid once somebody has opened the other end of a fifo and closed it."""
    with open(fifo, "rb") as waiting:
        waiting.read()
    return rank(), os.getpid()


def device_and_wait(fifo: str) -> tuple[int, str | None, str | None]:
    """Return rank and device, now and as it was when the preload was imported."""
    return rank_and_wait(fifo)[0], os.environ.get("CUDA_VISIBLE_DEVICES"), seen_when_imported()["CUDA_VISIBLE_DEVICES"]


def cpus() -> list[int]:
    """Return the CPUs that this process may use."""
    return sorted(os.sched_getaffinity(0))


def numbers() -> tuple[float, float]:
    """Return random numbers, Python's and numpy's."""
    import numpy as np

    return random.random(), float(np.random.random())


def hour() -> int:
    """Return the hour of the epoch in the local time zone."""
    return time.localtime(0).tm_hour


def loaded(name: str) -> bool:
    """Return whether a module is loaded."""
    return name in sys.modules


# ---------------------------------------------------------------- set-up and tear-down


def note(path: str, word: str) -> None:
    """Append a line with this process's number to a file."""
    with open(path, "a") as file:
        file.write(f"{word} {os.getpid()}\n")


def set_up(path: str, value: object = None) -> None:
    """Note the set-up, and keep a value."""
    note(path, "up")
    KEPT["value"] = value
    KEPT["is_worker_job"] = workq.is_worker_job()
    print("set up")


def tear_down(path: str) -> None:
    """Note the tear-down."""
    note(path, "down")
    assert workq.is_worker_job() == KEPT["is_worker_job"]
    print("torn down")


def fail(path: str) -> None:
    """Note the attempt, and raise."""
    note(path, "fail")
    raise ConnectionRefusedError("the database does not answer")


def fail_once(path: str) -> None:
    """The same, but only where nobody has tried yet."""
    if not os.path.exists(path):
        fail(path)
    note(path, "up")


def fail_if(path: str) -> None:
    """The same, but only where that file exists; its lines say who tried."""
    if os.path.exists(path + ".broken"):
        fail(path)
    note(path, "up")


def wait_and_fail_if(fifo: str, path: str) -> None:
    """The same, when the other end of the fifo is closed."""
    if os.path.exists(path + ".broken"):
        with open(fifo, "rb") as file:
            file.read()
        fail(path)


def fail_but_in(pid_path: str, path: str) -> None:
    """Fail in every worker but the first."""
    try:
        os.close(os.open(pid_path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        fail(path)
    note(path, "up")


def leave(code: int) -> None:
    """End this process."""
    os._exit(code)


def hang(fifo: str) -> None:
    """Say that we are there, and wait for what never comes."""
    with open(fifo, "wb", 0) as out:
        out.write(b"!")
        while True:
            try:
                time_out()
            except BaseException:
                out.write(b"x")
                raise


def time_out() -> None:
    """Wait for a very long time, interruptibly."""
    import select

    select.select([], [], [], 1000)


def deaf(fifo: str) -> None:
    """Say that we are there, and hear nothing."""
    out = None
    while True:
        try:  # around everything: the interrupt may come right after the opening
            if out is None:
                out = open(fifo, "wb", 0)  # noqa: SIM115  nobody lives to close it
                out.write(b"!")
            time_out()
        except BaseException:
            continue


def change_home() -> None:
    """Change the working directory, as a set-up may."""
    os.chdir("/")


def pid() -> int:
    """Return this process's number."""
    return os.getpid()


def nested_set_up(path: str) -> list[Any]:
    """Set up a queue inside a unit, and run units of it."""
    with workq.WorkMgr(1) as wq:
        wq.setup(set_up, path, 8)
        wq.teardown(tear_down, path)
        return [wq.queue(kept, "value").result() for _ in range(2)]


def nested_session() -> list[Any]:
    """Use a session inside a unit, and lose it."""
    with workq.WorkMgr(1) as wq, wq.session() as session:
        session.run(keep, "a", 3)
        found = [session.run(kept, "a")]
        for call in (lambda: session.run(os._exit, 4), lambda: session.run(kept, "a")):
            try:
                found.append(call())
            except workq.SessionLost as error:
                found.append(str(error).split(":")[0].split(" ")[-1])
        return found


def keep(name: str, value: object) -> None:
    """Keep a value in this process."""
    KEPT[name] = value


def add(name: str, value: int) -> int:
    """Add to what is kept."""
    KEPT[name] = KEPT.get(name, 0) + value
    return int(KEPT[name])


# ---------------------------------------------------------------- limits


def take(mebibytes: int, then: str = "return") -> int:
    """Take memory and use it; then return, or wait."""
    held = [bytearray(b"x") * (mebibytes << 20)]
    if then == "wait":
        time_out()
    return sum(map(len, held)) >> 20


def take_deaf(mebibytes: int) -> None:
    """Take memory piece by piece, keep it, and hear nothing."""
    held: list[bytearray] = []
    while True:
        try:  # an interrupt may strike where the other loop has just heard of one
            _go_on_taking(held, mebibytes)
        except BaseException:
            pass


def _go_on_taking(held: list[bytearray], mebibytes: int) -> None:
    """A function of its own: in Python 3.13 what strikes at a loop's jump passes by the `try` in that loop, and the one around it."""
    while True:
        try:
            _take(held, mebibytes)
        except BaseException:
            pass


def _take(held: list[bytearray], mebibytes: int) -> None:
    while len(held) * 16 < mebibytes:
        held.append(bytearray(b"x") * (16 << 20))
    time_out()


def take_in_child(mebibytes: int) -> None:
    """Have a child process take memory, and wait for it."""
    import subprocess

    code = f"x = bytearray(b'x') * ({mebibytes} << 20); import select; select.select([], [], [], 1000)"
    subprocess.run([sys.executable, "-c", code], check=True)


def keep_memory(mebibytes: int) -> int:
    """Take memory, and never give it back."""
    KEPT.setdefault("memory", []).append(bytearray(b"x") * (mebibytes << 20))
    return os.getpid()


def burn(seconds: float) -> float:
    """Use CPU time."""
    begun = time.process_time()
    while time.process_time() - begun < seconds:
        pass
    return seconds


def burn_in_child(seconds: float) -> None:
    """Have a child process use CPU time, and wait for it."""
    import subprocess

    code = f"import time\nwhile time.process_time() < {seconds}: pass"
    subprocess.run([sys.executable, "-c", code], check=True)


def burn_in_threads(seconds: float) -> None:
    """Use CPU time in a thread, while the main thread waits for it."""
    import threading

    thread = threading.Thread(target=burn, args=(seconds,), daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.05)


def burn_deaf(seconds: float) -> float:
    """Use CPU time, and hear nothing."""
    while True:
        try:
            burn(seconds)
        except BaseException:
            continue
