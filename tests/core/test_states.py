"""The tables of legal moves, and the page that is written from them."""

from __future__ import annotations

from enum import Enum

import pytest

from tests.tools import write_states
from workq.core.states import UNIT_ENDS, UNIT_MOVES, WORKER_MOVES, IllegalMove, UnitState, WorkerState, advance

W, U = WorkerState, UnitState


def test_a_legal_move_leads_to_the_state_of_the_table() -> None:
    state = W.STARTING
    story = []
    for move in ("ready", "grant", "block", "unblock", "dry", "take", "dry", "release", "retire", "grant", "dry", "retire", "stop", "exit"):
        state = advance(WORKER_MOVES, state, move)
        story.append(state)
    assert story == [
        W.WAITING_TO_ATTACH,
        W.ACTIVE,
        W.BLOCKED,
        W.ACTIVE,
        W.WAITING_FOR_UNITS,
        W.ACTIVE,
        W.WAITING_FOR_UNITS,
        W.WAITING_TO_ATTACH,
        W.RETIRED,
        W.ACTIVE,
        W.WAITING_FOR_UNITS,
        W.RETIRED,
        W.STOPPING,
        W.GONE,
    ]


ALL_WORKER_MOVES = sorted({move for _, move in WORKER_MOVES})
ALL_UNIT_MOVES = sorted({move for _, move in UNIT_MOVES})


@pytest.mark.parametrize("state", W)
def test_every_other_move_of_a_worker_is_refused(state: WorkerState) -> None:
    for move in ALL_WORKER_MOVES:
        if (state, move) not in WORKER_MOVES:
            with pytest.raises(IllegalMove, match=f"{move!r} is no move from {state}"):
                advance(WORKER_MOVES, state, move)


@pytest.mark.parametrize("state", U)
def test_every_other_move_of_a_unit_is_refused(state: UnitState) -> None:
    for move in ALL_UNIT_MOVES:
        if (state, move) not in UNIT_MOVES:
            with pytest.raises(IllegalMove, match=f"{move!r} is no move from {state}"):
                advance(UNIT_MOVES, state, move)


@pytest.mark.parametrize("state", [state for state in W if state is not W.GONE])
def test_a_process_can_exit_in_every_state(state: WorkerState) -> None:
    assert advance(WORKER_MOVES, state, "exit") is W.GONE


def test_nothing_follows_a_gone_worker() -> None:
    assert [state for state, _ in WORKER_MOVES if state is W.GONE] == []


def test_only_a_retry_leads_out_of_an_end() -> None:
    retries = {"retry", "rest"}
    assert {move for state, move in UNIT_MOVES if state in UNIT_ENDS} == retries
    left = {state for state, move in UNIT_MOVES if move not in retries}
    assert {after for after in UNIT_MOVES.values() if after not in left} == UNIT_ENDS


@pytest.mark.parametrize(("machine", "table"), [(W, WORKER_MOVES), (U, UNIT_MOVES)])
def test_every_state_can_be_reached(machine: type[Enum], table: dict[tuple[Enum, str], Enum]) -> None:
    first, *others = machine
    assert {*table.values(), first} == {first, *others}


def test_states_of_both_machines_can_be_looked_up_and_are_equal_to_themselves_only() -> None:
    assert len({*W, *U}) == len(W) + len(U)
    assert {W.ACTIVE: 1}[W("active")] == 1


@pytest.mark.parametrize("machine", [W, U])
def test_each_state_has_a_meaning(machine: type[Enum]) -> None:
    assert list(write_states.meanings(machine)) == [state.name for state in machine]


def test_the_page_of_states_is_up_to_date() -> None:
    assert write_states.main(["--check"]) == 0, "python -m tests.tools.write_states"
