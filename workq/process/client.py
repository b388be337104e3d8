"""The application's side of the launcher: makes it, talks to it, and says when it is gone.

Nothing here waits, but for ``end``. Used by one thread, the controller's, but for the first launcher, which another one makes: it waits for
what is imported here before its first result can come, so that is little. How the launcher ended is asked of the kernel by its pidfd and
never taken from ``Popen``: the application may ignore SIGCHLD, or reap all its children itself.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # `signal` and `socket` themselves bring enums and selectors: 2 ms
import _socket as socket
import errno
import fcntl
import logging
import marshal
import os
import select
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workq.errors import LaunchError
from workq.process import messages
from workq.process.messages import Outbox
from workq.process.standard import above_standard, raise_above_standard

if TYPE_CHECKING:
    from workq.process.messages import Message

logger = logging.getLogger("workq")

PACKETS = getattr(socket, "SOCK_SEQPACKET", socket.SOCK_DGRAM) if sys.platform != "darwin" else socket.SOCK_DGRAM
STDERR_TAIL_BYTES = 4096
WORKER_ENTRY = "workq.worker.main:run"
REAP_S = 0.25  # how long a process is waited for after a SIGKILL
OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}

# What the launcher runs before it can import anything of ours: the first packet holds the application's sys.path.
BOOTSTRAP = (
    "import sys,marshal,_socket;channel=_socket.socket(fileno={descriptor});config=marshal.loads(channel.recv(1<<20));"
    "sys.path[:]=config['path'];from workq.process.launcher import main;main(channel,config)"
)


class Launcher:
    """One launcher process, as the application sees it.

    Attributes:
        pid: Its process number (of a wrapper, see ``argv``, until it has said hello).
        pidfd: A descriptor that is readable once it has ended, or -1.
        channel: The socket; its messages are taken by ``receive``.
        error_fd: The read end of its stderr; its bytes are taken by ``read_stderr``.
        outbox: What is on its way to the launcher.
        ready: It has said hello.
        heard_at: When it last said anything, or was started (``time.monotonic()``).
    """

    def __init__(self, bells: tuple[int, int], entry_point: str, start_method: str, argv: Sequence[str] | None, pidfd: bool) -> None:
        """Start the process.

        Args:
            bells: Two descriptors that each worker inherits.
            entry_point: ``module:function`` that a worker runs.
            start_method: ``"launcher"``; ``"fork"``: a fork of the application instead of a new interpreter; ``"spawn"``: as the first, but
                it starts a new interpreter for each worker instead of a fork of itself.
            argv: A command whose item ``{command}`` stands for the launcher's own, or None for that alone.
            pidfd: False: do as on a system that has no pidfds.

        Raises:
            LaunchError: It cannot be started at all.
            OSError: No descriptors or no memory are left.
        """
        self.ready = False
        self.heard_at = time.monotonic()
        self.pid = 0
        self.pidfd = self._child_pidfd = self.error_fd = self._life_fd = -1
        self._stderr = b""
        self._exit_code: int | None = None
        pidfd = pidfd and hasattr(os, "pidfd_open")
        ours, theirs = socket.socketpair(socket.AF_UNIX, PACKETS)
        self.channel = above_standard(ours)
        self.outbox = Outbox(self.channel)
        given = [theirs.detach()]  # what becomes the launcher's; closed here in any case
        try:
            self.channel.setblocking(False)
            given += map(os.dup, bells)
            reader, self._life_fd = os.pipe()
            given.append(reader)
            self.error_fd, writer = os.pipe()
            given.append(writer)
            os.set_blocking(self.error_fd, False)
            if pidfd:
                given.append(os.pidfd_open(os.getpid()))
            raise_above_standard(given)
            _, leader_bell, controller_bell, life_fd, error = given[:5]
            config = {
                "path": [os.path.abspath(folder) for folder in sys.path],
                "argv": [str(item) for item in sys.argv],
                "entry_point": entry_point,
                "bells": (leader_bell, controller_bell),
                "life_fd": life_fd,
                "application_fd": given[5] if pidfd else -1,
                "application_pid": os.getpid(),
                "pidfd": pidfd,
                "spawn": start_method == "spawn",
                "command": interpreter(),
            }
            if start_method == "fork":
                self.pid = fork_launcher(given, error, config)
            else:
                self.channel.send(marshal.dumps(config))
                self.pid = execute_launcher(given, error, argv)
            if pidfd:
                self.pidfd = self._child_pidfd = os.pidfd_open(self.pid)
        except BaseException:
            self.discard()
            raise
        finally:
            messages.close_all(given)

    def receive(self) -> tuple[Message | None, list[int]]:
        """Take one message; None at end-of-file. BlockingIOError: there is none. A greeting is dealt with here."""
        message, descriptors = messages.receive(self.channel)
        self.heard_at = time.monotonic()
        if message and message[0] == messages.HELLO:
            self.ready = True
            self._meet(message[1], descriptors)
        return message, descriptors

    def _meet(self, pid: int, descriptors: list[int]) -> None:
        """Note who the launcher is, if a wrapper stands between it and us."""
        if pid != self.pid and descriptors:
            self.pid, self.pidfd = pid, descriptors.pop()
        elif pid != self.pid:
            self.pid, self.pidfd = pid, -1
        messages.close_all(descriptors)

    def read_stderr(self) -> bool:
        """Keep the last of what it wrote to stderr; False at end-of-file."""
        try:
            while data := os.read(self.error_fd, 1 << 16):
                self._stderr = (self._stderr + data)[-STDERR_TAIL_BYTES:]
        except BlockingIOError:
            return True
        return False

    def why_gone(self) -> str:
        """Say how the launcher ended, with the last that it wrote."""
        self.read_stderr()
        how = "the launcher of the workers is gone" if self.ready else "the launcher of the workers could not start"
        if self._exit_code is not None:
            how += f" (signal {-self._exit_code})" if self._exit_code < 0 else f" (exit code {self._exit_code})"
        written = self._stderr.decode(errors="replace").strip()
        return f"{how}; it wrote:\n{written}" if written else how

    # ------------------------------------------------------------ ending

    def resume(self) -> None:
        """Let it go on in case somebody has stopped it."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL it; no error if it is gone."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        try:
            if self.pidfd >= 0:
                signal.pidfd_send_signal(self.pidfd, number)
            elif self.pid and self._exit_code is None:
                os.kill(self.pid, number)
        except OSError:
            pass

    def begin_end(self) -> None:
        """Tell it to kill everything and leave. ``shutdown`` reaches it although a child of ours may hold the socket too."""
        self.outbox.close()
        self.resume()
        try:
            self.channel.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def wait_ended(self, deadline: float) -> bool:
        """Wait until the process has ended, and reap it; False if the deadline comes first."""
        while not self._reap():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            waiting = select.poll()
            waiting.register(self.pidfd if self.pidfd >= 0 else self.channel.fileno(), select.POLLIN)
            waiting.poll(min(left, 1.0 if self.pidfd >= 0 else 0.01) * 1000)
            if self.pidfd < 0:
                self._discard_messages()
        return True

    def _reap(self) -> bool:
        """Say whether it has ended, and take its status if that is still to be had."""
        if self._exit_code is not None:
            return True
        if self.pidfd >= 0 and not is_readable(self.pidfd):
            return False
        try:
            if self._child_pidfd >= 0:
                result = os.waitid(os.P_PIDFD, self._child_pidfd, os.WEXITED | os.WNOHANG)
                if result is not None:
                    self._exit_code = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
            else:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid == 0:
                    return False
                self._exit_code = os.waitstatus_to_exitcode(status)
        except ChildProcessError:  # SIGCHLD is ignored, or the application was faster
            return self.pidfd >= 0 or not process_exists(self.pid)
        return True

    def _discard_messages(self) -> None:
        """Make room for the launcher's last messages, whose descriptors we do not want."""
        try:
            while (received := messages.receive(self.channel))[0] is not None:
                messages.close_all(received[1])
        except BlockingIOError:
            pass

    def discard(self) -> None:
        """Kill and reap it, and close all: nobody is going to use it."""
        if self.pid:
            self.kill()
            self.wait_ended(time.monotonic() + REAP_S)
        self.close()

    def close(self) -> None:
        """Close all descriptors. The end of the life pipe kills the groups of workers that are left. Safe to call twice."""
        self.outbox.close()
        self.channel.close()
        messages.close_all([one for one in {self.pidfd, self._child_pidfd, self.error_fd, self._life_fd} if one >= 0])
        self.pidfd = self._child_pidfd = self.error_fd = self._life_fd = -1

    def __del__(self) -> None:
        """Nobody has it: a signal handler raised in the thread that made it. The end of its channel ends the process too."""
        if hasattr(self, "outbox"):
            self.close()


