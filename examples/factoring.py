"""Work for the examples of web applications: quick for small numbers, endless for large ones."""

from __future__ import annotations


def factors(number: int) -> list[int]:
    """Return the prime factors of a number, the smallest first."""
    found, candidate = [], 2
    while candidate * candidate <= number:
        while number % candidate == 0:
            found.append(candidate)
            number //= candidate
        candidate += 1
    return [*found, number] if number > 1 else found
