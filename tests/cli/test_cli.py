"""python -m workq: data on stdout, words on stderr, documented exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import workq
from tests.support import DEADLINE_S, ROOT
from workq.cli import main as commands
from workq.cli import ps
from workq.process.probe import Seen


@pytest.fixture
def wq() -> Iterator[workq.WorkMgr]:
    with workq.Controller() as controller, workq.WorkMgr(1, controller=controller) as queue:
        yield queue


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workq", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


@pytest.mark.slow
def test_info_as_json_is_data_on_stdout_and_nothing_else() -> None:
    ended = run("info", "--json", WORKQ_MAX_WORKERS="3")
    assert (ended.returncode, ended.stderr) == (0, "")
    data = json.loads(ended.stdout)
    assert data["workq"] == workq.__version__
    assert data["categories"]["Default"]["max_workers"] == 3
    assert data["environment"]["WORKQ_MAX_WORKERS"] == "3"
    assert data["start_methods"] == ["launcher", "fork", "spawn"]
    assert data["usable_cpus"] == workq.usable_cpus()
    assert data["libraries"]["psutil"]


@pytest.mark.slow
def test_a_variable_that_makes_no_sense_is_said_on_stderr_with_its_own_exit_code() -> None:
    ended = run("info", WORKQ_START_METHOD="threads")
    assert ended.returncode == 3
    assert ended.stderr == "workq: WORKQ_START_METHOD must be 'launcher', 'fork' or 'spawn', not 'threads'\n"
    assert "usable CPUs" in ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [(), ("dance",), ("info", "--yaml")])
def test_a_command_line_that_makes_no_sense_exits_with_2(arguments: tuple[str, ...]) -> None:
    ended = run(*arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "usage: python -m workq" in ended.stderr


@pytest.mark.slow
def test_whoever_reads_may_go() -> None:
    process = subprocess.Popen([sys.executable, "-m", "workq", "info"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, stderr = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, stderr) == (141, b"")


@pytest.mark.slow
def test_ps_shows_each_application_with_its_launcher_and_its_workers(wq: workq.WorkMgr, capsys: pytest.CaptureFixture[str]) -> None:
    unit = wq.queue(os.getppid)
    launcher = unit.result()
    assert unit.worker is not None
    assert commands.main(["ps", "--json"]) == 0
    shown = capsys.readouterr()
    (application,) = [one for one in json.loads(shown.out) if one["pid"] == os.getpid()]
    assert [row["pid"] for row in application["launchers"]] == [launcher]
    assert [(row["pid"], row["name"]) for row in application["workers"]] == [(unit.worker.pid, unit.worker.name)]
    assert application["workers"][0]["rss_bytes"] > 1_000_000
    assert application["state"] != "gone"
    assert commands.main(["ps"]) == 0
    text = capsys.readouterr().out
    assert unit.worker.name in text
    assert f"{os.getpid()} " in text
    assert "\x1b" not in text


def seen(pid: int, title: str, **more: Any) -> Seen:
    return Seen(
        **{
            "pid": pid,
            "name": "x",
            "title": title,
            "user": "me",
            "state": "sleeping",
            "cpu_s": 1.0,
            "rss_bytes": 1 << 20,
            "created_at": 0.0,
            **more,
        }
    )


def test_ps_says_where_nothing_is_there_and_where_an_application_is_gone(capsys: pytest.CaptureFixture[str]) -> None:
    other = seen(5, "vim workq launcher of 7")
    assert commands.show_processes(ps.gather([other]), as_json=True) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out) == []
    assert shown.err == "workq: there is no process of workq on this machine that you may see\n"
    left_behind = seen(8, "workq worker_0123abcd of 7")
    assert commands.show_processes(ps.gather([other, left_behind]), as_json=False) == 0
    assert "7 an application that is gone: 1 worker\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("terminal", "environment", "coloured"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (True, {"NO_COLOR": ""}, True),
    ],
)
def test_colours_are_for_terminals_whose_user_wants_them(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, environment: dict[str, str], coloured: bool
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    for name, value in {"NO_COLOR": "", "TERM": "xterm", **environment}.items():
        monkeypatch.setenv(name, value)
    assert commands.coloured() is coloured
