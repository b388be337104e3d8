"""What units of these tests do. A module of its own, so that workers import this and not the tests."""

from __future__ import annotations

import builtins
import gc
import logging
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import workq

PATTERN = b"mine alone\n"


# ---------------------------------------------------------------- descriptors


def close_all(first: int) -> str:
    """Close every descriptor from this one on."""
    os.closerange(first, 65536)
    return f"closed from {first}"


def close_all_and_open(folder: str, count: int) -> int:
    """Close everything, then open so many files that every number which was ours is one of them. They stay open."""
    os.closerange(0, 65536)
    for number in range(count):
        descriptor = os.open(f"{folder}/{number}", os.O_RDWR | os.O_CREAT)
        os.write(descriptor, PATTERN)
    return count


def close_all_and_talk(folder: str, count: int) -> int:
    """The same, and then use whatever of workq's goes through a descriptor."""
    close_all_and_open(folder, count)
    logging.getLogger("deeds").error("nobody can hear this")
    workq.flush()
    with workq.blocking():
        pass
    return count


def close_all_and_connect(folder: str) -> bytes:
    """Put sockets in the place of all descriptors; say what came out of them at the end of a unit with a large result."""
    os.closerange(0, 65536)
    while True:
        here, there = socket.socketpair()
        if here.fileno() > 1020:
            break
        KEPT.append((here, there))
    return bytes(1 << 20)


KEPT: list[object] = []


def close_all_large(size: int) -> bytes:
    """Close everything and return more than fits into shared memory."""
    os.closerange(0, 65536)
    return bytes(size)


# ---------------------------------------------------------------- processes and threads


def fork_and_return() -> int:
    """Both parent and child return."""
    return 1 if os.fork() == 0 else 2


def fork_and_raise() -> int:
    if os.fork() == 0:
        raise LookupError("in the child")
    return 2


def fork_and_exit(code: int) -> int:
    child = os.fork()
    if child == 0:
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fork_and_stay() -> int:
    """Leave a child that lives until it is killed; return its number."""
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    return child


def use_multiprocessing(numbers: list[int]) -> list[int]:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, numbers)


def start_threads(count: int) -> int:
    """Start threads that never end."""
    for number in range(count):
        threading.Thread(target=threading.Event().wait, name=f"endless-{number}", daemon=number % 2 == 0).start()
    return os.getpid()


def ignore_interrupts(fifo: str) -> None:
    """Say that it runs, and then never end."""
    with open(fifo, "w") as file:
        file.write("x")
    while True:
        try:
            threading.Event().wait(60)
        except BaseException:
            continue


def wait_in_vain(fifo: str) -> None:
    """Say that it runs, and wait in a way that any interrupt ends."""
    with open(fifo, "w") as file:
        file.write("x")
    threading.Event().wait(600)


# ---------------------------------------------------------------- what belongs to the process


def settle_in(folder: str) -> None:
    """An initializer that sets its worker up."""
    os.chdir(folder)
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    threading.Thread(target=threading.Event().wait, name="from-the-start", daemon=True).start()


def change_folder(folder: str) -> int:
    os.chdir(folder)
    return os.getpid()


def change_environment(name: str) -> int:
    os.environ[name] = "changed"
    return os.getpid()


def change_handlers() -> int:
    for number in (signal.SIGUSR2, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    return os.getpid()


def block_signals() -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    return os.getpid()


def meddle() -> int:
    """Change what belongs to the whole process."""
    sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = None  # type: ignore[assignment]
    logging.disable(logging.CRITICAL)
    os.umask(0o777)
    gc.disable()
    sys.setrecursionlimit(120)
    signal.setitimer(signal.ITIMER_REAL, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return os.getpid()


def replace_builtins() -> int:
    def refuse(*arguments: object, **named: object) -> object:
        raise RuntimeError("a builtin that a unit has replaced")

    for name in ("len", "type", "max", "min", "print", "isinstance", "open", "any", "bool", "range", "map", "sum", "bytes", "enumerate"):
        setattr(builtins, name, refuse)
    return os.getpid()


def lower_descriptor_limit() -> int:
    resource.setrlimit(resource.RLIMIT_NOFILE, (4, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return os.getpid()


def state() -> dict[str, object]:
    """What a unit finds."""
    return {
        "pid": os.getpid(),
        "folder": os.getcwd(),
        "handlers": [str(signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGHUP)],
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "stdout": sys.stdout is not None,
        "environment": {name for name in os.environ if name.startswith("DEED")},
    }


def pid() -> int:
    return os.getpid()


def parent_pid() -> int:
    return os.getppid()


def break_and_queue_inside(folder: str) -> int:
    """Have further workers of this category fail, then wait for a unit in it."""
    os.unlink(f"{folder}/mended")
    with workq.WorkMgr(2) as inner:
        return inner.queue(pid).result()


# ---------------------------------------------------------------- memory


def take_memory(limit_bytes: int) -> int:
    """Ask for more than the process may have."""
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, resource.RLIM_INFINITY))
    try:
        return len(bytearray(limit_bytes * 2))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def take_all_memory(limit_bytes: int) -> None:
    """Have small objects fill what the process may have, and leave the limit in place."""
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, resource.RLIM_INFINITY))
    kept: list[object] = []
    while True:
        kept.append(bytearray(100_000))


