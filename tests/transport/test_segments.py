"""Segments: large values in shared memory, and when one may be written again."""

from __future__ import annotations

import os

import numpy
import pytest

from workq.transport import segments

pytestmark = pytest.mark.skipif(
    not segments.POSSIBLE, reason="no memfd here; large values go by the socket, see tests/transport/test_channel.py"
)


@pytest.fixture
def pool() -> segments.Pool:
    return segments.Pool()


def read(segment: segments.Segment, lengths: list[int]) -> segments.Reading:
    return segments.Reading(segment.number, segments.map_private(segment.fd, lengths), lengths)


def test_a_value_comes_back_without_its_buffers_in_the_pickle(pool: segments.Pool) -> None:
    value = {"a": numpy.arange(100_000), "b": [1, "two"], "c": numpy.ones((300, 300))}
    pieces = segments.dump(value)
    assert len(pieces) == 3
    assert len(pieces[0]) < 1000
    got = read(*pool.write(pieces)).load()
    assert (got["a"] == value["a"]).all()
    assert (got["c"] == value["c"]).all()
    assert got["b"] == value["b"]


def test_a_reading_is_over_only_when_nobody_has_a_view_of_it(pool: segments.Pool) -> None:
    reading = read(*pool.write(segments.dump(numpy.arange(10_000))))
    array = reading.load()
    part = array[10:20]
    del array
    assert not reading.over()
    assert part.tolist() == list(range(10, 20))
    del part
    assert reading.over()


def test_what_a_reader_changes_is_its_own(pool: segments.Pool) -> None:
    segment, lengths = pool.write(segments.dump(numpy.zeros(10_000)))
    first, second = read(segment, lengths).load(), read(segment, lengths).load()
    first[:] = 7
    assert second.sum() == 0
    assert read(segment, lengths).load().sum() == 0


def test_a_segment_that_came_back_is_written_again_and_one_that_was_kept_is_not(pool: segments.Pool) -> None:
    segment, _ = pool.write([b"x" * 100_000])
    pool.free(segment)
    again, _ = pool.write([b"y" * 100_000])
    assert again is segment
    pool.keep(again.number)
    pool.free(again)
    other, _ = pool.write([b"z" * 100_000])
    assert other is not segment


def test_freeing_twice_is_freeing_once(pool: segments.Pool) -> None:
    segment, _ = pool.write([b"x" * 100_000])
    pool.free(segment)
    pool.free(segment)
    first, second = pool.write([b"1" * 100_000])[0], pool.write([b"2" * 100_000])[0]
    assert first is not second


def test_a_pool_keeps_a_bounded_number_of_bytes_and_close_gives_all_back() -> None:
    before = set(os.listdir("/proc/self/fd"))
    pool = segments.Pool()
    lent = [pool.write([bytes(segments.MOST_FREE_BYTES // 4)])[0] for _ in range(6)]
    for segment in lent:
        pool.free(segment)
    assert sum(segment.fd >= 0 for segment in lent) == 4
    pool.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_another_process_maps_a_segment_and_a_stale_number_is_refused(pool: segments.Pool) -> None:
    segment, lengths = pool.write([b"here"])
    mapping = segments.map_of(os.getpid(), segment.fd, segment.inode, lengths)
    assert mapping[:4] == b"here"
    with pytest.raises(FileNotFoundError):
        segments.map_of(os.getpid(), segment.fd, segment.inode + 1, lengths)


def test_buffers_that_are_small_or_not_contiguous_stay_in_the_pickle() -> None:
    assert len(segments.dump(numpy.arange(10))) == 1
    assert len(segments.dump(numpy.arange(100_000)[::2])) <= 2


def test_copies_are_what_was_written(pool: segments.Pool) -> None:
    segment, lengths = pool.write([b"abc", b"", b"defg"])
    assert segments.copy_out(segment, lengths) == [b"abc", b"", b"defg"]
