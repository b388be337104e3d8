"""joblib on workq: ``register()``, then ``joblib.parallel_config(backend="workq")``.

joblib cuts its calls into batches and keeps the order of their results; a batch is one unit here. What its users expect of a process
backend is kept: large arrays reach the workers as memory maps (by joblib's own reducers, in its own temporary folder), BLAS threads are
limited per worker, and an error aborts what still runs. A worker that dies fails its own batch with ``WorkerHalted``, which is a
``BrokenProcessPool``, as from joblib's own backends; the workers stay warm between calls.

joblib has no public names for memory maps and automatic batches, so its private modules are used, by this file alone.
"""

from __future__ import annotations

import copyreg
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from joblib._memmapping_reducer import TemporaryResourcesManager, get_memmapping_reducers, reduce_array_memmap_backward
from joblib._parallel_backends import AutoBatchingMixin, FallbackToBackend, ParallelBackendBase, SequentialBackend
from joblib.externals.loky import cpu_count
from joblib.externals.loky.backend.resource_tracker import _resource_tracker
from joblib.parallel import register_parallel_backend

from workq.category import Category
from workq.context import blocking, is_worker_job
from workq.controller import Controller
from workq.errors import PicklingError, QueueClosed, UnitCancelled
from workq.manager import WorkMgr
from workq.transport.codec import PROTOCOL, load, reason, value_pickler

if TYPE_CHECKING:
    from workq.unit import Unit

ABORT_S = 0.1  # between interrupt and kill of batches that nobody wants any more, as another one has failed
MOST_WORKERS = 4096  # joblib's users say how many they want; nothing is clamped


def register(*, make_default: bool = False) -> None:
    """Make the backend ``"workq"`` known to joblib.

    Args:
        make_default: Use it wherever no backend is named. Default: only where it is.

    >>> import joblib
    >>> from workq.adapters.joblib import register
    >>> register()
    >>> with joblib.parallel_config(backend="workq", n_jobs=2):
    ...     joblib.Parallel()(joblib.delayed(pow)(n, 2) for n in range(4))
    [0, 1, 4, 9]
    """
    register_parallel_backend("workq", WorkqBackend, make_default=make_default)


class WorkqBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """What joblib asks of a backend. Owned by one ``joblib.Parallel`` at a time; its methods may be called from any thread.

    Beyond joblib's own settings it takes ``initializer`` and ``initargs``, run in each worker before its first batch.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    _workers: WorkMgr | None = None
    _files: TemporaryResourcesManager | None = None
    _reducers: dict[type, Callable[[Any], Any]]

    # ------------------------------------------------------------ beginning and end of a call

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many workers are meant: -1 are all usable CPUs, -2 all but one.

        Raises:
            ValueError: It is 0.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        return max(cpu_count() + 1 + n_jobs, 1) if n_jobs < 0 else n_jobs

    def configure(self, n_jobs: int = 1, parallel: Any = None, prefer: object = None, require: object = None, **settings: Any) -> int:
        """Make a queue for the calls that follow, and return how many workers it may have.

        Raises:
            FallbackToBackend: One worker is no gain; joblib then calls in its own process.
        """
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        settings = {**self.backend_kwargs, **settings}
        category = self._category(n_jobs, settings.pop("initializer", None), tuple(settings.pop("initargs", ())))
        self.parallel = parallel
        self._files = TemporaryResourcesManager(settings.pop("temp_folder", None))
        self._reducers, _ = get_memmapping_reducers(
            temp_folder_resolver=self._files.resolve_temp_folder_name, unlink_on_gc_collect=True, **settings
        )
        self._workers = WorkMgr(n_jobs, category=category, name="joblib", delete_timeout=ABORT_S)
        return n_jobs

    def _category(self, n_jobs: int, initializer: Callable[..., object] | None, initargs: tuple[object, ...]) -> str | None:
        """Return the name of the pool whose workers have the right surroundings; made where there is none.

        None in a unit: its calls go to workers of its own pool.
        """
        if is_worker_job():
            return None
        surroundings = self._prepare_worker_env(n_jobs=n_jobs)
        name = f"joblib-{abs(hash((tuple(surroundings.items()), initializer, initargs))):x}"
        controller = Controller.default()
        if name not in controller.categories:
            controller.add_category(
                Category(
                    name,
                    max_workers=MOST_WORKERS,
                    max_active_workers=MOST_WORKERS,
                    env=surroundings,
                    initializer=initializer,
                    initializer_args=initargs,
                )
            )
        return name

    def terminate(self) -> None:
        """End the queue and remove the memory maps. The workers stay for the next call."""
        queue, self._workers = self._workers, None
        files, self._files = self._files, None
        if queue is not None:
            queue.close()
        if files is not None:
            files._clean_temporary_resources(force=True)
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """A batch has failed: stop the others."""
        self.terminate()
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel, **self.parallel._backend_kwargs)

    # ------------------------------------------------------------ one batch

    def submit(self, func: Callable[[], Any], callback: Callable[[Unit[Any]], object] | None = None) -> Unit[Any]:
        """Queue one batch."""
        queue = self._workers
        if queue is None:
            raise QueueClosed(GENERATOR_IS_GONE)
        unit = queue.queue(run_batch, self._pickle(func), _tracker())
        if callback is not None:
            unit.add_done_callback(callback)
        return unit

    def retrieve_result_callback(self, out: Unit[Any]) -> Any:
        """Return the results of a batch that has ended, or raise its error."""
        try:
            results = out.result()
        except UnitCancelled:
            raise RuntimeError(GENERATOR_IS_GONE)
        if isinstance(results, str):
            raise KeyboardInterrupt(results)
        return results

    @contextmanager
    def retrieval_context(self) -> Iterator[None]:
        """Around a wait, which is done by looking again and again: where a unit does it, its worker counts as blocked meanwhile."""
        if not is_worker_job():
            yield
            return
        with blocking():
            yield

    def _pickle(self, func: Callable[[], Any]) -> bytes:
        file = io.BytesIO()
        try:
            batch_pickler(file, self._reducers).dump(func)
        except Exception as error:
            raise PicklingError(f"the task to send cannot be pickled: {reason(error)}") from error
        return file.getvalue()


GENERATOR_IS_GONE = (
    "the call that this batch belongs to was ended before the batch was; with return_as='generator' keep the generator, and exhaust or"
    " close it before the next call of the same Parallel"
)


def batch_pickler(file: io.BytesIO, reducers: dict[type, Callable[[Any], Any]]) -> Any:
    """Return a pickler that takes functions by value where it must, and arrays by joblib's reducers."""
    by_value = value_pickler()

    class BatchPickler(by_value):  # type: ignore[misc, valid-type]  # a class that is made on demand
        def reducer_override(self, thing: Any) -> Any:
            reduce = reducers.get(type(thing))
            return super().reducer_override(thing) if reduce is None else reduce(thing)

    return BatchPickler(file, protocol=PROTOCOL)


# ---------------------------------------------------------------- in the worker


def _tracker() -> tuple[int, int, int]:
    """Return where joblib's resource tracker can be reached: our pid, the descriptor of its pipe, its pid."""
    _resource_tracker.ensure_running()
    return os.getpid(), _resource_tracker._fd, _resource_tracker._pid


def run_batch(pickled: bytes, tracker: tuple[int, int, int]) -> Any:
    """Run one batch of calls in a worker, and return the list of their results; a str where a KeyboardInterrupt ended it."""
    join_tracker(*tracker)
    batch = load(pickled)
    try:
        results = batch()
    except KeyboardInterrupt as error:  # joblib hands it on to its caller
        return str(error)
    numpy = sys.modules.get("numpy")
    if numpy is not None:  # a map of a temporary file goes back as a plain array
        copyreg.pickle(numpy.memmap, reduce_array_memmap_backward)
    return results


def join_tracker(application: int, descriptor: int, tracker: int) -> None:
    """Report to the application's resource tracker which maps are gone, and not to one of our own.

    It unlinks a temporary file when the last process has given up its map of it.
    """
    if _resource_tracker._pid != tracker:
        _resource_tracker._fd = os.open(f"/proc/{application}/fd/{descriptor}", os.O_WRONLY | os.O_CLOEXEC)
        _resource_tracker._pid = tracker
