"""What the application does: threads, callbacks, finalizers, forks, closed descriptors, odd streams.

Each ends in a result or a clear error.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
import weakref
from collections.abc import Iterator

import pytest

import workq
from tests.support import DEADLINE_S, application, start_application, wait_gone, wait_until
from workq.controller import tallies

pytestmark = pytest.mark.slow


def test_fifty_threads_queue_at_once() -> None:
    with workq.WorkMgr(2) as wq:
        results: dict[int, list[int]] = {}

        def queue_and_wait(n: int) -> None:
            units = [wq.queue(abs, -(n * 1000 + k)) for k in range(100)]
            results[n] = [unit.result(DEADLINE_S * 3) for unit in units]

        threads = [threading.Thread(target=queue_and_wait, args=(n,)) for n in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S * 3)
        assert results == {n: [n * 1000 + k for k in range(100)] for n in range(50)}
        assert wq.statistics().done == 5000


def test_a_callback_may_queue_and_wait() -> None:
    ended = threading.Event()
    chain: list[int] = []
    with workq.WorkMgr(2) as wq:

        def go_on(unit: workq.Unit[int]) -> None:
            chain.append(unit.result())
            chain.append(wq.queue(abs, -100 - len(chain)).result(DEADLINE_S))
            if len(chain) < 20:
                wq.queue(abs, -len(chain)).add_done_callback(go_on)
            else:
                ended.set()

        wq.queue(abs, 0).add_done_callback(go_on)
        assert ended.wait(DEADLINE_S)
    assert chain[:4] == [0, 101, 2, 103]


def test_finalizers_may_queue_and_cancel() -> None:
    """From ``__del__`` and weakref callbacks, which run in the middle of anything: also of a dispatch."""
    units: list[workq.Unit[int]] = []
    with workq.WorkMgr(2) as wq:

        class Dying:
            def __init__(self, n: int) -> None:
                self.n = n
                self.me = self  # a circle, so that the collector finds it, whenever it comes

            def __del__(self) -> None:
                units.append(wq.queue(abs, -self.n))
                wq.queue(abs, -1).cancel()

        threshold = gc.get_threshold()
        gc.set_threshold(50)
        try:
            for n in range(2000):
                watched = Dying(n)
                weakref.finalize(watched, lambda n=n: units.append(wq.queue(abs, -n)))
                wq.queue(abs, -n)
                del watched
            wait_until(lambda: gc.collect() is not None and len(units) == 4000)  # it collects nothing while it runs in another thread
        finally:
            gc.set_threshold(*threshold)
        wq.sync()
    assert sorted(unit.result() for unit in units) == sorted([*range(2000), *range(2000)])


def test_after_close_queueing_is_refused() -> None:
    wq = workq.WorkMgr(1)
    view = wq.options(priority=1)
    assert wq.queue(abs, -1).result() == 1
    wq.close()
    for queue in (wq.queue, view.queue):
        with pytest.raises(workq.QueueClosed, match="closed"):
            queue(abs, -1)
    with pytest.raises(workq.QueueClosed):
        list(wq.map(abs, [1]))
    wq.close()


def test_a_generator_that_raises_in_the_middle_of_a_map() -> None:
    def items() -> Iterator[int]:
        yield from range(100)
        raise LookupError("no more")

    with workq.WorkMgr(2) as wq:
        got = []
        with pytest.raises(LookupError, match="no more"):
            for value in wq.map(abs, items(), look_ahead=4):
                got.append(value)  # noqa: PERF402  one by one, as it ends in an error
        assert got == list(range(len(got)))
        assert len(got) > 90
        assert wq.queue(abs, -3).result() == 3


def test_closing_a_map_early_cancels_the_rest() -> None:
    taken = []

    def items() -> Iterator[int]:
        for n in range(10**9):
            taken.append(n)
            yield n

    with workq.WorkMgr(2) as wq:
        results = wq.map(abs, items(), look_ahead=10)
        assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
        results.close()  # type: ignore[attr-defined]
        wq.sync()
        statistics = wq.statistics()
        assert len(taken) <= 16
        assert statistics.done + statistics.cancelled == len(taken)


# ---------------------------------------------------------------- forks


@pytest.mark.parametrize("how", ["import slow_module", "import importlib; importlib.import_module('slow_module')"])
def test_who_forks_waits_until_the_controller_has_imported_what_it_imports(how: str) -> None:
    """Else the child has that module half made for ever, and its own controller fails, or waits for it without end."""
    ended = application(
        """
        import importlib, os, sys, threading, warnings, workq

        warnings.simplefilter("ignore", DeprecationWarning)
        begun, go_on = threading.Event(), threading.Event()

        if __name__ == "__main__":
            with open("slow_module.py", "w") as file:
                file.write("import __main__; __main__.begun.set(); __main__.go_on.wait(30); import fractions; value = 1")
            sys.path.insert(0, os.getcwd())
            with workq.WorkMgr(1) as wq:
                wq.queue(abs, -1).result()
                exec("def load(): " + sys.argv[1], {"__name__": "workq.test"}, code := {})
                wq.controller.running().command(code["load"])
                assert begun.wait(30)
                os.register_at_fork(before=go_on.set)  # made before those that were registered before
                pid = os.fork()
                if pid == 0:
                    import slow_module
                    os._exit(slow_module.value)
                print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), wq.queue(abs, -3).result())
        """,
        how,
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "1 3"), ended.stderr


def test_who_forks_does_not_wait_for_a_module_of_the_application_that_a_thread_loads_with_a_result() -> None:
    """It may wait for who forks."""
    ended = application(
        """
        import os, sys, threading, warnings, workq
        from workq.transport import codec

        warnings.simplefilter("ignore", DeprecationWarning)
        begun, forked = threading.Event(), threading.Event()

        if __name__ == "__main__":
            with open("slow_module.py", "w") as file:
                file.write("import __main__; __main__.begun.set(); value = __main__.forked.wait(5)")
            sys.path.insert(0, os.getcwd())
            with workq.WorkMgr(1) as wq:
                wq.queue(abs, -1).result()
                loading = threading.Thread(target=codec.load, args=(b"cslow_module\\nvalue\\n.",))
                loading.start()
                assert begun.wait(30)
                pid = os.fork()
                if pid == 0:
                    os._exit(0)
                forked.set()
                loading.join()
                import slow_module
                print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), slow_module.value, wq.queue(abs, -3).result())
        """
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "0 True 3"), ended.stderr


def test_a_forked_child_is_refused_and_touches_nothing_of_the_parents() -> None:
    ended = application(
        """
        import atexit, multiprocessing, os, sys, warnings, workq

        warnings.simplefilter("ignore", DeprecationWarning)

        def refused(function, *arguments):
            try:
                function(*arguments)
            except workq.ForkedError as error:
                return "WorkMgr" in str(error)

        def in_child(wq, unit):
            assert refused(wq.queue, abs, -1)
            assert refused(unit.result)
            assert refused(unit.cancel)
            wq.close()
            with workq.WorkMgr(1) as own:
                assert own.queue(abs, -4).result() == 4
            assert own.controller is not wq.controller

        def hold(fifo):
            with open(fifo) as file:
                file.read()

        if __name__ == "__main__":
            wq = workq.WorkMgr(2)
            os.mkfifo("fifo")
            held = os.open("fifo", os.O_RDWR)
            units = [wq.queue(hold, "fifo") for _ in range(2)]
            atexit.register(lambda: print("at exit", file=sys.stderr, flush=True))
            pid = os.fork()
            if pid == 0:
                in_child(wq, units[0])
                sys.exit(7)
            codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]
            process = multiprocessing.get_context("fork").Process(target=in_child, args=(wq, units[0]))
            process.start()
            process.join()
            codes.append(process.exitcode)
            os.close(held)
            print(codes, [unit.result() for unit in units], wq.queue(abs, -3).result(), wq.statistics().lost)
        """
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "[7, 0] [None, None] 3 0"), ended.stderr
    assert ended.stderr.split("\n") == ["at exit", "at exit", ""], ended.stderr


def test_a_forked_child_that_lives_on_holds_no_worker_up() -> None:
    """It inherits our sockets, so end-of-file tells nobody that we are gone."""
    code = """
        import os, time, warnings, workq
        warnings.simplefilter("ignore", DeprecationWarning)

        if __name__ == "__main__":
            wq = workq.WorkMgr(2)
            assert wq.queue(abs, -1).result() == 1
            busy = wq.queue(time.sleep, 600)
            worker = wq.workers()[0].pid
            child = os.fork()
            if child == 0:
                time.sleep(600)
            print(worker, child, flush=True)
            time.sleep(600)
        """
    with start_application(code) as app:
        worker, child = map(int, app.line().split())
        try:
            os.kill(app.pid, signal.SIGKILL)
            wait_gone(worker)
        finally:
            os.kill(child, signal.SIGKILL)


# ---------------------------------------------------------------- children that others reap


@pytest.mark.parametrize("reaper", ["signal.signal(signal.SIGCHLD, signal.SIG_IGN)", "threading.Thread(target=reap, daemon=True).start()"])
def test_an_application_that_takes_all_exit_codes_itself(reaper: str) -> None:
    ended = application(
        f"""
        import os, signal, threading, workq

        def reap():
            while True:
                try:
                    os.waitpid(-1, 0)
                except ChildProcessError:
                    threading.Event().wait(0.001)

        if __name__ == "__main__":
            {reaper}
            controller = workq.Controller()
            wq = workq.WorkMgr(2, controller=controller)
            assert wq.queue(abs, -1).result() == 1
            error = wq.queue(os._exit, 3).exception()
            print(type(error).__name__, error.exit_code, wq.queue(abs, -2).result())
            controller.close()
            print("closed")
        """
    )
    assert (ended.returncode, ended.stdout.splitlines()) == (0, ["WorkerHalted 3 2", "closed"]), ended.stderr
    assert ended.stderr == ""


# ---------------------------------------------------------------- streams, descriptors, folders


def test_streams_that_are_none() -> None:
    ended = application(
        """
        import os, sys
        keep = os.dup(1)
        sys.stdout = sys.stderr = sys.stdin = None
        import workq

        if __name__ == "__main__":
            with workq.WorkMgr(2) as wq:
                units = [wq.queue(print, "unheard"), wq.queue(os._exit, 1), wq.queue(abs, -1)]
                for unit in units:
                    unit.exception()
                os.write(keep, str([unit.state.value for unit in units]).encode())
        """
    )
    assert (ended.returncode, ended.stdout) == (0, "['done', 'lost', 'done']"), ended.stderr


def test_standard_descriptors_closed_before_the_import() -> None:
    ended = application(
        """
        import os
        keep = os.dup(1)
        os.set_inheritable(keep, False)
        os.closerange(0, 3)
        import workq

        if __name__ == "__main__":
            with workq.WorkMgr(2) as wq:
                units = [wq.queue(print, "unheard"), wq.queue(os.system, "echo unheard"), wq.queue(abs, -1)]
                os.write(keep, str([unit.result() for unit in units]).encode())
        """
    )
    assert (ended.returncode, ended.stdout) == (0, "[None, 0, 1]"), ended.stderr


def test_a_folder_that_was_deleted() -> None:
    ended = application(
        """
        import os, tempfile, workq

        if __name__ == "__main__":
            folder = tempfile.mkdtemp()
            os.chdir(folder)
            os.rmdir(folder)
            with workq.WorkMgr(2) as wq:
                print(wq.queue(abs, -1).result(), wq.queue(len, "four").result())
        """
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "1 4"), ended.stderr


@pytest.mark.parametrize("when", ["idle", "busy", "waiting"])
def test_an_application_that_closes_every_descriptor(when: str) -> None:
    """No hang: what was queued ends with an error that says why, and so does what is queued afterwards."""
    ended = application(
        """
        import os, sys, threading, time, workq

        if __name__ == "__main__":
            when = sys.argv[1]
            wq = workq.WorkMgr(2)
            assert wq.queue(abs, -1).result() == 1
            units = [wq.queue(time.sleep, 600) for _ in range(3)] if when != "idle" else []
            if when == "waiting":
                threading.Timer(0.2, os.closerange, (3, 1000)).start()
            else:
                os.closerange(3, 1000)
            said = []
            for unit in units:
                try:
                    said.append(unit.result(3))
                except BaseException as error:
                    said.append(type(error).__name__)
            for _ in range(3):
                try:
                    said.append(wq.queue(abs, -1).result(60))
                except Exception as error:
                    said.append(type(error).__name__)
            print(said, flush=True)
        """,
        when,
        deadline_s=60,
    )
    assert ended.returncode == 0, ended.stderr
    said = set(ended.stdout.strip()[1:-1].replace("'", "").split(", "))
    assert said <= {"UnitCancelled", "WorkerHalted", "QueueClosed", "LaunchError", "OSError"}, ended.stdout


# ---------------------------------------------------------------- the end of the application (P5)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, "os._exit", "execv"])
def test_nothing_outlives_the_application_however_it_ends(how: object) -> None:
    code = """
        import os, re, subprocess, sys, time, workq

        def hold(path, kind):
            child = os.posix_spawn("/bin/sleep", ["sleep", "600"], {})
            away = subprocess.Popen(["sleep", "600"], start_new_session=True).pid
            with open(path, "w") as file:
                file.write(f"{os.getpid()} {child} {away}\\n")
            if kind == "sleep":
                time.sleep(600)
            if kind == "pow":
                pow(3, 10**10)  # hours in C, with the interpreter's lock held
            re.match(r"(a+)+$", "a" * 60 + "b")

        if __name__ == "__main__":
            path = os.path.abspath(__file__) + ".fifo"
            os.mkfifo(path)
            pipe = os.open(path, os.O_RDWR)
            wq = workq.WorkMgr(3)
            units = [wq.queue(hold, path, kind) for kind in ("sleep", "pow", "re")]
            said = b""
            while said.count(b"\\n") < 3:
                said += os.read(pipe, 4096)
            print(*said.decode().split(), flush=True)
            sys.stdin.readline()
            if sys.argv[1] == "os._exit":
                os._exit(5)
            os.execv("/bin/true", ["true"])
        """
    with start_application(code, str(how)) as app:
        pids = [int(word) for word in app.line().split()]
        assert len(pids) == 9
        if isinstance(how, signal.Signals):
            os.kill(app.pid, how)
        else:
            app.say("go")
        for pid in pids:
            wait_gone(pid)
        expected = -how if isinstance(how, signal.Signals) else {"os._exit": 5, "execv": 0}[str(how)]
        assert app.finish().returncode == expected


# ---------------------------------------------------------------- the application's own state (P7)


def test_the_applications_state_is_as_before_and_nothing_is_warned_of() -> None:
    ended = application(
        """
        import gc, os, signal, sys, threading, warnings

        def state():
            handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            hooks = sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook, sys.breakpointhook
            streams = sys.stdin, sys.stdout, sys.stderr
            threads = sorted(thread.name for thread in threading.enumerate())
            limits = sys.getrecursionlimit(), sys.getswitchinterval(), gc.get_threshold(), gc.isenabled(), gc.get_freeze_count()
            wakeup = signal.set_wakeup_fd(-1)
            process = os.getcwd(), dict(os.environ), os.getpgrp(), os.umask(0o22)
            return handlers, mask, process, hooks, streams, sys.path[:], threads, limits, wakeup

        if __name__ == "__main__":
            os.umask(0o22)
            before = state()
            import workq
            imported = state()
            controller = workq.Controller()
            with workq.WorkMgr(2, controller=controller) as wq:
                assert wq.queue(abs, -1).result() == 1
                wq.queue(os._exit, 1).exception()
                list(wq.map(abs, range(1000)))
            controller.close()
            gc.collect()
            print(before == imported == state())
        """,
        options=("-X", "dev", "-W", "error"),
    )
    assert (ended.returncode, ended.stdout.strip(), ended.stderr) == (0, "True", "")


@pytest.mark.parametrize(("options", "environment"), [(("-OO", "-X", "utf8"), {}), ((), {"PYTHONOPTIMIZE": "2", "PYTHONUTF8": "1"})])
def test_workers_have_the_interpreters_flags(options: tuple[str, ...], environment: dict[str, str]) -> None:
    ended = application(
        """
        import sys, workq

        def flags():
            return sys.flags.optimize, sys.flags.utf8_mode, len(sys.warnoptions)

        if __name__ == "__main__":
            with workq.WorkMgr(1) as wq:
                print(flags(), wq.queue(flags).result() == flags())
        """,
        options=options,
        **environment,
    )
    assert (ended.returncode, ended.stdout.strip(), ended.stderr) == (0, "(2, 1, 0) True", "")


def test_a_queue_that_outlives_our_modules_is_let_go_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the interpreter's end their names are gone before a queue is, by chance."""
    wq = workq.WorkMgr(0)
    assert wq.queue(abs, -3).result() == 3
    with monkeypatch.context() as end:
        end.setattr(tallies, "Totals", None)
        tallies.Tallies().hand_over(wq._row)
    wq.close()


