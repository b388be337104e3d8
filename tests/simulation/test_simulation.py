"""Ten thousand lives of the scheduler, with faults; each is repeated by its seed."""

from __future__ import annotations

import pytest

from workq.core.actions import Action
from workq.core.events import Event, Limits, WorkWaits
from workq.core.scheduler import Scheduler
from workq.testing import Faults, ManualClock, MemoryEngine, Script, Simulation, SimulationError, simulate

PARTS = 20  # so that a time-out of one test leaves room on a busy machine


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_every_unit_of_every_schedule_ends_exactly_once_and_nothing_is_left(request: pytest.FixtureRequest, part: int) -> None:
    seed = request.config.getoption("--seed", default=None)
    schedules = max(1, request.config.getoption("--schedules", default=10_000) // PARTS)
    if seed is not None:
        total = simulate(1, seed)
    else:
        total = simulate(schedules, part * schedules)
    assert total["open"] == 0
    if schedules >= 100 and seed is None:
        for what in ("done", "failed", "cancelled", "timed out", "lost", "failures"):
            assert total[what], f"no schedule had one that was {what}: the simulation does not reach it"


def test_a_seed_repeats_its_schedule() -> None:
    assert Simulation(3).run().statistics() == Simulation(3).run().statistics()


def test_without_faults_no_category_fails() -> None:
    total = simulate(30, faults=Faults(start_fails=(0.0,), start_hangs=0.0, news_is_late=0.0))
    assert total["failures"] == 0
    assert total["done"]


def test_a_broken_promise_names_the_seed() -> None:
    with pytest.raises(SimulationError, match=r"^seed 5, turn \d+: AssertionError") as caught:
        Simulation(5, scheduler=Forgetful()).run()
    assert caught.value.seed == 5


class Forgetful(Scheduler):
    """A scheduler that does not listen when units wait."""

    def handle(self, event: Event, now: float) -> list[Action]:
        return [] if isinstance(event, WorkWaits) else super().handle(event, now)


def test_six_levels_of_nested_units_end_with_one_worker_active_at_a_time() -> None:
    clock = ManualClock()
    world = MemoryEngine(clock)
    world.add_category("a", Limits(1, always_queue=True))
    queue = world.open_queue("a", 1)
    units = [world.submit(queue, Script.NEST, 0.01) for _ in range(6)]
    for _ in range(2000):
        if world.inbox:
            world.turn()
            world.scheduler.check()
        elif clock.next_alarm() is not None:
            clock.ring()
    assert all(unit.ended for unit in world.units)
    assert len(world.units) == 3 * len(units)
