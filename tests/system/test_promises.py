"""The seven promises of the README, each on real processes, and each in a fresh application."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.support import application, start_application, wait_gone

pytestmark = pytest.mark.slow


def test_p1_every_unit_ends() -> None:
    """Value, error, cancelled before and while it runs, timed out, lost, and dropped with its queue: all of them end."""
    ended = application(
        """
        import concurrent.futures, os, time, workq

        def fail(): raise LookupError("no")
        def die(): os._exit(9)

        if __name__ == "__main__":
            wq = workq.WorkMgr(2)
            units = []
            for n in range(50):
                units += [wq.queue(abs, -n), wq.queue(fail), wq.queue(die), wq.options(timeout=0.02).queue(time.sleep, 60)]
            cancelled = [wq.queue(time.sleep, 60) for _ in range(50)]
            units += cancelled
            for unit in cancelled:
                unit.cancel()
            concurrent.futures.wait(units)
            dropped = [wq.queue(time.sleep, 60) for _ in range(50)]
            wq.close()
            units += dropped
            kinds = {}
            for unit in units:
                assert unit.done()
                kinds[unit.state.value] = kinds.get(unit.state.value, 0) + 1
            print(sorted(kinds.items()))
        """,
        deadline_s=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "[('cancelled', 100), ('done', 50), ('failed', 50), ('lost', 50), ('timed out', 50)]"


COUNT_STARTS = """
    import os, signal, threading, workq

    def note(folder, n):
        # One byte in its own file for each start: what is written before a kill stays.
        fd = os.open(f"{folder}/{n}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, b"x")
        os.close(fd)
        return n

    def hold(folder, n):
        note(folder, n)
        signal.pause()

    def killed(wq, unit):
        # Kill the worker of a unit that holds it, with whatever was sent there behind that unit.
        while unit.state.value != "running":
            threading.Event().wait(0.002)
        for row in wq.workers():
            if row.unit == unit.label:
                os.kill(row.pid, signal.SIGKILL)
                return isinstance(unit.exception(), workq.WorkerHalted)

    if __name__ == "__main__":
        folder = os.path.dirname(os.path.abspath(__file__)) + "/starts"
        os.mkdir(folder)
        with workq.WorkMgr(2) as wq:
            units, kills = [], 0
            for n in range(2000):
                units.append(wq.queue(hold if n % 200 == 100 else note, folder, n))
                if n % 200 == 199:
                    kills += killed(wq, units[n - 99])
            lost = sum(isinstance(unit.exception(), workq.WorkerHalted) for unit in units)
            right = sum(unit.exception() is None and unit.result() == n for n, unit in enumerate(units))
        starts = {int(entry.name): os.path.getsize(entry.path) for entry in os.scandir(folder)}
        begun = sum(n in starts for n, unit in enumerate(units) if unit.exception() is None)
        print(max(starts.values()), begun, kills, lost, right)  # one that was lost may have been killed before it noted its start
"""


def test_p2_a_unit_is_started_at_most_once() -> None:
    ended = application(COUNT_STARTS, deadline_s=60)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["1", "1990", "10", "10", "1990"]


def test_p3_the_death_of_a_worker_loses_one_unit() -> None:
    """Units that had ended in the same batch, and those that wait behind, are not touched."""
    ended = application(
        """
        import os, workq

        def value(n):
            if n % 100 == 50:
                os._exit(1)
            return n

        if __name__ == "__main__":
            with workq.WorkMgr(2) as wq:
                units = [wq.queue(value, n) for n in range(1000)]
                lost = [n for n, unit in enumerate(units) if isinstance(unit.exception(), workq.WorkerHalted)]
                right = [n for n, unit in enumerate(units) if n not in lost and unit.result() == n]
                print(lost == list(range(50, 1000, 100)), len(lost) + len(right))
        """
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["True", "1000"]


@pytest.mark.parametrize(
    ("last_words", "exit_code", "signal_name"),
    [("os._exit(7)", 7, None), ("os.kill(os.getpid(), signal.SIGKILL)", None, "SIGKILL"), ("os.abort()", None, "SIGABRT")],
)
def test_p4_a_loss_says_who_and_why(last_words: str, exit_code: int | None, signal_name: str | None) -> None:
    ended = application(
        f"""
        import json, os, signal, sys, workq

        def die(path):
            with open(path, "w") as file:
                print(os.getpid(), file=file)
            print("the last words", file=sys.stderr)
            {last_words}

        if __name__ == "__main__":
            path = os.path.abspath(__file__) + ".pid"
            with workq.WorkMgr(1) as wq:
                error = wq.options(name="doomed").queue(die, path).exception()
                said = dict(exit_code=error.exit_code, signal=error.signal, unit=error.halt.unit, stderr=error.halt.stderr)
                print(json.dumps(said | dict(same_pid=error.pid == int(open(path).read()))))
        """
    )
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert (said["exit_code"], said["signal"], said["same_pid"]) == (exit_code, signal_name, True)
    assert "doomed" in said["unit"]
    assert "the last words" in said["stderr"]


def test_p5_no_worker_outlives_its_parent() -> None:
    code = """
        import os, time, workq

        def hold(path, kind):
            child = os.posix_spawn("/bin/sleep", ["sleep", "600"], {})
            with open(path, "w") as file:
                file.write(f"{os.getpid()} {child}\\n")
            if kind == "sleeping":
                time.sleep(600)
            pow(3, 10**10)  # hours in C, with the interpreter's lock held

        if __name__ == "__main__":
            path = os.path.abspath(__file__) + ".pids"
            os.mkfifo(path)
            pipe = os.open(path, os.O_RDWR)
            wq = workq.WorkMgr(2)
            units = [wq.queue(hold, path, kind) for kind in ("sleeping", "computing")]
            said = b""
            while said.count(b"\\n") < 2:
                said += os.read(pipe, 4096)
            print(*said.decode().split(), flush=True)
            time.sleep(600)
        """
    with start_application(code) as app:
        pids = [int(word) for word in app.line().split()]
        assert len(pids) == 4
        os.kill(app.pid, signal.SIGKILL)
        for pid in pids:
            wait_gone(pid)


def test_p6_a_stop_is_bounded_and_leaves_nothing() -> None:
    ended = application(
        """
        import gc, os, threading, time, workq

        def deaf(fifo):
            os.posix_spawn("/bin/sleep", ["sleep", "600"], {})
            with open(fifo, "w") as file:
                file.write("x")
            while True:
                try:
                    time.sleep(600)
                except BaseException:
                    pass

        def held():
            descriptors = len(os.listdir("/proc/self/fd"))
            threads = threading.active_count()
            ours = [name for name in os.listdir("/dev/shm") if "workq" in name]
            children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
            return descriptors, threads, ours, children

        def use(fifo, pipe):
            controller = workq.Controller()
            wq = workq.WorkMgr(2, delete_timeout=0.1, controller=controller)
            units = [wq.queue(deaf, fifo) for _ in range(2)] + [wq.queue(abs, -1) for _ in range(100)]
            said = b""
            while len(said) < 2:
                said += os.read(pipe, 2)
            begin = time.monotonic()
            wq.close()
            controller.close()
            return time.monotonic() - begin

        if __name__ == "__main__":
            fifo = os.path.abspath(__file__) + ".fifo"
            os.mkfifo(fifo)
            pipe = os.open(fifo, os.O_RDWR)
            use(fifo, pipe)
            before = held()
            took = use(fifo, pipe)
            gc.collect()
            print(took < 30, held() == before, before[2:])
        """
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "True True ([], [])"


def test_p7_the_applications_own_state_is_untouched() -> None:
    ended = application(
        """
        import os, signal, sys, threading, workq

        def state():
            handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            streams = sys.stdin, sys.stdout, sys.stderr, sys.excepthook, sys.unraisablehook, threading.excepthook
            return handlers, mask, os.getcwd(), dict(os.environ), streams, sys.path[:], signal.set_wakeup_fd(-1), sys.getswitchinterval()

        def meddle():
            os.chdir("/")
            os.environ["MEDDLED"] = "1"
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            sys.stdout = None

        if __name__ == "__main__":
            before = state()
            with workq.WorkMgr(2) as wq:
                wq.queue(meddle).result()
                wq.queue(os._exit, 1).exception()
                during = state()
            print(before == during == state())
        """
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "True"
