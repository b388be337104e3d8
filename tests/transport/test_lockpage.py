"""Locks that are taken without asking, as the threads of one process see them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests.stepping import at_bytecode
from workq.transport.claims import Held
from workq.transport.lockpage import HELD, HELD_AT, HELD_WORDS, Page, Thin

MY_THREAD, OTHER_THREAD = 11, 12
MINE, GRANTED = Held(MY_THREAD, 0, 1, ""), Held(OTHER_THREAD, 5, 1, "")
ALL_MINE, ALL_GRANTED = {("door", MY_THREAD): MINE}, {("door", OTHER_THREAD): GRANTED}


class Meanwhile(Page):
    """A page on which something happens right after a byte was given back."""

    __slots__ = ("then",)
    then: Callable[[], object]

    def give(self, byte: int) -> None:
        super().give(byte)
        self.then()


@pytest.fixture
def page() -> Iterator[Meanwhile]:
    made = Meanwhile.create()
    assert isinstance(made, Meanwhile)
    made.then = bool
    yield made
    made.flags.release()
    os.close(made.fd)


def thin_of(page: Page) -> Thin:
    thin = Thin(page, memoryview(bytearray(8 * (HELD_AT + HELD * HELD_WORDS))).cast("Q"), main_thread=0)
    thin.bytes["door"] = 0
    return thin


def test_a_lock_is_taken_and_given_back(page: Meanwhile) -> None:
    thin, held = thin_of(page), {}
    assert thin.take("door", held, MINE, 1)
    assert held == ALL_MINE
    assert thin.give("door", held, MINE) is False
    assert held == {}


def test_what_another_thread_is_granted_in_the_middle_of_a_giving_back_stays_its_own(page: Meanwhile) -> None:
    thin, held = thin_of(page), {}
    assert thin.take("door", held, MINE, 1)
    page.then = lambda: held.update(ALL_GRANTED)
    thin.give("door", held, MINE)
    assert held == ALL_GRANTED


def test_what_another_thread_is_granted_in_the_middle_of_a_taking_that_fails_is_nobody_elses(page: Meanwhile) -> None:
    thin, held = thin_of(page), {}
    page.flags[0] = 1  # the controller is to be asked
    page.then = lambda: held.update(ALL_GRANTED)
    assert not thin.take("door", held, MINE, 1)
    assert held == ALL_GRANTED


def test_what_a_thread_has_is_not_tried_for_by_another_one(page: Meanwhile) -> None:
    """The kernel would give the byte to both: they are one process."""
    thin, held = thin_of(page), {}
    other = Held(OTHER_THREAD, 0, 1, "")
    assert thin.take("door", held, MINE, 1)
    assert not thin.take("door", held, other, 1)
    assert held == ALL_MINE
    thin.give("door", held, MINE)
    assert thin.take("door", held, other, 1)
    assert held == {("door", OTHER_THREAD): other}


def test_what_the_controller_has_granted_to_a_thread_stays_its_own_where_it_tries_again(page: Meanwhile) -> None:
    thin, held = thin_of(page), {}
    page.flags[0] = 1
    granted = Held(MY_THREAD, 5, 1, "")
    held["door", MY_THREAD] = granted
    assert not thin.take("door", held, MINE, 1)
    assert held == {("door", MY_THREAD): granted}


class Struck(Exception):
    """What a signal handler raises."""


def struck_at(step: int, act: Callable[[], object]) -> bool:
    """Do something, and raise before the bytecode with this number, as a signal handler may; return whether there was one."""

    def raise_it() -> None:
        raise Struck

    try:
        at_bytecode(step, ("transport/lockpage.py",), act, raise_it)
    except Struck:
        return True
    return False


def test_a_giving_back_that_is_struck_and_done_again_gives_nobody_elses_lock_back(page: Meanwhile) -> None:
    step, other = 1, Held(OTHER_THREAD, 0, 1, "")
    while True:
        thin, held = thin_of(page), {}
        assert thin.take("door", held, MINE, 1)
        struck = struck_at(step, lambda: thin.give("door", held, MINE))  # noqa: B023
        taken = thin.take("door", held, other, 1)
        thin.give("door", held, MINE)
        assert ("door", MY_THREAD) not in held, step
        if taken:
            assert held == {("door", OTHER_THREAD): other}, step
            assert 1 in thin._words[HELD_AT:].tolist(), step
            assert not thin.take("door", held, Held(13, 0, 1, ""), 1), step
            thin.give("door", held, other)
        assert thin.take("door", held, other, 1), step
        thin.give("door", held, other)
        if not struck:
            break
        step += 1
    assert step > 30


def test_a_taking_that_is_struck_leaves_nothing_behind_once_it_was_given_back(page: Meanwhile) -> None:
    step, other = 1, Held(OTHER_THREAD, 0, 1, "")
    while True:
        thin, held = thin_of(page), {}
        struck = struck_at(step, lambda: thin.take("door", held, MINE, 1))  # noqa: B023
        thin.give("door", held, MINE)
        assert held == {}, step
        assert thin.take("door", held, other, 1), step
        thin.give("door", held, other)
        if not struck:
            break
        step += 1
    assert step > 30
