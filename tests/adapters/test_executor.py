"""Executor: each line of the contract of concurrent.futures, on real processes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import psutil
import pytest

import workq
from tests.adapters import deeds
from tests.support import DEADLINE_S, application, start_application, wait_gone, wait_until


@pytest.fixture
def executor() -> Iterator[workq.Executor]:
    with workq.Executor(2) as executor:
        yield executor


@pytest.fixture
def fifo(tmp_path: Path) -> str:
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    return path


def release(fifo: str) -> None:
    """Let one call go on that waits for this fifo."""
    with open(fifo, "w") as file:
        file.write("go\n")


# ---------------------------------------------------------------- submit


def test_it_is_an_executor_and_its_futures_are_futures(executor: workq.Executor) -> None:
    future = executor.submit(pow, 2, 10)
    assert isinstance(executor, concurrent.futures.Executor)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result() == 1024


def test_submit_passes_keywords_of_any_name(executor: workq.Executor) -> None:
    assert executor.submit(dict, self=1, fn=2, executor=3).result() == {"self": 1, "fn": 2, "executor": 3}
    with pytest.raises(TypeError):
        executor.submit(fn=len, arg=1)  # type: ignore[call-arg]


def test_the_calls_own_exception_is_raised_with_the_remote_traceback_as_its_cause(executor: workq.Executor) -> None:
    error = executor.submit(deeds.fail, "not there").exception()
    assert type(error) is LookupError
    assert error.args == ("not there",)
    assert "raise LookupError(text)" in str(error.__cause__)


def test_an_exit_of_the_call_is_raised_as_itself(executor: workq.Executor) -> None:
    with pytest.raises(SystemExit) as caught:
        executor.submit(deeds.leave, 3).result()
    assert caught.value.code == 3
    assert executor.submit(abs, -1).result() == 1


def test_what_cannot_be_pickled_is_the_futures_error_and_not_that_of_submit(executor: workq.Executor) -> None:
    future = executor.submit(id, deeds.Unpicklable())
    error = future.exception()
    assert isinstance(error, workq.PicklingError)
    assert "argument 1" in str(error)
    assert future.done()
    assert executor.submit(abs, -1).result() == 1


def test_wait_and_as_completed_take_its_futures(executor: workq.Executor, fifo: str) -> None:
    slow = executor.submit(deeds.wait_for_line, fifo)
    quick = executor.submit(abs, -1)
    done, open_ones = concurrent.futures.wait([slow, quick], DEADLINE_S, return_when="FIRST_COMPLETED")
    assert (done, open_ones) == ({quick}, {slow})
    release(fifo)
    assert set(concurrent.futures.as_completed([slow, quick], DEADLINE_S)) == {slow, quick}


def test_callbacks_are_called_with_the_future_and_one_that_raises_harms_nobody(
    executor: workq.Executor, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[object] = []
    ended = threading.Event()
    future = executor.submit(abs, -1)
    future.add_done_callback(lambda one: deeds.fail("in the callback"))
    future.add_done_callback(seen.append)
    future.add_done_callback(lambda one: ended.set())
    assert ended.wait(DEADLINE_S)
    assert seen == [future]
    future.add_done_callback(seen.append)
    future.add_done_callback(lambda one: deeds.fail("afterwards"))
    assert seen == [future, future]
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [LookupError, LookupError]


def test_a_future_is_cancelled_before_and_while_it_runs(executor: workq.Executor, fifo: str) -> None:
    running = [executor.submit(deeds.wait_for_line, fifo) for _ in range(2)]
    wait_until(lambda: all(future.running() for future in running))
    waiting = executor.submit(abs, -1)
    assert waiting.cancel()
    assert waiting.cancelled()
    assert running[0].cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        running[0].result(DEADLINE_S)
    release(fifo)
    assert running[1].result(DEADLINE_S) == "go\n"


# ---------------------------------------------------------------- map


def test_map_yields_results_in_order_and_stops_with_the_shortest(executor: workq.Executor) -> None:
    assert list(executor.map(pow, [1, 2, 3], [2, 2, 2, 2])) == [1, 4, 9]
    assert list(executor.map(abs, range(-40, 0), chunksize=6)) == list(range(40, 0, -1))
    assert list(executor.map(abs, [])) == []


def test_map_refuses_a_chunk_size_below_one(executor: workq.Executor) -> None:
    with pytest.raises(ValueError, match="chunksize must be >= 1"):
        executor.map(abs, [1], chunksize=0)


def test_map_reads_its_input_at_once_and_with_a_buffer_size_no_further_than_that(executor: workq.Executor) -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for n in range(10):
            read.append(n)
            yield n

    results = executor.map(abs, numbers())
    assert read == list(range(10))
    assert list(results) == read
    read.clear()
    results = executor.map(abs, numbers(), buffersize=3)
    assert read == [0, 1, 2]
    assert next(results) == 0
    assert read == [0, 1, 2, 3]
    assert list(results) == list(range(1, 10))


def test_map_raises_the_first_error_where_it_is_met(executor: workq.Executor) -> None:
    for chunksize in (1, 3):
        results = executor.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5], chunksize=chunksize)
        assert [next(results), next(results)] == [(0, 1), (0, 1)]
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_map_times_out_counted_from_its_call(executor: workq.Executor, fifo: str) -> None:
    running = [executor.submit(deeds.wait_for_line, fifo) for _ in range(2)]
    wait_until(lambda: all(future.running() for future in running))
    results = executor.map(abs, [-1, -2], timeout=0.01)
    with pytest.raises(TimeoutError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    release(fifo)


def test_closing_maps_iterator_cancels_what_has_not_begun_and_nothing_else(fifo: str, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    with workq.Executor(1) as executor:
        results = executor.map(deeds.do, ["nothing", "wait", "touch", "touch"], ["", fifo, str(touched), str(touched)])
        assert next(results) is None
        with open(fifo, "w") as file:  # waits until it is read
            results.close()  # type: ignore[attr-defined]
            wait_until(lambda: executor.work_queue.statistics().cancelled == 2)
            print("go", file=file)
    assert not touched.exists()
    assert executor.work_queue.statistics().done == 2


def test_maps_iterator_holds_no_result_that_it_has_yielded(executor: workq.Executor) -> None:
    for chunksize in (1, 4):
        for thing in executor.map(deeds_thing, range(8), chunksize=chunksize):
            alive = weakref.ref(thing)
            del thing
            wait_until(lambda alive=alive: alive() is None)


def deeds_thing(_: int) -> deeds.Thing:
    return deeds.Thing()


# ---------------------------------------------------------------- references


def test_no_reference_to_arguments_is_kept(executor: workq.Executor) -> None:
    thing = deeds.Thing()
    alive = weakref.ref(thing)
    future = executor.submit(thing.method)
    del thing
    assert alive() is None
    assert future.result() == "called"


def test_no_reference_to_arguments_is_kept_where_they_could_not_be_pickled(executor: workq.Executor) -> None:
    thing = deeds.Unpicklable()
    alive = weakref.ref(thing)
    future = executor.submit(id, thing)
    del thing
    gc.collect()
    assert alive() is None
    assert future.done()


def test_no_reference_to_results_is_kept(executor: workq.Executor) -> None:
    future = executor.submit(deeds_thing, 1)
    alive = weakref.ref(future.result())
    del future
    wait_until(lambda: alive() is None)


def test_no_reference_to_the_initializers_arguments_is_kept_after_shutdown() -> None:
    thing = deeds.Thing()
    alive = weakref.ref(thing)
    with workq.Executor(1, initializer=deeds.make_ready, initargs=(thing,)) as executor:
        assert executor.submit(deeds.what_was_made_ready).result() is not None
    del thing
    assert alive() is None


# ---------------------------------------------------------------- shutdown


def test_shutdown_waits_for_all_that_was_submitted() -> None:
    executor = workq.Executor(2)
    futures = [executor.submit(abs, -n) for n in range(50)]
    executor.shutdown()
    assert [future.result() for future in futures] == list(range(50))


def test_after_shutdown_submit_and_map_raise_in_the_standard_librarys_words() -> None:
    executor = workq.Executor(1)
    executor.shutdown()
    executor.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown") as caught:
        executor.submit(abs, 1)
    assert type(caught.value) is RuntimeError
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.map(abs, [1])


def test_after_shutdown_no_worker_thread_or_descriptor_is_left() -> None:
    before = set(os.listdir("/proc/self/fd")), set(threading.enumerate())
    with workq.Executor(2) as executor:
        list(executor.map(abs, range(10)))
        workers = psutil.Process().children(recursive=True)
        assert workers
    assert [process for process in workers if process.is_running()] == []
    assert (set(os.listdir("/proc/self/fd")), set(threading.enumerate())) == before


def test_shutdown_without_waiting_returns_at_once_and_the_calls_are_completed(fifo: str) -> None:
    executor = workq.Executor(1)
    futures = [executor.submit(deeds.wait_for_line, fifo), executor.submit(abs, -1)]
    pid = wait_for_worker(executor)
    executor.shutdown(wait=False)
    assert not futures[0].done()
    release(fifo)
    assert [future.result(DEADLINE_S) for future in futures] == ["go\n", 1]
    wait_gone(pid)


def test_shutdown_cancels_what_has_not_begun_and_lets_the_rest_end(fifo: str) -> None:
    executor = workq.Executor(1)
    running = executor.submit(deeds.wait_for_line, fifo)
    wait_until(running.running)
    waiting = [executor.submit(abs, -n) for n in range(20)]
    executor.shutdown(wait=False, cancel_futures=True)
    wait_until(lambda: all(future.cancelled() for future in waiting))
    assert running.running()
    release(fifo)
    assert running.result(DEADLINE_S) == "go\n"
    executor.shutdown()


def test_what_was_submitted_is_completed_when_the_last_reference_goes() -> None:
    executor = workq.Executor(2)
    results = executor.map(abs, range(-5, 0))
    pid = wait_for_worker(executor)
    del executor
    assert list(results) == [5, 4, 3, 2, 1]
    wait_gone(pid)


def test_each_call_is_either_refused_or_completed_whatever_thread_shuts_down() -> None:
    for _ in range(5):
        executor = workq.Executor(1)
        executor.submit(abs, 1).result()
        futures: list[concurrent.futures.Future[int]] = []
        begun = threading.Event()

        def submit_until_refused(executor: Any = executor, futures: Any = futures, begun: Any = begun) -> None:
            while True:
                try:
                    futures.append(executor.submit(abs, -1))
                except RuntimeError:
                    return
                begun.set()

        threads = [threading.Thread(target=submit_until_refused) for _ in range(3)]
        for thread in threads:
            thread.start()
        begun.wait(DEADLINE_S)
        executor.shutdown()
        for thread in threads:
            thread.join()
        assert {future.result(0) for future in futures} == {1}


def test_a_callback_may_shut_the_executor_down_also_while_another_thread_does() -> None:
    for alone in (True, False):
        executor = workq.Executor(1)
        futures = [executor.submit(abs, -n) for n in range(3)]
        called = threading.Event()

        def shut_down(future: object, executor: workq.Executor = executor, called: threading.Event = called) -> None:
            executor.shutdown()
            called.set()

        futures[0].add_done_callback(shut_down)
        if alone:
            assert called.wait(DEADLINE_S)
        executor.shutdown()
        assert [future.result(DEADLINE_S) for future in futures] == [0, 1, 2]


def wait_for_worker(executor: workq.Executor) -> int:
    """Wait until a worker is there, and return its process number."""
    wait_until(lambda: any(row.pid for row in executor.work_queue.workers()))
    return next(row.pid for row in executor.work_queue.workers() if row.pid)


# ---------------------------------------------------------------- workers


def test_idle_workers_are_reused_and_no_more_are_started_than_asked_for(executor: workq.Executor) -> None:
    assert len({executor.submit(os.getpid).result() for _ in range(10)}) <= 2
    list(executor.map(abs, range(100)))
    assert len(executor.work_queue.workers()) <= 2


def test_its_number_of_workers_is_an_int() -> None:
    with workq.Executor() as default, workq.Executor(max_workers=3) as three:
        assert type(default._max_workers) is int
        assert default._max_workers >= 1
        assert three._max_workers == 3


def test_a_lost_worker_fails_its_own_call_only_and_the_pool_goes_on(executor: workq.Executor) -> None:
    lost = executor.submit(deeds.die)
    others = [executor.submit(abs, -n) for n in range(20)]
    error = lost.exception()
    assert isinstance(error, BrokenProcessPool)
    assert isinstance(error, workq.WorkerHalted)
    assert [future.result() for future in others] == list(range(20))
    assert executor.submit(abs, -1).result() == 1


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_each_start_method_is_honoured_and_the_initializer_may_be_given_locks_and_queues(method: str) -> None:
    ended = application(
        f"""
        import multiprocessing, os, sys
        import workq

        was_set = "not inherited"
        mine = None

        def begin(queue, lock, reader):
            global mine
            with lock:
                mine = reader
                queue.put(was_set)

        def read():
            return mine.recv()


        if __name__ == "__main__":
            was_set = "inherited"
            context = multiprocessing.get_context({method!r})
            queue, lock = context.Queue(), context.Lock()
            reader, writer = context.Pipe(duplex=False)
            with workq.Executor(1, context, begin, (queue, lock, reader)) as executor:
                writer.send("through the pipe")
                print(executor.submit(read).result())
                print(queue.get(timeout=20))
        """
    )
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == ["through the pipe", "inherited" if method == "fork" else "not inherited"]


def test_a_forked_worker_inherits_what_cannot_be_pickled() -> None:
    thing = deeds.Unpicklable()
    with workq.Executor(1, multiprocessing.get_context("fork"), deeds.make_ready, (thing,)) as executor:
        assert "Unpicklable" in executor.submit(repr_of_what_was_made_ready).result()


def repr_of_what_was_made_ready() -> str:
    return repr(deeds.what_was_made_ready())


def test_a_worker_is_replaced_after_its_calls() -> None:
    with workq.Executor(1, max_tasks_per_child=2) as executor:
        pids = [executor.submit(os.getpid).result(DEADLINE_S) for _ in range(6)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [2, 2, 2]


def test_each_worker_runs_the_initializer_once() -> None:
    with workq.Executor(1, initializer=deeds.make_ready, initargs=("ready",)) as executor:
        assert [executor.submit(deeds.what_was_made_ready).result() for _ in range(3)] == ["ready"] * 3


def test_a_failing_initializer_breaks_the_pool_for_the_calls_that_wait_and_for_all_that_follow() -> None:
    with workq.Executor(1, initializer=deeds.fail_to_start) as executor:
        futures = [executor.submit(abs, -1) for _ in range(3)]
        for future in futures:
            with pytest.raises(BrokenProcessPool, match="error in initializer"):
                future.result(DEADLINE_S)
        with pytest.raises(BrokenProcessPool, match="the process pool is not usable anymore") as caught:
            executor.submit(abs, -1)
        assert "error in initializer" in str(caught.value)


def test_a_call_may_use_an_executor_itself() -> None:
    with workq.Executor(4) as executor:
        assert executor.submit(deeds.deep, 3).result(DEADLINE_S) == 3


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"max_workers": 0}, ValueError, "max_workers must be greater than 0"),
        ({"max_workers": "2"}, TypeError, "max_workers must be an integer"),
        ({"initializer": 5}, TypeError, "initializer must be a callable"),
        ({"max_tasks_per_child": 0}, ValueError, "max_tasks_per_child must be >= 1"),
        ({"max_tasks_per_child": "1"}, TypeError, "max_tasks_per_child must be an integer"),
        ({"max_tasks_per_child": 1, "mp_context": multiprocessing.get_context("fork")}, ValueError, "incompatible with the 'fork'"),
    ],
)
def test_bad_arguments_are_refused_as_the_standard_library_words_it(arguments: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text) as caught:
        workq.Executor(**arguments)
    assert isinstance(caught.value, workq.ArgumentError)


# ---------------------------------------------------------------- the interpreter's exit


def test_pending_futures_are_completed_at_the_interpreters_exit_before_the_applications_own_exit_functions() -> None:
    ended = application(
        """
        import atexit
        import workq

        @atexit.register
        def last():
            print("last")
            try:
                executor.submit(abs, 1)
            except RuntimeError as error:
                print(type(error).__name__, error)

        if __name__ == "__main__":
            executor = workq.Executor(2)
            for n in range(20):
                executor.submit(print, n)
        """
    )
    assert ended.stderr == ""
    *numbers, last, refusal = ended.stdout.splitlines()
    assert sorted(map(int, numbers)) == list(range(20))
    assert (last, refusal) == ("last", "RuntimeError cannot schedule new futures after interpreter shutdown")


def test_ctrl_c_while_the_interpreter_completes_what_is_pending_ends_the_program(tmp_path: Path) -> None:
    with start_application(
        """
        import os, signal, threading, workq

        def hold(n):
            print("running", flush=True)
            workq.flush()
            threading.Event().wait(600)

        if __name__ == "__main__":
            executors = [workq.Executor(1) for _ in range(2)]
            for executor in executors:
                executor.submit(hold, 1)
        """
    ) as app:
        assert app.line() == "running"  # of the one that is waited for first
        os.kill(app.pid, signal.SIGINT)
        app.finish()


def test_ctrl_c_in_the_block_ends_what_runs_and_drops_what_waits(tmp_path: Path) -> None:
    ended = application(
        f"""
        import os, signal, threading, workq

        def hold(path):
            open(path, "a").close()
            threading.Event().wait(600)

        if __name__ == "__main__":
            path = {str(tmp_path / "begun")!r}
            try:
                with workq.Executor(1) as executor:
                    futures = [executor.submit(hold, path) for _ in range(5)]
                    while not os.path.exists(path):
                        pass
                    os.kill(os.getpid(), signal.SIGINT)
                    futures[0].result()
            except KeyboardInterrupt:
                print([future.cancelled() for future in futures])
        """
    )
    assert ended.stdout.strip() == "[True, True, True, True, True]", ended.stderr


def test_a_fork_of_the_program_refuses_and_touches_nothing_of_the_parents(executor: workq.Executor) -> None:
    executor.submit(abs, 1).result()
    pid = os.fork()
    if pid == 0:
        try:
            executor.submit(abs, 1)
        except workq.ForkedError:
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert executor.submit(abs, -1).result() == 1


# ---------------------------------------------------------------- asyncio


def test_run_in_executor_gives_the_result_and_a_cancelled_task_ends_its_running_call(executor: workq.Executor, fifo: str) -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        results = [await loop.run_in_executor(executor, pow, 2, 10)]
        task = asyncio.ensure_future(loop.run_in_executor(executor, deeds.wait_for_line, fifo))
        await asyncio.to_thread(wait_until, lambda: executor.work_queue.num_active_workers == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        results.append(await loop.run_in_executor(executor, abs, -1))
        return results

    assert asyncio.run(main()) == [1024, 1]
    wait_until(lambda: executor.work_queue.statistics().cancelled == 1)
