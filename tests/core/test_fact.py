"""`fact`: values that do not change; `record`: those that do. Cheap to define."""

from __future__ import annotations

from dataclasses import field

import pytest

from workq.core.fact import fact, record


@fact
class Moved:
    """Somebody went somewhere."""

    who: str
    where: str = "home"


@fact
class Stayed:
    who: str
    where: str = "home"


def test_fields_are_given_in_order_or_by_name_or_not_at_all() -> None:
    assert Moved("a", "b") == Moved(who="a", where="b") == Moved("a", where="b")
    assert Moved("a") == Moved("a", "home")


def test_facts_are_equal_only_if_their_classes_are() -> None:
    assert Moved("a") != Stayed("a")
    assert Moved("a") != Moved("b")
    assert len({Moved("a"), Moved("a"), Stayed("a")}) == 2


def test_a_fact_does_not_change() -> None:
    moved = Moved("a")
    with pytest.raises(AttributeError, match="does not change: who"):
        moved.who = "b"  # type: ignore[misc]
    with pytest.raises(AttributeError, match="does not change: who"):
        del moved.who
    assert not hasattr(moved, "__dict__")


@pytest.mark.parametrize(
    ("values", "named"), [((), {}), (("a", "b", "c"), {}), (("a",), {"who": "b"}), (("a",), {"why": "b"}), ((), {"where": "b"})]
)
def test_wrong_fields_are_refused_by_name(values: tuple[str, ...], named: dict[str, str]) -> None:
    with pytest.raises(TypeError, match="Moved takes who, where"):
        Moved(*values, **named)


def test_a_fact_can_be_matched_and_read() -> None:
    match Moved("a", "b"):
        case Moved(who, where):
            assert (who, where) == ("a", "b")
    assert repr(Moved("a")) == "Moved(who='a', where='home')"


@record
class Visit:
    """Somebody who may go on."""

    who: str
    where: str = "home"
    rooms: list[str] = field(default_factory=list)


def test_a_record_changes_and_has_defaults_of_its_own() -> None:
    one, other = Visit("a"), Visit("a", where="inn")
    one.rooms.append("hall")
    one.where = "inn"
    assert (one.rooms, one.where, other.rooms) == (["hall"], "inn", [])
    assert repr(one) == "Visit(who='a', where='inn', rooms=['hall'])"
    assert not hasattr(one, "__dict__")


def test_a_record_is_equal_to_itself_alone() -> None:
    one, other = Visit("a"), Visit("a")
    assert one != other
    assert len({one, other, one}) == 2


def test_a_record_refuses_wrong_fields_by_name() -> None:
    with pytest.raises(TypeError, match="Visit takes who, where, rooms"):
        Visit("a", "b", [], "d")  # type: ignore[call-arg]
