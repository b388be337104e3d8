"""Metrics for Prometheus: a collector that reads a controller's counters each time it is asked, and costs nothing in between.

Needs the package prometheus-client (``pip install workq-manager[prometheus]``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from workq.controller.controller import Controller
from workq.errors import ArgumentError

if TYPE_CHECKING:
    from workq.statistics import Histogram, Metrics

STATES = ("active", "blocked", "retired", "starting", "stopping", "waiting")
OUTCOMES = ("done", "failed", "cancelled", "timed_out", "lost")

GAUGES = {  # of a category: the name, the field, what it is
    "workq_units_queued": ("units_queued", "Units that wait to be begun"),
    "workq_units_running": ("units_running", "Units that run"),
    "workq_queue_depth_peak": ("peak_depth", "The most units that ever waited in one queue"),
    "workq_active_workers_peak": ("peak_active_workers", "The most workers that were ever active at once"),
}
COUNTERS = {
    "workq_workers_started": ("workers_started", "Worker processes that were started"),
    "workq_workers_retired": ("workers_retired", "How often a worker was retired"),
    "workq_workers_interrupted": ("workers_interrupted", "How often a unit was interrupted"),
    "workq_workers_killed": ("workers_killed", "Workers that workq has killed"),
    "workq_workers_recycled": ("workers_recycled", "Workers that were replaced as planned"),
    "workq_busy_seconds": ("busy_s", "How long workers were in units that have ended"),
    "workq_worker_seconds": ("worker_s", "How long workers were there"),
}


class Collector:
    """What a registry of prometheus-client asks for metrics. Any thread may ask.

    Args:
        controller: Whose; None: the default one's, as it is when it is asked.
    """

    def __init__(self, controller: Controller | None = None) -> None:
        if controller is not None and not isinstance(controller, Controller):
            raise ArgumentError(f"controller must be a workq.Controller or None, not {controller!r}")
        self._controller = controller

    def describe(self) -> Iterable[Any]:
        """Name nothing beforehand: a registry need not collect when this is registered."""
        return ()

    def collect(self) -> Iterator[Any]:
        """Yield the metrics as they are now."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        found = (self._controller or Controller.default()).metrics()
        categories = list(found.categories.items())
        finished = CounterMetricFamily("workq_units_finished", "Units that have ended, by how", labels=("category", "outcome"))
        workers = GaugeMetricFamily("workq_workers", "Worker processes, by state", labels=("category", "state"))
        halts = CounterMetricFamily("workq_worker_halts", "Workers that ended by themselves, by reason", labels=("category", "reason"))
        moved = CounterMetricFamily("workq_bytes", "Bytes to and from workers", labels=("category", "direction"))
        for name, one in categories:
            for outcome in OUTCOMES:
                finished.add_metric((name, outcome), getattr(one, f"units_{outcome}"))
            for state in STATES:
                workers.add_metric((name, state), getattr(one, f"{state}_workers"))
            for reason, number in one.worker_halts.items():
                halts.add_metric((name, reason), number)
            moved.add_metric((name, "to_workers"), one.bytes_to_workers)
            moved.add_metric((name, "from_workers"), one.bytes_from_workers)
        yield from (finished, workers, halts, moved)
        for metric, (attribute, what) in GAUGES.items():
            yield _family(GaugeMetricFamily, metric, what, attribute, categories)
        for metric, (attribute, what) in COUNTERS.items():
            yield _family(CounterMetricFamily, metric, what, attribute, categories)
        yield _histogram("workq_unit_run_seconds", "How long units ran", [(name, one.run_time) for name, one in categories])
        yield _histogram("workq_unit_wait_seconds", "How long they had waited", [(name, one.wait_time) for name, one in categories])
        yield CounterMetricFamily("workq_controller_seconds", "How long the controller has worked", value=found.controller_s)
        yield GaugeMetricFamily("workq_collect_seconds", "How long it took to collect all this", value=found.collecting_s)


def register(registry: Any = None, controller: Controller | None = None) -> Collector:
    """Have a registry collect workq's metrics.

    Args:
        registry: A ``prometheus_client.CollectorRegistry``; None: the one that prometheus-client uses by default.
        controller: Whose metrics; None: the default controller's.

    Returns:
        The collector; ``registry.unregister(collector)`` ends it.

    Raises:
        ImportError: prometheus-client is not installed.
    """
    from prometheus_client import REGISTRY

    collector = Collector(controller)
    (registry or REGISTRY).register(collector)
    return collector


def _family(kind: Any, metric: str, what: str, attribute: str, categories: list[tuple[str, Metrics]]) -> Any:
    family = kind(metric, what, labels=("category",))
    for name, one in categories:
        family.add_metric((name,), getattr(one, attribute))
    return family


def _histogram(metric: str, what: str, times: list[tuple[str, Histogram]]) -> Any:
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(metric, what, labels=("category",))
    for name, histogram in times:
        buckets = [(f"{upper_s:.9g}", float(number)) for upper_s, number in histogram.buckets()]
        family.add_metric((name,), [*buckets, ("+Inf", float(histogram.count))], sum_value=histogram.total_s)
    return family


__all__ = ["Collector", "register"]