# ---------------------------------------------------------------- making the process


def interpreter() -> list[str]:
    """Return the command of an interpreter like this one, with the same flags."""
    first = sys.orig_argv[1:2]
    if not first or not first[0].startswith("-") or first[0] in ("-", "-c", "-m"):
        return [sys.executable]  # without flags on its command line; those in the environment come with that
    import subprocess  # 2 ms before the first result

    return [sys.executable, *subprocess._args_from_interpreter_flags()]  # type: ignore[attr-defined]


def execute_launcher(given: list[int], error: int, argv: Sequence[str] | None) -> int:
    """Start a fresh interpreter as the launcher; return its pid."""
    if not sys.executable:
        raise LaunchError("the launcher of the workers cannot be started: sys.executable is empty (an embedded interpreter?)")
    code = BOOTSTRAP.format(descriptor=given[0])
    command = [*interpreter(), "-c", code]
    if argv is not None:
        command = [part for item in argv for part in (command if item == "{command}" else [item])]
    try:
        return spawn(command, [one for one in given if one != error], error)
    except OSError as problem:
        if problem.errno in OUT_OF_RESOURCES:
            raise
        raise LaunchError(f"the launcher of the workers cannot be started: {command[0]}: {problem.strerror}") from problem


def spawn(command: list[str], kept: list[int], error: int) -> int:
    """Start a process with these descriptors and no others, its stderr led to ``error``; return its pid.

    As ``subprocess`` does it, whose import takes longer than the start. The application's memory is not copied, however large it is.
    """
    try:
        return spawn_quickly(command, kept, error)
    except (NotImplementedError, ValueError):  # a Python built where the C library had no setsid; a variable without a name
        pass
    except OSError as problem:
        if problem.errno != errno.EBADF:  # a descriptor above a limit that was lowered since
            raise
    import subprocess

    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=error, pass_fds=kept, start_new_session=True
    )
    process.returncode = 0  # Popen must neither wait for it nor warn of it: we look after it by its pidfd
    return process.pid


