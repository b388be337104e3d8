"""What is seen of a process from outside, by /proc and by psutil."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support import wait_until
from workq.process import probe

PROBES = [probe.ProcProbe, probe.PsutilProbe]


@pytest.fixture
def process():
    """A Python process that runs what it is told, line by line, and says a line after each."""
    code = "import sys\nfor line in sys.stdin:\n exec(line)\n print('done', flush=True)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one:
        yield one
        one.kill()


def run(process, line):
    process.stdin.write(line + "\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


@pytest.mark.parametrize("kind", PROBES)
def test_a_process_that_waits_is_asleep_and_uses_nothing(process, kind):
    run(process, "pass")
    with kind(process.pid) as looks:
        wait_until(lambda: looks.read().state == "S")
        first, second = looks.read(), looks.read()
    assert first == second


@pytest.mark.parametrize("kind", PROBES)
def test_a_process_that_computes_is_running_and_uses_time(process, kind):
    with kind(process.pid) as looks:
        before = looks.read()
        process.stdin.write("while True: pass\n")
        process.stdin.flush()
        wait_until(lambda: looks.read().state == "R")
        wait_until(lambda: looks.read().run_ns > before.run_ns)
        wait_until(lambda: looks.read().tree_ticks > before.tree_ticks)


@pytest.mark.parametrize("kind", PROBES)
def test_the_time_of_a_busy_child_counts_while_its_parent_sleeps(process, kind):
    run(process, "import subprocess")
    run(process, "child = subprocess.Popen([sys.executable, '-c', 'while True: pass'])")
    with kind(process.pid) as looks:
        before = looks.read()
        wait_until(lambda: looks.read().tree_ticks > before.tree_ticks + 1)
        assert looks.read().run_ns - before.run_ns < 5_000_000
        alive = looks.read().tree_ticks
        run(process, "child.kill(); child.wait()")
        assert looks.read().tree_ticks >= alive - 1  # what it used counts on (kernel ticks are rounded once more)


@pytest.mark.parametrize("kind", PROBES)
def test_a_process_that_is_gone_reads_as_none(process, kind):
    with kind(process.pid) as looks:
        process.kill()
        process.wait()
        assert looks.read() is None
    with pytest.raises(OSError, match=r"No such|no process"):
        kind(process.pid)
    assert probe.usage(process.pid) is None


def test_usage_tells_memory_and_time(process):
    run(process, "pass")
    before = probe.usage(process.pid)
    run(process, "kept = bytearray(b'x' * 50_000_000)")
    after = probe.usage(process.pid)
    assert 40_000_000 < after.rss_bytes - before.rss_bytes < 150_000_000
    assert after.cpu_s >= before.cpu_s


def test_open_probe_takes_what_the_system_has():
    with probe.open_probe(os.getpid()) as looks:
        assert looks.read().state == "R"


def test_children_by_psutil_are_those_of_the_kernel(process):
    assert process.pid in probe.children(os.getpid())


def test_the_out_of_memory_counter_is_a_number_or_unknown():
    count = probe.oom_kills(os.getpid())
    assert count is None or count >= 0


def test_a_plain_kill_is_no_out_of_memory(process):
    before = probe.oom_kills(process.pid)
    process.kill()
    process.wait()
    assert probe.oom_kills(process.pid) == before


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"low 0\noom_kill 3\noom_group_kill 9\n", 3),
        (b"oom_kill_disable 0\nunder_oom 0\noom_kill 12\n", 12),
        (b"low 1\n", None),
        (b"", None),
    ],
)
def test_the_counter_is_found_by_its_whole_name(text, value):
    assert probe.value_of(text, b"oom_kill") == value


def test_a_process_name_with_brackets_confuses_nobody():
    assert probe.fields_of_stat(b"12 (odd) name) R 1 2") == [b"R", b"1", b"2"]
    assert probe.fields_of_stat(b"") == []
