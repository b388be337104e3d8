"""The web applications of the examples: real servers, real requests, and nothing left behind when they end."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.examples.run import ENVIRONMENT
from tests.support import DEADLINE_S, ROOT, wait_gone

pytestmark = pytest.mark.slow

QUICK, ENDLESS = 1234567890, 2**127 - 1
APPLICATIONS = {"flask_app": "flask", "fastapi_app": "fastapi", "django_view": "django"}


class Site:
    """A server of the examples, while it runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.address = process.stdout.readline().strip()

    def get(self, path: str) -> tuple[int, dict]:
        """Ask, and return status and answer."""
        try:
            with urllib.request.urlopen(self.address + path, timeout=DEADLINE_S) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)


@pytest.fixture(params=APPLICATIONS)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    if importlib.util.find_spec(APPLICATIONS[request.param]) is None:
        pytest.skip(f"{APPLICATIONS[request.param]} is not installed")
    command = [sys.executable, str(ROOT / "examples" / f"{request.param}.py"), "--port", "0", "--limit", "0.2"]
    with subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield Site(process)
        finally:
            process.kill()


def test_a_request_that_takes_too_long_answers_504_and_its_worker_serves_the_next(site: Site) -> None:
    status, answer = site.get(f"/factors/{QUICK}")
    assert (status, answer["factors"]) == (200, [2, 3, 3, 5, 3607, 3803])
    status, late = site.get(f"/factors/{ENDLESS}")
    assert status == 504
    assert "timeout of 0.2 s" in late["error"]
    status, after = site.get(f"/factors/{QUICK}")
    assert (status, after["worker"]) == (200, answer["worker"])
    site.process.send_signal(signal.SIGINT)
    site.process.wait(DEADLINE_S)
    wait_gone(answer["worker"])


def test_a_worker_that_is_killed_costs_one_request(site: Site) -> None:
    worker = site.get(f"/factors/{QUICK}")[1]["worker"]
    os.kill(worker, signal.SIGKILL)
    status, answer = site.get(f"/factors/{QUICK}")
    assert status == 200 or "SIGKILL" in answer["error"]  # whichever came first, the kill or the request
    status, answer = site.get(f"/factors/{QUICK}")
    assert status == 200
    assert answer["worker"] != worker
