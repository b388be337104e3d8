"""Whole lives of the scheduler in a world in memory, made from a seed: everything that may happen, in any order, with faults.

One schedule takes a few milliseconds and is repeated exactly by its seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from workq.config import Settings
from workq.core.events import Limits, StopReason
from workq.core.scheduler import Scheduler
from workq.core.states import UnitState
from workq.testing.clock import ManualClock
from workq.testing.memory import MemoryEngine
from workq.testing.records import MemoryQueue, Script

SETTINGS = Settings(idle_timeout_s=0.5, linger_s=0.02, start_timeout_s=0.2, close_timeout_s=0.1, quantum_units=2, start_backoff_s=0.01)
MAX_TURNS = 20_000  # of one schedule; the longest take some hundreds


class SimulationError(AssertionError):
    """A schedule broke a promise. The message says which, and the seed that repeats it."""

    def __init__(self, seed: int, turn: int, why: object) -> None:
        super().__init__(f"seed {seed}, turn {turn}: {why!r}")
        self.seed = seed


@dataclass(frozen=True, slots=True)
class Faults:
    """How often things go wrong, each a share between 0 and 1; a schedule draws the first from what is listed."""

    start_fails: tuple[float, ...] = (0.0, 0.1, 0.7)
    start_hangs: float = 0.03
    set_up_fails: tuple[float, ...] = (0.0, 0.1, 1.0)
    news_is_late: float = 0.25


class Simulation:
    """One schedule.

    Example:
        >>> Simulation(seed=7).run().statistics()["open"]
        0
    """

    def __init__(self, seed: int, faults: Faults = Faults(), scheduler: Scheduler | None = None) -> None:
        self.seed = seed
        self.faults = faults
        self.random = Random(seed)
        self.start_fails = self.random.choice(faults.start_fails)
        self.clock = ManualClock()
        quota = self.random.choice([None, None, 1, 3])
        self.world = MemoryEngine(
            self.clock,
            scheduler or Scheduler(SETTINGS),
            self._start_fate,
            quota_fate=lambda: quota,
            tear_down_s=lambda: self.random.choice([0.001, 0.01, 0.01, 1000.0]),
        )
        self.set_ups_fail = self.random.choice(faults.set_up_fails)
        self.turns = 0
        self.total: int | None = None
        self.calm = False  # no more faults: all has to end now

    def run(self) -> Simulation:
        """Run the schedule to its end; SimulationError if a promise was broken."""
        try:
            self._plan()
            self._live()
            self._calm_down()
            self._live()
            self._assert_all_ended()
            self._wind_up()
        except (AssertionError, LookupError, ValueError) as error:
            raise SimulationError(self.seed, self.turns, error) from error
        return self

    def statistics(self) -> dict[str, int]:
        """Return how many units came to which end, and how much happened."""
        ends = {state.value: sum(unit.state is state for unit in self.world.units) for state in UnitState}
        still_open = sum(not unit.ended for unit in self.world.units)
        return {**ends, "open": still_open, **self._happened()}

    def _happened(self) -> dict[str, int]:
        world = self.world
        failures = {"failures": world.failed_categories, "failed queues": world.failed_queues}
        return {"turns": self.turns, "orders": world.orders, "recycled": world.recycled, **failures}

    # -- the plan

    def _plan(self) -> None:
        pick = self.random
        self.total = pick.choice([None, None, 12, 1, 2])
        limits = Limits(pick.randint(1, 3), self.total, pick.random() < 0.3)
        self.world.add_category("a", limits)
        queues = [self._open_queue() for _ in range(pick.randint(1, 4))]
        for _ in range(pick.randint(3, 14)):
            self._at_some_time(lambda: self._submit(pick.choice(queues)))
        for _ in range(pick.randint(0, 5)):
            faults = [self._stop_some_unit, self._kill_some_worker, self._pause, self._close, self._resize, self._change_limits, self._wear]
            self._at_some_time(pick.choice(faults))

    def _open_queue(self) -> MemoryQueue:
        """Open a queue of one kind or another."""
        pick = self.random
        kind = pick.choice(["plain", "plain", "set up", "tears down", "both", "session"])
        fate = self._set_up_fate if kind in ("set up", "both") else None
        session = kind == "session" and (self.total is None or self.total > 2)  # it keeps its worker till it is closed
        return self.world.open_queue(
            "a", 1 if session else pick.randint(1, 4), set_up_fate=fate, tears_down=kind in ("tears down", "both"), session=session
        )

    def _set_up_fate(self) -> bool:
        return self.random.random() >= self.set_ups_fail

    def _wear(self) -> None:
        if self.world.workers:
            self.world.wear(self.random.choice(list(self.world.workers.values())))

    def _at_some_time(self, what: Callable[[], None]) -> None:
        self.clock.call_at(self.random.choice([0.0, 0.1 * self.random.random(), self.random.random()]), what)

    def _start_fate(self) -> float | None:
        fate = 1.0 if self.calm else self.random.random()
        if fate < self.start_fails:
            return None
        if fate < self.start_fails + self.faults.start_hangs:
            return 1000.0
        return 0.001 + 0.02 * self.random.random()

    def _submit(self, queue: MemoryQueue) -> None:
        nest = Script.NEST if self.total is None or self.total > 2 else Script.TREE  # who waits for units of others needs others
        script = self.random.choice([Script.WORK] * 8 + [Script.WAIT, nest, Script.TREE, Script.DEAF, Script.CRASH])
        self.world.submit(queue, script, self.random.choice([0.0, 0.001, 0.01, 0.2]))

    def _open_queues(self) -> list[MemoryQueue]:
        return [queue for queue in self.world.queues.values() if not queue.closed]

    def _stop_some_unit(self) -> None:
        units = [unit for unit in self.world.units if not unit.ended]
        if units:
            self.world.stop(self.random.choice(units), self.random.choice(list(StopReason)))

    def _kill_some_worker(self) -> None:
        if self.world.workers:
            self.world.exit(self.random.choice(list(self.world.workers.values())))

    def _pause(self) -> None:
        if queues := self._open_queues():
            queue = self.random.choice(queues)
            self.world.pause(queue)
            self._after(0.1, lambda: self.world.pause(queue, False))

    def _after(self, seconds: float, what: Callable[[], None]) -> None:
        self.clock.call_after(seconds * self.random.random(), what)

    def _close(self) -> None:
        if queues := self._open_queues():
            self.world.close(self.random.choice(queues))

    def _resize(self) -> None:
        if queues := self._open_queues():
            self.world.resize(self.random.choice(queues), self.random.randint(1, 4))

    def _change_limits(self) -> None:
        self.world.add_category("a", Limits(self.random.randint(1, 3), self.total))

    # -- life

    def _live(self) -> None:
        """Go on until nothing is left that could happen."""
        while self._step():
            self.turns += 1
            assert self.turns < MAX_TURNS, "it does not end"
            self.world.check()

    def _step(self) -> bool:
        """Tell one fact, or let time pass until the next thing happens; news is sometimes overtaken by what happens next."""
        alarm = self.clock.next_alarm()
        if self.world.inbox and (alarm is None or alarm > self.clock.now + 0.05 or self.random.random() > self.faults.news_is_late):
            self.world.turn()
            return True
        deadline = self.world.scheduler.next_deadline()
        if alarm is not None and (deadline is None or alarm <= deadline):
            self.clock.ring()
            return True
        if deadline is None:
            return bool(self.world.inbox)
        self.clock.move_to(deadline)
        self.world.turn()
        return True

    def _calm_down(self) -> None:
        self.calm = True
        for queue in self._open_queues():
            if queue.paused:
                self.world.pause(queue, False)

    def _assert_all_ended(self) -> None:
        for unit in self.world.units:
            assert unit.ended, f"unit {unit.id} is {unit.state.value} for ever"
            assert unit.starts <= 1, f"unit {unit.id} was begun {unit.starts} times"
        idle = [worker for worker in self.world.workers.values() if worker.queue is None or not worker.queue.session]
        assert not idle, "unused workers end, those of open sessions excepted"

    def _wind_up(self) -> None:
        for queue in self._open_queues():
            self.world.close(queue)
        self.world.remove_category("a")
        self._live()
        scheduler = self.world.scheduler
        left = (scheduler.categories, scheduler.queues, scheduler.workers, scheduler.stops, scheduler.next_deadline())
        assert left == ({}, {}, {}, {}, None), left


def simulate(schedules: int, seed: int = 0, faults: Faults = Faults()) -> dict[str, int]:
    """Run so many schedules, from `seed` upwards, and return the sums of their statistics."""
    total: dict[str, int] = {}
    for number in range(seed, seed + schedules):
        for key, value in Simulation(number, faults).run().statistics().items():
            total[key] = total.get(key, 0) + value
    return total
