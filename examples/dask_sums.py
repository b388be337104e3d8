"""dask on workq: its graphs run in workers that crash alone: ``python examples/dask_sums.py``.

Needs dask. ``scheduler=workq.Executor()`` for one computation, or ``dask.config.set`` for all.
"""

from __future__ import annotations

import dask
import dask.bag

import workq


@dask.delayed
def square(number: int) -> int:
    """Return the square."""
    return number * number


def main() -> None:
    """Compute a graph of delayed calls, and a bag."""
    with workq.Executor(2) as executor:
        total = dask.delayed(sum)([square(number) for number in range(10)])
        print(total.compute(scheduler=executor))
        with dask.config.set(scheduler=executor):
            words = dask.bag.from_sequence(["ant", "bee", "ape", "bat", "cow"], npartitions=3)
            print(dict(words.map(lambda word: word[0]).frequencies().compute()))


if __name__ == "__main__":
    main()
