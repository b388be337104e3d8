"""What the benchmark makes of its figures. The measurements themselves are no tests."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

from tests.bench import mechanisms, picture, report, runner
from tests.bench.adapters import LIBRARIES, OURS
from tests.bench.adapters.without import MECHANISMS
from tests.bench.results import Line, line_of
from tests.bench.rows import ROWS, Goal, Row
from tests.bench.runner import Outcome
from tests.bench.workloads import WORKLOADS
from tests.support import ROOT

ROW = Row("trip", "a lone <trip>", "trip", "p50_us", "us", Goal(1.5, "raw"))


def line() -> Line:
    outcomes = {
        OURS: Outcome([{"p50_us": 10.0}, {"p50_us": 60.0}, {"p50_us": 12.0}]),
        "slow": Outcome([{"p50_us": 500.0}, None, None], trouble="hung for 60 s"),
        "broken": Outcome([None, None, None], trouble="died with -11"),
        "raw": Outcome([{"p50_us": 10.0}, {"p50_us": 30.0}, {"p50_us": 10.0}]),
    }
    return line_of(ROW, outcomes, ("raw",))


def test_a_ratio_is_made_round_by_round() -> None:
    assert line().ratios == (1.0, 2.0, 1.2)
    assert line().ratio == 1.2
    assert line().met is True


def test_the_best_peer_is_a_library_and_no_limit() -> None:
    assert line().best_peer == "slow"


def test_a_contender_in_trouble_is_named_below_the_table() -> None:
    text = report.table([line()])
    assert "trip: slow: hung for 60 s" in text
    assert "trip: broken: died with -11" in text


@pytest.mark.parametrize(
    ("goal", "ours", "other", "met"),
    [
        (Goal(40, "ppe", faster=True), 1.0, 41.0, True),
        (Goal(40, "ppe", faster=True), 1.0, 39.0, False),
        (Goal(0.12, "ppe"), 0.11, 1.0, True),
        (Goal(0.12, "ppe"), 0.13, 1.0, False),
        (Goal(300), 299.0, None, True),
        (Goal(0.7, least=True), 0.69, None, False),
    ],
    ids=str,
)
def test_a_goal_is_met_on_the_right_side_of_its_bound(goal: Goal, ours: float, other: float | None, met: bool) -> None:
    value = goal.value(ours, other)
    assert value is not None
    assert goal.met(value) is met


def test_the_columns_of_the_table_are_aligned() -> None:
    head, rule, row = report.table([line()]).splitlines()[:3]
    starts = [match.start() for match in re.finditer("-+", rule)]
    assert [head[start : start + len(name)] for start, name in zip(starts, report.HEAD, strict=True)] == list(report.HEAD)
    assert all(row[start - 1] == " " for start in starts[1:])


def test_the_picture_is_xml_with_a_bar_for_each_figure() -> None:
    root = xml.etree.ElementTree.fromstring(picture.svg([line()]))
    bars = [element for element in root if element.tag.endswith("rect")]
    assert len(bars) == 1 + len(line().figures)  # and the ground


def test_a_page_gets_the_new_table_in_place_of_the_old_one() -> None:
    page = f"before\n\n{report.MARK}\n\n```text\nold\n```\n\nafter\n"
    assert report.with_table(page, "new\n") == f"before\n\n{report.MARK}\n\n```text\nnew\n```\n\nafter\n"


def test_a_page_shows_the_picture_of_its_table_once() -> None:
    page = f"before\n\n{report.MARK}\n\n```text\nold\n```\n\nafter\n"
    once = report.with_table(page, "new\n", picture="figures.svg")
    assert once.count("](figures.svg)") == 1
    assert report.with_table(once, "new\n", picture="figures.svg") == once
    assert report.with_table(once, "new\n") == report.with_table(page, "new\n")


def test_each_row_has_a_workload_in_which_its_opponent_takes_part() -> None:
    for row in ROWS:
        names = WORKLOADS[row.workload].names()
        assert OURS in names
        assert row.goal is None or row.goal.against is None or row.goal.against in names, row.name
    assert {row.workload for row in ROWS} == set(WORKLOADS)


def test_each_contender_has_an_adapter() -> None:
    assert {name for workload in WORKLOADS.values() for name in workload.contenders} == set(LIBRARIES)


@pytest.mark.parametrize("name", ["queue", "kill"])
@pytest.mark.slow
def test_a_measurement_gives_the_figures_that_its_rows_show(name: str) -> None:
    figures, trouble = runner.measure(name, OURS, quick=True, loops_per_ms=1000)
    assert trouble is None
    assert figures is not None
    assert {row.figure for row in ROWS if row.workload == name} <= set(figures)


@pytest.mark.slow
def test_a_contender_that_hangs_is_ended_and_named(tmp_path: Path) -> None:
    program = f"import os, select; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); select.select([], [], [])"
    assert runner.measure("queue", OURS, quick=True, loops_per_ms=1000, program=program, timeout_s=1.0) == (None, "hung for 1 s")
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists()


@pytest.mark.slow
def test_the_command_names_the_rows_that_it_knows() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--only", "nonsense"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == 2
    assert "array-100mb" in answer.stderr


def test_every_mechanism_can_still_be_switched_off() -> None:
    """Each changes something of workq by its name; where that has got another name, nothing would be switched off."""
    code = "from tests.bench.adapters.without import WITHOUT; [make().prepare() for make in WITHOUT.values()]; print(len(WITHOUT))"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert int(answer.stdout) == len(MECHANISMS)
    assert {name for mechanism in MECHANISMS.values() for name in mechanism.rows} <= {row.name for row in ROWS}


def test_an_effect_is_the_ratio_of_figures_of_the_same_round() -> None:
    effect = mechanisms.Effect("batches", ROWS[0], [1.0, 2.0, 4.0], [3.0, 8.0, 8.0])
    assert effect.ratios == [3.0, 4.0, 2.0]
    text = mechanisms.table([effect, mechanisms.Effect("recall", ROWS[0], (), (), "without-recall: hung for 30 s")])
    assert "3 (2-4)" in text
    assert "recall, queue: without-recall: hung for 30 s" in text
