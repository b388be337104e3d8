"""Large arguments and results: what a program can see of their way through shared memory."""

from __future__ import annotations

import os
import signal

import numpy
import pytest

import workq
from tests.support import application

kept: list[numpy.ndarray] = []


def total(array: numpy.ndarray) -> float:
    return float(array.sum())


def keep(array: numpy.ndarray) -> None:
    kept.append(array)


def kept_total() -> list[float]:
    return [float(array.sum()) for array in kept]


def change(array: numpy.ndarray) -> float:
    array += 1
    return float(array[0])


def change_and_fail_once(array: numpy.ndarray, path: str) -> float:
    array += 1
    if not os.path.exists(path):
        open(path, "w").close()
        raise ValueError("the first time")
    return float(array[0])


def filled(value: float, size: int) -> numpy.ndarray:
    return numpy.full(size, value)


def filled_then_die(value: float, size: int) -> numpy.ndarray:
    return numpy.full(size, value)


def kill_me() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(params=[10_000, 200_000], ids=["80 kB", "1.6 MB"])
def size(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_arrays_go_and_come_back(size: int) -> None:
    with workq.WorkMgr(2) as wq:
        for value in range(10):
            array = wq.queue(filled, value, size).result()
            assert array.shape == (size,)
            assert (array == value).all()
            assert wq.queue(total, array).result() == value * size


def test_arguments_are_captured_when_they_are_queued(size: int) -> None:
    array = numpy.zeros(size)
    with workq.WorkMgr(1) as wq:
        units = []
        for value in range(20):
            array[:] = value
            units.append(wq.queue(total, array))
        assert [unit.result() for unit in units] == [value * size for value in range(20)]


def test_results_that_are_kept_never_change(size: int) -> None:
    with workq.WorkMgr(1) as wq:
        arrays = [wq.queue(filled, value, size).result() for value in range(30)]
        assert [array[0] for array in arrays] == list(range(30))
        assert all((array == array[0]).all() for array in arrays)


def test_arguments_that_a_worker_keeps_never_change(size: int) -> None:
    with workq.WorkMgr(1) as wq:
        for value in range(10):
            wq.queue(keep, numpy.full(size, value)).result()
        assert wq.queue(kept_total).result()[-10:] == [float(value * size) for value in range(10)]


def test_what_a_unit_changes_in_its_arguments_is_not_seen_by_its_next_attempt(size: int, tmp_path: os.PathLike[str]) -> None:
    array = numpy.zeros(size)
    with workq.WorkMgr(1) as wq:
        wq.queue(total, array).result()
        retried = wq.options(retries=2)
        retried.queue(change, array).result()
        unit = retried.queue(change_and_fail_once, array, str(tmp_path) + "/failed")
        assert unit.result() == 1.0
        assert unit.attempt == 2
    assert array.sum() == 0


def test_a_finished_large_result_survives_its_worker(size: int) -> None:
    with workq.WorkMgr(1) as wq:
        wq.queue(filled, 0, size).result()
        for value in range(5):
            unit, death = wq.queue(filled_then_die, value, size), wq.queue(kill_me)
            with pytest.raises(workq.WorkerHalted):
                death.result()
            assert (unit.result() == value).all()


def test_results_can_be_written_to(size: int) -> None:
    with workq.WorkMgr(1) as wq:
        first = wq.queue(filled, 1, size).result()
        second = wq.queue(filled, 2, size).result()
        first[:] = 9
        second += 1
        assert wq.queue(total, first).result() == 9 * size
        assert (second == 3).all()
        assert (wq.queue(filled, 4, size).result() == 4).all()


def test_large_bytes_and_keyword_arguments(size: int) -> None:
    with workq.WorkMgr(1) as wq:
        for _ in range(3):
            assert wq.queue(bytes, size * 8).result() == bytes(size * 8)
            assert wq.queue(total, array=numpy.ones(size)).result() == size
            assert wq.queue(len, b"x" * (size * 8)).result() == size * 8


def test_a_worker_that_reads_for_long_is_not_taken_for_silent() -> None:
    """Else two idle workers would hand a large argument to and fro for ever, each too slow to have read it before it is taken back."""
    ended = application(
        """
        import os
        del os.memfd_create  # so that it goes through the socket
        import workq

        if __name__ == "__main__":
            with workq.Controller(settings=workq.Settings(silent_after_s=0.001)) as controller:
                with workq.WorkMgr(2, controller=controller) as wq:
                    wq.queue(abs, 1), wq.queue(abs, 2)  # so that there are two
                    wq.sync()
                    print([wq.queue(len, bytes(100_000_000)).result(15) for _ in range(3)])
        """
    )
    assert ended.stdout.strip() == "[100000000, 100000000, 100000000]", ended.stderr
