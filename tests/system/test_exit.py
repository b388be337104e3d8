"""The interpreter's exit: bounded, quiet, with the application's own exit code, and nothing is left behind."""

from __future__ import annotations

import pytest

from tests.support import application, start_application, wait_gone

pytestmark = pytest.mark.slow


def dropped(number: int) -> str:
    units = "1 unit that had not ended is" if number == 1 else f"{number} units that had not ended are"
    return f"the interpreter ends: {units} dropped; sync() waits for them, and so does at_exit='drain'\n"


@pytest.mark.parametrize(("policy", "warning"), [("cancel", dropped(5)), ("kill", dropped(5)), ("drain", "")])
@pytest.mark.parametrize(("ending", "code"), [("pass", 0), ("sys.exit(3)", 3)])
def test_open_units_end_as_the_policy_says(policy: str, warning: str, ending: str, code: int) -> None:
    """One warning that counts what was dropped; the exit code is the application's; drained units have run."""
    ended = application(
        f"""
        import os, sys, time, workq

        def work(fifo):
            with open(fifo, "w") as file:
                file.write("x")
            time.sleep(0.3 if sys.argv[1] == "drain" else 600)
            with open(fifo + ".done", "a") as file:
                file.write("x")

        if __name__ == "__main__":
            fifo = os.path.abspath(__file__) + ".fifo"
            os.mkfifo(fifo)
            pipe = os.open(fifo, os.O_RDWR)
            wq = workq.WorkMgr(2, at_exit=sys.argv[1])
            units = [wq.queue(work, fifo) for _ in range(5)]
            os.read(pipe, 1)
            {ending}
        """,
        policy,
    )
    assert (ended.returncode, ended.stderr) == (code, warning)


def test_drained_units_have_run() -> None:
    """An exit handler that was registered before workq's own runs after it, and sees what they returned."""
    ended = application(
        """
        import atexit, workq

        if __name__ == "__main__":
            atexit.register(lambda: print([unit.result() for unit in units]))
            wq = workq.WorkMgr(2, at_exit="drain")
            units = [wq.queue(abs, -n) for n in range(5)]
        """
    )
    assert (ended.returncode, ended.stdout.strip(), ended.stderr) == (0, "[0, 1, 2, 3, 4]", "")


def test_a_drain_is_bounded() -> None:
    ended = application(
        """
        import time, workq
        from workq.config import Settings

        if __name__ == "__main__":
            controller = workq.Controller(settings=Settings(exit_drain_s=0.2))
            wq = workq.WorkMgr(1, at_exit="drain", controller=controller)
            unit = wq.queue(time.sleep, 600)
        """
    )
    assert (ended.returncode, ended.stderr) == (0, dropped(1))


def test_deaf_units_hold_the_exit_up_no_longer_than_delete_timeout_allows() -> None:
    code = """
        import os, time, workq

        def deaf(fifo):
            with open(fifo, "w") as file:
                file.write(f"{os.getpid()}\\n")
            while True:
                try:
                    time.sleep(600)
                except BaseException:
                    pass

        if __name__ == "__main__":
            fifo = os.path.abspath(__file__) + ".fifo"
            os.mkfifo(fifo)
            pipe = os.open(fifo, os.O_RDWR)
            category = workq.Category("wide", max_workers=8, max_active_workers=8, default_workers=8)
            workq.Controller.default().add_category(category)
            wq = workq.WorkMgr(8, category="wide", delete_timeout=0.3)
            units = [wq.queue(deaf, fifo) for _ in range(8)]
            said = b""
            while said.count(b"\\n") < 8:
                said += os.read(pipe, 4096)
            print(*said.decode().split(), flush=True)
        """
    with start_application(code) as app:
        pids = [int(word) for word in app.line().split()]
        ended = app.finish(10)
        assert (ended.returncode, ended.stderr) == (0, dropped(8))
        assert len(pids) == 8
        for pid in pids:
            wait_gone(pid)


def test_threads_that_wait_for_units_at_exit_get_them() -> None:
    ended = application(
        """
        import threading, time, workq

        def wait():
            print(unit.result(), wq.queue(abs, -2).result(), flush=True)

        if __name__ == "__main__":
            wq = workq.WorkMgr(2)
            unit = wq.queue(time.sleep, 0.3)
            threading.Thread(target=wait).start()
        """
    )
    assert (ended.returncode, ended.stdout.strip(), ended.stderr) == (0, "None 2", "")


def test_daemon_threads_that_wait_or_queue_hold_nothing_up() -> None:
    ended = application(
        """
        import threading, time, workq

        def wait():
            unit.result()

        def queue():
            while True:
                try:
                    wq.queue(abs, -1)
                except workq.QueueClosed:
                    return

        if __name__ == "__main__":
            wq = workq.WorkMgr(2)
            unit = wq.queue(time.sleep, 600)
            assert wq.queue(abs, -1).result() == 1
            for target in (wait, queue):
                threading.Thread(target=target, daemon=True).start()
        """
    )
    assert ended.returncode == 0
    assert "Fatal" not in ended.stderr
    assert ended.stderr.startswith("the interpreter ends: "), ended.stderr


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_exit_handler_that_queues_gets_a_result_or_a_clear_error(when: str) -> None:
    """Handlers run in reverse order: one registered before the first queue was made runs when workq has ended."""
    ended = application(
        """
        import atexit, sys

        def at_exit():
            try:
                print(wq.queue(abs, -4).result())
            except workq.QueueClosed as error:
                print("refused:", error)

        if sys.argv[1] == "before":
            atexit.register(at_exit)
        import workq

        if __name__ == "__main__":
            wq = workq.WorkMgr(2)
            if sys.argv[1] == "after":
                atexit.register(at_exit)
            assert wq.queue(abs, -1).result() == 1
        """,
        when,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("refused: " if when == "before" else "4\n"), ended.stdout


def test_what_the_teardown_of_modules_finalizes_may_try_to_queue() -> None:
    ended = application(
        """
        import workq

        class Last:
            def __del__(self):
                for do in (lambda: wq.queue(abs, -1), lambda: unit.cancel(), lambda: unit.result(1), lambda: wq.close()):
                    try:
                        do()
                    except Exception as error:
                        pass

        if __name__ == "__main__":
            wq = workq.WorkMgr(2)
            unit = wq.queue(abs, -1)
            assert unit.result() == 1
            last = Last()
            circle = [last]
            circle.append(circle)
            del last
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_nothing_is_said_at_the_exit_of_an_application_that_has_waited() -> None:
    ended = application(
        """
        import workq

        if __name__ == "__main__":
            wq = workq.WorkMgr(2)
            units = [wq.queue(print, n) for n in range(3)]
            wq.sync()
            assert workq.metrics().units_lost == 0
        """,
        options=("-X", "dev", "-W", "error"),
    )
    assert (ended.returncode, sorted(ended.stdout.split()), ended.stderr) == (0, ["0", "1", "2"], "")


def test_an_exception_ends_the_application_with_its_own_traceback_only() -> None:
    ended = application(
        """
        import time, workq

        if __name__ == "__main__":
            with workq.WorkMgr(2) as wq:
                unit = wq.queue(time.sleep, 600)
                raise LookupError("the application's own")
        """
    )
    assert ended.returncode == 1
    assert ended.stderr.count("Traceback") == 1
    assert ended.stderr.endswith("LookupError: the application's own\n")