# ---------------------------------------------------------------- output


def printf(text: str) -> None:
    """Write by the C library's own buffer."""
    import ctypes

    library = ctypes.CDLL(None)
    library.printf(b"%s", text.encode())
    library.fflush(None)


def write_in_all_ways(name: str) -> str:
    print(name, "print", flush=True)
    os.write(1, f"{name} os.write\n".encode())
    print(name, "print again")
    sys.stdout.flush()
    subprocess.run(["echo", f"{name} subprocess"], check=True)
    sys.stdout.flush()
    os.system(f"echo {name} system")
    printf(f"{name} printf\n")
    print(name, "stderr", file=sys.stderr)
    return name


def write_bytes(data: bytes) -> int:
    return os.write(1, data)


def write_much(size: int) -> int:
    """Write by a child that does nothing else."""
    return subprocess.run(f"yes abcdefg | head -c {size}", shell=True, check=True).returncode


def write_much_here(size: int) -> int:
    piece = b"x" * 65535 + b"\n"
    written = 0
    while written < size:
        written += os.write(1, piece)
    return written


def write_much_in_c(size: int) -> int:
    """Write by a C function that keeps the interpreter's lock: nobody in this process can read meanwhile."""
    import ctypes

    write = ctypes.PyDLL(None).write
    data = ctypes.create_string_buffer(b"x" * size, size)
    return int(write(1, data, size))


def write_much_in_c_again_and_again(size: int, fifo: str, times: int) -> None:
    """The same several times; before each but the first wait in C for a byte."""
    import ctypes

    loaded = ctypes.PyDLL(None)
    data, byte = ctypes.create_string_buffer(b"x" * size, size), ctypes.create_string_buffer(1)
    with open(fifo, "rb", buffering=0) as file:
        loaded.write(1, data, size)
        for _ in range(times - 1):
            loaded.read(file.fileno(), byte, 1)
            loaded.write(1, data, size)


def print_lines(name: str, count: int) -> None:
    for number in range(count):
        print(f"{name} {number}")


def print_flush_wait(text: str, fifo: str) -> None:
    """Print, hand it over, and then wait for a word."""
    print(text)
    workq.flush()
    with open(fifo) as file:
        file.read()
    print("the rest")


def print_flush(text: str) -> None:
    print(text)
    workq.flush()


def print_and_raise(text: str) -> None:
    print(text)
    raise LookupError(text)


def write_and_die(text: str) -> None:
    os.write(1, text.encode())
    os.kill(os.getpid(), signal.SIGKILL)


# ---------------------------------------------------------------- logs


def log(name: str, level: int, message: str, *arguments: object) -> None:
    logging.getLogger(name).log(level, message, *arguments)


def log_many(count: int) -> int:
    logger = logging.getLogger("deeds.many")
    for number in range(count):
        logger.warning("record %d", number)
    return count


def log_rich() -> None:
    try:
        raise LookupError("what was raised")
    except LookupError:
        logging.getLogger("deeds.rich").exception("with %s", "arguments", extra={"colour": "blue", "odd": threading.Lock()})


def log_from_threads(threads: int, count: int) -> None:
    """Return while threads still log."""
    for _ in range(threads):
        threading.Thread(target=log_many, args=(count,)).start()


def log_in_child(message: str) -> int:
    child = os.fork()
    if child == 0:
        logging.getLogger("deeds.child").error(message)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def log_in_multiprocessing(count: int) -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(log_one, range(count))


def log_one(number: int) -> None:
    logging.getLogger("deeds.pool").warning("record %d", number)


def log_and_die(count: int) -> None:
    logger = logging.getLogger("deeds.dying")
    for number in range(count):
        logger.warning("record %d", number)
    os.kill(os.getpid(), signal.SIGKILL)


def enabled(name: str) -> list[int]:
    """Return the levels at which this logger's records are made at all."""
    logger = logging.getLogger(name)
    return [level for level in (10, 20, 30, 40, 50) if logger.isEnabledFor(level)]


def take_handlers_away() -> None:
    logging.basicConfig(force=True, level=logging.DEBUG, stream=sys.stderr)


# ---------------------------------------------------------------- starts


def break_start(folder: str, how: str) -> None:
    """An initializer that fails in some way, as long as nobody has mended it by a file."""
    descriptor = os.open(f"{folder}/tries", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, b"x")
    os.close(descriptor)
    if Path(folder, "mended").exists():
        return
    if how == "raise":
        raise LookupError("the initializer has failed")
    if how == "exit":
        sys.exit("the initializer has left")
    if how == "_exit":
        os.write(2, b"the initializer has gone\n")
        os._exit(7)
    if how == "die":
        os.write(2, b"the initializer has died\n")
        os.kill(os.getpid(), signal.SIGKILL)
    os.write(2, b"the initializer hangs\n")
    threading.Event().wait()
