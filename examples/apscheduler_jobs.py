"""APScheduler with workq: jobs run in workers, and the scheduler stays quick: ``python examples/apscheduler_jobs.py``.

Needs APScheduler 3. In the way of its own process pool, but: a job that crashes costs itself alone, and is told with its signal. (For
what repeats without a store of jobs there are ``wq.every`` and ``wq.cron``.)
"""

from __future__ import annotations

import argparse
import os
import threading
from typing import Any

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, JobExecutionEvent
from apscheduler.executors.pool import BasePoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

import workq


class WorkqExecutor(BasePoolExecutor):
    """Runs the jobs of a scheduler in workers of workq."""

    def __init__(self, max_workers: int = 2, **pool: Any) -> None:
        super().__init__(workq.Executor(max_workers, **pool))

    def _run_job_error(self, job_id: str, exc: BaseException, traceback: Any = None) -> None:
        """Tell the listeners, too, of a job whose worker has ended; the scheduler by itself only logs it."""
        super()._run_job_error(job_id, exc, traceback)
        self._scheduler._dispatch_event(JobExecutionEvent(EVENT_JOB_ERROR, job_id, "default", None, exception=exc))


def report(number: int) -> int:
    """Compute something; number 2 crashes its worker."""
    if number == 2:
        os.abort()
    return sum(range(number * 1_000_000))


def main() -> None:
    """Run three jobs, and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    ended = threading.Semaphore(0)

    def tell(event: JobExecutionEvent) -> None:
        what = type(event.exception).__name__ if event.exception else event.retval
        print(f"{event.job_id}: {what}", flush=True)
        ended.release()

    scheduler = BackgroundScheduler(executors={"default": WorkqExecutor()}, job_defaults={"misfire_grace_time": None})
    scheduler.add_listener(tell, EVENT_JOB_EXECUTED | EVENT_JOB_ERROR)
    scheduler.start()
    for number in (1, 2, 3):
        scheduler.add_job(report, args=[number], id=f"report {number}")
    for _ in range(3):
        ended.acquire()
    scheduler.shutdown()


if __name__ == "__main__":
    main()
