"""Many units: a million queued, ten thousand cancelled at once."""

from __future__ import annotations

import threading
from concurrent.futures import wait

import pytest

import workq
from tests.support import DEADLINE_S, application

pytestmark = pytest.mark.slow


def test_a_million_units_end_and_each_takes_three_hundred_bytes() -> None:
    """Measured on what the process occupies, while the one worker is busy, so that nothing is let go meanwhile."""
    ended = application(
        """
        import gc, os, psutil, workq

        def hold(path):
            while not os.path.exists(path):  # busy, as one that sleeps would be judged to be blocked, and another worker would stand in
                pass

        if __name__ == "__main__":
            go_on = os.path.abspath(__file__) + ".go"
            wq = workq.WorkMgr(1)
            wq.queue(abs, -1).result()
            wq.queue(hold, go_on)
            for _ in range(1000):
                wq.queue(abs, -1)
            process = psutil.Process()
            gc.collect()
            before = process.memory_info().rss
            for n in range(1_000_000):
                wq.queue(abs, -n)
            each = (process.memory_info().rss - before) / 1_000_000
            open(go_on, "w").close()
            done = wq.sync().done
            print(done, round(each), wq.queue(abs, -2).result())
        """,
        deadline_s=120,
    )
    assert ended.returncode == 0, ended.stderr
    done, each, after = map(int, ended.stdout.split())
    assert (done, after) == (1_001_002, 2)
    assert each <= 300


def test_ten_thousand_units_are_cancelled_at_once() -> None:
    """Queued, sent and running ones, by four threads; each ends, all that were cancelled say so, and the queue goes on."""
    with workq.WorkMgr(2, output="discard") as wq:
        units = [wq.queue(_idle) for _ in range(10_000)]
        threads = [threading.Thread(target=lambda part=part: [unit.cancel() for unit in units[part::4]]) for part in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S * 3)
        done, not_done = wait(units, DEADLINE_S * 3)
        assert not not_done
        assert all(unit.cancelled() for unit in done)
        assert wq.queue(abs, -5).result(DEADLINE_S) == 5
        assert wq.statistics().cancelled == 10_000


def test_closing_a_queue_with_a_hundred_thousand_units_ends_them_all() -> None:
    wq = workq.WorkMgr(2)
    units = [wq.queue(_idle) for _ in range(100_000)]
    wq.close()
    assert all(unit.cancelled() for unit in units)


def _idle() -> None:
    threading.Event().wait(600)