def spawn_quickly(command: list[str], kept: list[int], error: int) -> int:
    """Do that by one call of C.

    What is kept goes by way of descriptor 2, whose copies stay open over the execution; not every C library leaves open what is led onto
    itself. The environment is copied in one step, as other threads may change it.
    """
    others = [one for one in inheritable() if one not in kept]
    return os.posix_spawnp(
        command[0],
        command,
        dict(getattr(os.environ, "_data", os.environ)),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            *((os.POSIX_SPAWN_CLOSE, one) for one in others),
            *((os.POSIX_SPAWN_DUP2, *way) for one in kept for way in ((one, 2), (2, one))),
            (os.POSIX_SPAWN_DUP2, error, 2),
        ],
        setsid=True,  # from its first instant: Ctrl-C in a terminal is not for it
        setsigdef=[number for name in ("SIGPIPE", "SIGXFZ", "SIGXFSZ") if (number := getattr(signal, name, 0))],  # which Python ignores
    )


def inheritable() -> list[int]:
    """Return the descriptors above the standard ones that the application would hand to each of its children."""
    found = []
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            numbers = [int(name) for name in os.listdir(folder)]
        except OSError:
            continue
        for number in numbers:
            try:
                if number > 2 and not fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                    found.append(number)
            except OSError:
                pass  # it was the one that has listed the others, or another thread has closed it
        break
    return found


def fork_launcher(given: list[int], error: int, config: dict[str, Any]) -> int:
    """Make the launcher a fork of the application; return its pid."""
    others = [thread.name for thread in threading.enumerate() if thread not in (threading.current_thread(), threading.main_thread())]
    if others:
        logger.warning("start_method='fork' while other threads run (%s): workers may dead-lock on what those hold", ", ".join(others))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 says the same with fewer words
        pid = os.fork()
    if pid == 0:
        try:
            run_forked(given, error, config)
        except BaseException as problem:
            os.write(error, f"{type(problem).__name__}: {problem}".encode())
        finally:
            os._exit(1)
    return pid


def run_forked(given: list[int], error: int, config: dict[str, Any]) -> None:
    """In the fork: close what is the application's, and be the launcher."""
    from workq.process import become, launcher

    null = os.open(os.devnull, os.O_RDWR)
    for source, target in ((null, 0), (null, 1), (error, 2)):
        os.dup2(source, target)
    become.close_others({0, 1, 2, *given})
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode, closefd=False) for number, mode in ((0, "r"), (1, "w"), (2, "w")))
    launcher.main(socket.socket(fileno=given[0]), config)


# ---------------------------------------------------------------- questions to the kernel


def is_readable(descriptor: int) -> bool:
    """Say whether a pidfd's process has ended (or any other descriptor is readable), without waiting."""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    return bool(waiting.poll(0))


def process_exists(pid: int) -> bool:
    """Say whether there is such a process, zombies included."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
