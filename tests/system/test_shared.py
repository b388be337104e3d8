"""workq.shared: once for all workers."""

from __future__ import annotations

import gc
import os

import numpy
import pytest

import workq


def address_and_sum(array: numpy.ndarray) -> tuple[int, int, float]:
    return os.getpid(), array.__array_interface__["data"][0], float(array.sum())


def write_to(array: numpy.ndarray) -> None:
    array[0] = 1


def inner(box: dict[str, numpy.ndarray]) -> float:
    return float(box["array"].sum())


def test_units_get_the_value_itself_and_a_worker_maps_it_once() -> None:
    table = workq.shared(numpy.ones(1_000_000))
    with workq.WorkMgr(2) as wq:
        seen = {wq.queue(address_and_sum, table).result() for _ in range(40)}
        assert {total for _, _, total in seen} == {1_000_000.0}
        assert len(seen) == len({pid for pid, _, _ in seen})
        assert list(wq.map(inner, [{"array": table}] * 100)) == [1_000_000.0] * 100


def test_a_handle_is_cheap_to_queue() -> None:
    table = workq.shared(numpy.ones(1_000_000))
    with workq.WorkMgr(1) as wq:
        unit = wq.queue(address_and_sum, table)
        assert table.size_bytes >= 8_000_000
        assert len(unit.data) < 300
        unit.result()


def test_what_is_changed_afterwards_is_not_seen_and_units_cannot_change_it() -> None:
    array = numpy.zeros(100_000)
    table = workq.shared(array)
    array[:] = 5
    with workq.WorkMgr(1) as wq:
        assert wq.queue(address_and_sum, table).result()[2] == 0.0
        with pytest.raises(ValueError, match="read-only"):
            wq.queue(write_to, table).result()


def test_a_dropped_handle_lives_until_its_units_have_ended_and_then_its_memory_is_given_back() -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    with workq.WorkMgr(1, controller=(controller := workq.Controller())) as wq:
        units = [wq.queue(address_and_sum, workq.shared(numpy.full(100_000, value))) for value in range(20)]
        assert [unit.result()[2] for unit in units] == [value * 100_000.0 for value in range(20)]
    controller.close()
    del units, wq, controller
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_value_that_cannot_be_pickled_is_refused_at_the_call() -> None:
    with pytest.raises(workq.PicklingError, match="generator"):
        workq.shared(number for number in range(3))
