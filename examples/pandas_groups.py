"""pandas on workq: a calculation for each group of a table, on all CPUs: ``python examples/pandas_groups.py``.

Needs pandas. The table is cut into its groups; each is one unit, and its columns travel as they lie in memory. Groups that fail, or take
too long, are told by name, and cost nobody else.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

import workq


def measurements(sensors: int = 40, rows: int = 500) -> pd.DataFrame:
    """Return a table of what sensors have measured: columns sensor, hour, value."""
    chance = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "sensor": np.repeat(np.arange(sensors), rows),
            "hour": np.tile(np.arange(rows), sensors),
            "value": chance.normal(size=sensors * rows).cumsum(),
        }
    )


def trend(group: pd.DataFrame) -> pd.Series:
    """Return what is wanted to know of one sensor."""
    if (group["sensor"] == 13).all():
        raise ValueError("this one is broken")
    slope, start = np.polyfit(group["hour"], group["value"], 1)
    return pd.Series({"slope": slope, "start": start, "spread": group["value"].std()}, name=group["sensor"].iloc[0])


def trends(table: pd.DataFrame, workers: int | None = None) -> tuple[pd.DataFrame, dict[int, Exception]]:
    """Return a table with a row for each sensor that could be computed, and the errors of the others."""
    with workq.WorkMgr(workers) as wq:
        limited = wq.options(timeout=30)
        units = {sensor: limited.queue(trend, group) for sensor, group in table.groupby("sensor")}
        errors = {sensor: error for sensor, unit in units.items() if (error := unit.exception()) is not None}
        return pd.DataFrame([unit.result() for sensor, unit in units.items() if sensor not in errors]), errors


def main() -> None:
    """Compute, and show the steepest ones."""
    found, errors = trends(measurements())
    print(found.sort_values("slope").tail(3).round(3).to_string())
    for sensor, error in errors.items():
        print(f"sensor {sensor}: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
