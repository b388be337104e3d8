"""The table of locks and events, by transcripts, and by any order of requests, deaths and withdrawals."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from workq.core.circles import find_circle, sentence
from workq.core.locks import Claim, LockTable, Party


def claim(worker: int, ticket: int = 1, *, certain: bool = True) -> Claim:
    return Claim((worker, ticket), Party(worker, 0), f"unit {worker}", float(ticket), certain)


def test_a_lock_goes_to_who_came_first() -> None:
    table, claims = LockTable(), [claim(number) for number in range(1, 5)]
    assert [table.acquire("a", each) for each in claims] == [True, False, False, False]
    assert table.waiting()
    assert [table.release("a", each.ticket, now=9.0) for each in claims] == [*claims[1:], None]
    assert claims[1].since == 9.0
    assert not table.locks
    assert not table.waiting()


def test_a_lock_that_is_not_ones_own_cannot_be_given_back() -> None:
    table = LockTable()
    table.acquire("a", claim(1))
    assert table.release("a", (2, 1), 0.0) is None
    assert table.release("b", (1, 1), 0.0) is None
    assert table.locks["a"].holder.ticket == (1, 1)


def test_who_withdraws_leaves_the_line_or_gives_back_what_was_granted_meanwhile() -> None:
    table, first, second, third = LockTable(), claim(1), claim(2), claim(3)
    for each in (first, second, third):
        table.acquire("a", each)
    assert table.withdraw("a", second.ticket, 0.0) is None
    assert table.withdraw("a", first.ticket, 0.0) is third
    assert table.withdraw("unknown", first.ticket, 0.0) is None
    assert table.locks["a"].holder is third


def test_the_dead_hold_nothing_and_wait_for_nothing() -> None:
    table, dead, living = LockTable(), claim(1), claim(2)
    table.acquire("a", dead)
    table.acquire("a", claim(1, 2))
    table.acquire("a", living)
    table.acquire("b", living2 := claim(2, 2))
    table.acquire("b", claim(1, 3))
    table.acquire("c", claim(1, 4))
    table.wait("go", claim(1, 5))
    held, granted = table.forget(lambda party: party.worker == 1, now=3.0)
    assert [(row.name, row.holder.ticket) for row in held] == [("a", (1, 1)), ("c", (1, 4))]
    assert granted == [living]
    assert {name: row.holder for name, row in table.locks.items()} == {"a": living, "b": living2}
    assert not table.waiting()
    assert not table.events


def test_an_event_wakes_all_who_wait_and_stays_set_till_it_is_cleared() -> None:
    table, first, second = LockTable(), claim(1), claim(2)
    assert (table.wait("go", first), table.wait("go", second), table.is_set("go")) == (False, False, False)
    table.clear("go")
    assert table.set("go", "unit 9", 4.0) == [first, second]
    assert table.set("go", "unit 10", 5.0) == []
    assert (table.events["go"].set_by, table.events["go"].since) == ("unit 9", 4.0)
    assert table.wait("go", first)
    table.clear("go")
    assert not table.is_set("go")
    assert not table.events


def test_an_event_that_nobody_waits_for_any_more_is_forgotten() -> None:
    table, waits = LockTable(), claim(1)
    table.wait("go", waits)
    assert table.withdraw("go", waits.ticket, 0.0) is None
    assert not table.events
    table.set("go", "unit 1", 0.0)
    table.withdraw("go", waits.ticket, 0.0)
    assert table.is_set("go")


def test_only_waits_without_a_time_out_are_told_to_those_who_look_for_circles() -> None:
    table = LockTable()
    table.acquire("a", claim(1))
    table.acquire("a", claim(2))
    table.acquire("a", claim(3, certain=False))
    assert [[row.name for row in table.waits_of(Party(number, 0))] for number in (1, 2, 3)] == [[], ["a"], []]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["acquire", "release", "withdraw", "die"]), st.integers(1, 4), st.sampled_from("ab")), max_size=60)
)
def test_there_is_never_a_second_holder_nor_a_line_before_a_free_lock(steps: list[tuple[str, int, str]]) -> None:
    table, tickets, order = LockTable(), iter(range(1, 1000)), dict[str, list[tuple[int, int]]]()
    for what, worker, name in steps:
        line = order.setdefault(name, [])
        mine = [ticket for ticket in line if ticket[0] == worker]
        if what == "acquire":
            new = claim(worker, next(tickets))
            assert table.acquire(name, new) == (not line)
            line.append(new.ticket)
        elif what == "release" and line and line[0][0] == worker:
            table.release(name, line.pop(0), 0.0)
        elif what == "withdraw" and mine:
            line.remove(mine[-1])
            table.withdraw(name, mine[-1], 0.0)
        elif what == "die":
            table.forget(lambda party, gone=worker: party.worker == gone, 0.0)  # type: ignore[misc]
            order = {key: [ticket for ticket in tickets_ if ticket[0] != worker] for key, tickets_ in order.items()}
        shown = {key: [row.holder.ticket, *row.waiting] for key, row in table.locks.items()}
        assert shown == {key: tickets_ for key, tickets_ in order.items() if tickets_}


# ---------------------------------------------------------------- circles


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.integers(0, 7), st.lists(st.integers(0, 7), max_size=3), max_size=8))
def test_a_circle_is_found_just_where_one_waits_for_oneself_through_others(waits: dict[int, list[int]]) -> None:
    circle = find_circle(0, lambda node: waits.get(node, []))
    reached, border = set[int](), [0]
    while border:
        new = [node for node in waits.get(border.pop(), []) if node not in reached]
        reached |= set(new)
        border += new
    assert bool(circle) == (0 in reached)
    if circle:
        assert circle[0] == 0
        assert len(set(circle)) == len(circle)
        assert all(after in waits[before] for before, after in zip(circle, [*circle[1:], 0], strict=True))


def test_a_circle_is_told_in_the_order_of_the_waits() -> None:
    told = sentence(["unit 1", "unit 2", "lock 'a'"])
    assert told == "unit 1 waits for unit 2, which waits for lock 'a', held by unit 1: this can never end"
