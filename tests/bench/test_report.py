"""What the benchmark makes of its figures. The measurements themselves are no tests."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

from tests.bench import mechanisms, picture, report, runner, saved
from tests.bench.adapters import LIBRARIES, OURS
from tests.bench.adapters.without import MECHANISMS
from tests.bench.results import Line, line_of
from tests.bench.rows import ONE_CORE_SHARE, ROWS, Goal, Row, opponents_of
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


def test_a_trip_is_compared_with_a_bare_one_that_is_placed_alike() -> None:
    row = Row("trip", "a lone trip", "trip", "p50_us", "us", Goal(1.5, "raw", placed=True))
    outcomes = {
        OURS: Outcome(
            [{"p50_us": 60.0, ONE_CORE_SHARE: 0.1}, {"p50_us": 60.0, ONE_CORE_SHARE: 0.2}, {"p50_us": 12.0, ONE_CORE_SHARE: 1.0}]
        ),
        "raw": Outcome([{"p50_us": 4.0, ONE_CORE_SHARE: 1.0}] * 3),
        "raw-two-cores": Outcome([{"p50_us": 50.0, ONE_CORE_SHARE: 0.0}] * 3),
        "raw-one-core": Outcome([{"p50_us": 4.0, ONE_CORE_SHARE: 1.0}] * 3),
    }
    line = line_of(row, outcomes, ("raw", "raw-two-cores", "raw-one-core"))
    assert line.ratios == (1.2, 1.2, 3.0)
    assert line.against == "raw-two-cores"
    assert "workq 43 %, raw 100 %, raw-two-cores 0 %, raw-one-core 100 % of the runs" in report.table([line])


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
        assert row.goal is None or set(row.goal.opponents()) <= set(names), row.name
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
    text = mechanisms.table([effect, mechanisms.Effect("recall", ROWS[0], trouble="without-recall: hung for 30 s")])
    assert "3 (2-4)" in text
    assert "recall, queue: without-recall: hung for 30 s" in text


def _run(workload: str, figure: float, rounds: int = 5) -> saved.Measured:
    """A run of one row, as it was measured."""
    measured = saved.Measured()
    measured.begin({"python": "3.11.7", "cores": 2, "processor": "p", "rounds": rounds, "load_before": 0.0, "quick": False})
    measured.add(workload, {name: Outcome([{row.figure: figure for row in ROWS}] * rounds) for name in WORKLOADS[workload].names()})
    return measured


def test_a_run_is_read_as_it_was_written_and_gone_on_with(tmp_path: Path) -> None:
    _run("queue", 4.0).write(tmp_path / "first.json")
    measured = saved.read([tmp_path / "first.json"])
    assert measured == _run("queue", 4.0)
    assert saved.missing(["queue", "map"], measured) == ["map"]


def test_of_joined_runs_the_later_one_counts_and_each_says_what_came_of_it(tmp_path: Path) -> None:
    for name, run in {"queue": _run("queue", 4.0), "map": _run("map", 7.0), "again": _run("queue", 2.0, rounds=3)}.items():
        run.write(tmp_path / name)
    measured = saved.read(tmp_path / name for name in ("queue", "map", "again"))
    assert [(line.row.name, line.ours) for line in measured.lines()] == [("queue", 2.0), ("map", 7.0)]
    assert [line.partition("; ")[2] for line in measured.about().splitlines()] == [
        "5 rounds, load before 0.0: map",
        "3 rounds, load before 0.0: queue",
    ]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"parts": [], "rounds": {"queue": {"workq": {"nonsense": 1}}}}'])
def test_a_file_that_holds_no_run_is_refused_by_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text(text)
    with pytest.raises(ValueError, match=r"odd\.json holds no run"):
        saved.read([tmp_path / "odd.json"])


def test_a_row_whose_time_is_over_gets_what_its_goal_needs_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def measure(workload: str, contender: str, quick: bool, loops_per_ms: int) -> tuple[dict[str, float], None]:
        measured.append(contender)
        return {"p50_us": 1.0}, None

    monkeypatch.setattr(runner, "measure", measure)
    monkeypatch.setattr(runner, "prepare", lambda: None)
    (name, outcomes), *_ = runner.run(["trip"], 3, True, 1, lambda text: None, row_s=0.0)
    assert name == "trip"
    assert set(measured) == {OURS, "raw-one-core", "raw-two-cores"} == {OURS, *opponents_of("trip")}
    assert outcomes["pool"] == Outcome([None] * 3, runner.NO_TIME)
    assert outcomes[OURS] == Outcome([{"p50_us": 1.0}, None, None])
