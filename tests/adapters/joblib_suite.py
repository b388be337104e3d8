"""A pytest plugin for joblib's own tests: what they ask of "loky", its process backend and default, is asked of workq."""

from __future__ import annotations

import joblib.parallel
import pytest

from workq.adapters.joblib import WorkqBackend

joblib.parallel.BACKENDS["loky"] = WorkqBackend

# What does not apply, and why.
NOT_OURS = {
    "test_nested_parallel_warnings[loky-multiprocessing-True]": "a pool of multiprocessing works in a unit, so nothing is warned of",
    "test_nested_parallel_warnings[multiprocessing-loky-True]": "workq works in a child of multiprocessing",
    "test_nested_parallel_warnings[threading-loky-True]": "workq works in any thread",
    "test_multiple_generator_call_separated_gc[generator-generator-loky-True]": "each call has a queue of its own, so none hurts another",
    "test_multiple_generator_call_separated_gc[generator-generator_unordered-loky-True]": "the same",
    "test_multiple_generator_call_separated_gc[generator_unordered-generator-loky-True]": "the same",
    "test_multiple_generator_call_separated_gc[generator_unordered-generator_unordered-loky-True]": "the same",
    "test_backend_context_manager[parallel_backend-loky]": "asks for the class LokyBackend",
    "test_backend_context_manager[parallel_config-loky]": "the same",
    "test_backend_hinting_and_constraints[parallel_backend]": "the same",
    "test_backend_hinting_and_constraints[parallel_config]": "the same",
    "test_nested_parallelism_limit[parallel_backend-loky]": "asks for the name LokyBackend",
    "test_nested_parallelism_limit[parallel_config-loky]": "the same",
}


def pytest_configure(config: pytest.Config) -> None:
    """Know the marks that joblib's own configuration declares."""
    for mark in ("thread_unsafe", "no_cover", "parallel_threads"):
        config.addinivalue_line("markers", f"{mark}: joblib's")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what does not apply."""
    for item in items:
        if item.name in NOT_OURS:
            item.add_marker(pytest.mark.skip(reason=NOT_OURS[item.name]))
