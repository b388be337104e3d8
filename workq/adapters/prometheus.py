"""Metrics for Prometheus: a collector that reads a controller's counters each time it is asked, and costs nothing in between.

Needs the package prometheus-client (``pip install workq-manager[prometheus]``).
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from workq.controller.controller import Controller
from workq.errors import ArgumentError

if TYPE_CHECKING:
    from workq.seeing.statistics import Histogram, Metrics

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

    @property
    def controller(self) -> Controller | None:
        """Whose metrics; None: the default controller's."""
        return self._controller

    def describe(self) -> Iterator[Any]:
        """Yield the metrics without values: by their names a registry refuses a second collector of them."""
        return self._families([], 0.0, 0.0)

    def collect(self) -> Iterator[Any]:
        """Yield the metrics as they are now."""
        found = (self._controller or Controller.default()).metrics()
        return self._families(list(found.categories.items()), found.controller_s, found.collecting_s)

    def _families(self, categories: list[tuple[str, Metrics]], controller_s: float, collecting_s: float) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

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
        yield CounterMetricFamily("workq_controller_seconds", "How long the controller has worked", value=controller_s)
        yield GaugeMetricFamily("workq_collect_seconds", "How long it took to collect all this", value=collecting_s)


_collectors: weakref.WeakKeyDictionary[Any, Collector] = weakref.WeakKeyDictionary()  # of each registry, the one that `register` has made


def register(registry: Any = None, controller: Controller | None = None) -> Collector:
    """Have a registry collect workq's metrics. A second call for the same controller changes nothing.

    Args:
        registry: A ``prometheus_client.CollectorRegistry``; None: the one that prometheus-client uses by default.
        controller: Whose metrics; None: the default controller's.

    Returns:
        The collector; ``registry.unregister(collector)`` ends it.

    Raises:
        ArgumentError: It is no registry, or has the metrics of another controller already: their series would be the same.
        ImportError: prometheus-client is not installed.
    """
    from prometheus_client import REGISTRY

    registry = REGISTRY if registry is None else registry
    if not callable(getattr(registry, "register", None)):
        raise ArgumentError(f"registry must be a prometheus_client.CollectorRegistry or None, not {registry!r}")
    collector = Collector(controller)
    try:
        registry.register(collector)
    except ValueError as error:  # it has series of these names
        known = _collectors.get(registry)
        if known is None or known.controller is not controller:
            raise ArgumentError(
                "registry has workq's metrics of another controller, or of a Collector that was registered by hand; "
                f"unregister that one, or use a registry of its own for each controller ({error})"
            ) from error
        return known
    _collectors[registry] = collector
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
