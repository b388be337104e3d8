"""`fact` and `record`: ``@dataclass(frozen=True, slots=True)`` and ``@dataclass(slots=True, eq=False)`` at a thirtieth of their price.

There are some fifty of them. A dataclass generates and compiles up to six methods for each, 0.3 ms together,
and all of that would be paid between an application's first unit and its result. Here the methods are shared.
"""

from __future__ import annotations

from dataclasses import Field, field
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(eq_default=True, frozen_default=True)
def fact(cls: type[T]) -> type[T]:
    """Make an immutable value of a class: its annotated names are its fields. Values are equal if their classes and their fields are.

    >>> @fact
    ... class Moved:
    ...     who: str
    ...     by: int = 1
    >>> Moved("a") == Moved(who="a", by=1), Moved("a") == Moved("b")
    (True, False)
    >>> Moved("a")
    Moved(who='a', by=1)
    """
    return _made(cls, _FACT)


@dataclass_transform(eq_default=False, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """Make a record of a class: its annotated names are its fields, and may be changed. Each is equal to itself alone.

    >>> @record
    ... class Visit:
    ...     who: str
    ...     rooms: list[str] = field(default_factory=list)
    >>> visit = Visit("a")
    >>> visit.rooms.append("hall")
    >>> visit
    Visit(who='a', rooms=['hall'])
    """
    return _made(cls, _RECORD)


def _made(cls: type[T], methods: dict[str, Any]) -> type[T]:
    """Return the class with slots for its fields, and with these methods."""
    fields = tuple(cls.__annotations__)
    body = {name: value for name, value in cls.__dict__.items() if name not in ("__dict__", "__weakref__", *fields)}
    defaults = {name: getattr(cls, name) for name in fields if hasattr(cls, name)}
    body.update(__slots__=fields, __match_args__=fields, _defaults=defaults, **methods)
    made: type[T] = type(cls.__name__, cls.__bases__, body)
    return made


def _init(self: Any, *values: Any, **named: Any) -> None:
    fields = self.__slots__
    if named or len(values) != len(fields):
        values = _completed(self, values, named)
    for name, value in zip(fields, values, strict=True):
        object.__setattr__(self, name, value)


def _init_record(self: Any, *values: Any, **named: Any) -> None:
    fields = self.__slots__
    if named or len(values) != len(fields):
        values = _completed(self, values, named)
    for name, value in zip(fields, values, strict=True):
        setattr(self, name, value.default_factory() if type(value) is Field else value)  # type: ignore[operator]


def _completed(self: Any, values: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
    """Return the values of all fields, where some were given by name or not at all."""
    fields = self.__slots__
    given = self._defaults | dict(zip(fields, values, strict=False)) | named
    if len(values) > len(fields) or given.keys() != set(fields) or named.keys() & set(fields[: len(values)]):
        raise TypeError(f"{type(self).__name__} takes {', '.join(fields)}; it was given {values} and {named}")
    return tuple(given[name] for name in fields)


def _values(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, name) for name in self.__slots__)


def _eq(self: Any, other: object) -> bool:
    return _values(self) == _values(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash((type(self), _values(self)))


def _repr(self: Any) -> str:
    return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"


def _set(self: Any, name: str, value: object = None) -> None:
    raise AttributeError(f"a {type(self).__name__} is a fact, and does not change: {name}")


_FACT = {"__init__": _init, "__eq__": _eq, "__hash__": _hash, "__repr__": _repr, "__setattr__": _set, "__delattr__": _set}
_RECORD = {"__init__": _init_record, "__repr__": _repr}
