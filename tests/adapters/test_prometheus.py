"""workq's metrics in Prometheus' own words, as a scrape over HTTP reads them."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

import workq
from tests.support import DEADLINE_S
from workq.adapters import prometheus

pytestmark = pytest.mark.slow

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def raises() -> None:
    raise ValueError("on purpose")


@pytest.fixture
def controller() -> Iterator[workq.Controller]:
    with workq.Controller() as made:
        yield made


def samples(text: str) -> Samples:
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found


def of(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


def test_a_scrape_reads_what_the_metrics_say(controller: workq.Controller) -> None:
    registry = CollectorRegistry()
    prometheus.register(registry, controller)
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        with workq.WorkMgr(1, controller=controller) as wq:
            wq.queue(abs, -1).result(DEADLINE_S)
            wq.queue(raises).exception(DEADLINE_S)
            wq.queue(os._exit, 3).exception(DEADLINE_S)
            wq.queue(bytes, 1000).result(DEADLINE_S)
            with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=DEADLINE_S) as answer:
                text = answer.read().decode()
            expected = controller.metrics().categories["Default"]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(DEADLINE_S)
    found = samples(text)
    assert of(found, "workq_units_finished_total", category="Default", outcome="done") == 2
    assert of(found, "workq_units_finished_total", category="Default", outcome="failed") == 1
    assert of(found, "workq_units_finished_total", category="Default", outcome="lost") == 1
    assert of(found, "workq_units_finished_total", category="SQL", outcome="done") == 0
    assert of(found, "workq_worker_halts_total", category="Default", reason="exit code 3") == 1
    assert of(found, "workq_workers_started_total", category="Default") == 2
    assert of(found, "workq_workers", category="Default", state="waiting") == 1
    assert of(found, "workq_workers", category="Default", state="active") == 0
    assert of(found, "workq_unit_run_seconds_count", category="Default") == 4
    assert of(found, "workq_unit_run_seconds_bucket", category="Default", le="+Inf") == 4
    assert of(found, "workq_unit_run_seconds_sum", category="Default") == pytest.approx(expected.run_time.total_s)
    assert (of(found, "workq_bytes_total", category="Default", direction="from_workers") or 0) > 1000
    assert (of(found, "workq_collect_seconds") or 0) > 0


def test_names_keep_to_prometheus_conventions(controller: workq.Controller) -> None:
    families = list(prometheus.Collector(controller).collect())
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    for family in families:
        assert family.name.startswith("workq_")
        assert family.documentation
        assert not family.name.endswith(("_ms", "_s", "_time"))


def test_buckets_never_fall_from_one_to_the_next(controller: workq.Controller) -> None:
    with workq.WorkMgr(1, controller=controller) as wq:
        for number in range(300):
            wq.queue(abs, number)
        wq.sync(DEADLINE_S)
    (family,) = [family for family in prometheus.Collector(controller).collect() if family.name == "workq_unit_run_seconds"]
    buckets = [sample.value for sample in family.samples if sample.name.endswith("_bucket") and sample.labels["category"] == "Default"]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 300


def test_the_default_controller_and_its_successor_are_followed() -> None:
    registry = CollectorRegistry()
    collector = prometheus.register(registry)
    with workq.WorkMgr(0) as wq:
        wq.queue(abs, 1).result(DEADLINE_S)
        assert (registry.get_sample_value("workq_units_finished_total", {"category": "Default", "outcome": "done"}) or 0) >= 1
    workq.Controller.default().close()
    assert registry.get_sample_value("workq_units_finished_total", {"category": "Default", "outcome": "done"}) == 0
    registry.unregister(collector)


def test_what_is_no_controller_is_refused_at_the_call() -> None:
    with pytest.raises(workq.ArgumentError, match="controller"):
        prometheus.register(CollectorRegistry(), controller="Default")  # type: ignore[arg-type]


@pytest.mark.parametrize("registry", [3, "default", 0])
def test_what_is_no_registry_is_refused_at_the_call(registry: object) -> None:
    with pytest.raises(workq.ArgumentError, match="registry must be"):
        prometheus.register(registry)


def test_registering_twice_does_not_double_the_series(controller: workq.Controller) -> None:
    registry = CollectorRegistry()
    collector = prometheus.register(registry, controller)
    assert prometheus.register(registry, controller) is collector
    assert sum(family.name == "workq_workers" for family in registry.collect()) == 1
    with pytest.raises(workq.ArgumentError, match="another controller"):
        prometheus.register(registry)
    registry.unregister(collector)
    assert prometheus.register(registry).controller is None, "after the first is gone"


def test_a_scrape_may_ask_for_single_metrics(controller: workq.Controller) -> None:
    registry = CollectorRegistry()
    prometheus.register(registry, controller)
    families = list(registry.restricted_registry(["workq_collect_seconds"]).collect())  # type: ignore[no-untyped-call,unused-ignore]
    assert [family.name for family in families] == ["workq_collect_seconds"]