def test_a_variable_of_the_environment_may_have_no_name() -> None:
    ended = application(
        """
        import workq

        if __name__ == "__main__":
            with workq.WorkMgr(1) as wq:
                print(wq.queue(abs, -3).result())
        """,
        **{"": "nameless"},
    )
    assert (ended.returncode, ended.stdout.strip(), ended.stderr) == (0, "3", "")


def test_where_calls_of_linux_are_missing_there_is_another_way() -> None:
    """Without eventfd, epoll, memfd and pidfd in the application: results, large values, a kill, a stop, two threads at once, the end."""
    ended = application(
        """
        import os, select, signal, threading

        for module, names in ((os, "eventfd EFD_CLOEXEC EFD_NONBLOCK memfd_create pidfd_open"), (select, "epoll EPOLLIN EPOLLONESHOT")):
            for name in names.split():
                delattr(module, name)
        del signal.pidfd_send_signal

        import workq

        def die():
            os.kill(os.getpid(), signal.SIGKILL)

        if __name__ == "__main__":
            with workq.WorkMgr(2) as wq:
                print(sum(unit.result() for unit in [wq.queue(abs, -n) for n in range(2000)]), sum(wq.map(abs, range(5000))))
                print(len(wq.queue(bytes, 5_000_000).result()), len(wq.queue(len, bytes(3_000_000)).name))
                print(type(wq.queue(die).exception()).__name__, wq.queue(abs, -3).result())
                unit = wq.options(timeout=0.05).queue(pow, 7, 10**9)
                print(type(unit.exception()).__name__)
                found = []
                threads = [threading.Thread(target=lambda: found.append(wq.queue(abs, -4).result())) for _ in range(2)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                print(found)
        """
    )
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == ["1999000 12497500", "5000000 3", "WorkerHalted 3", "UnitTimeout", "[4, 4]"]
