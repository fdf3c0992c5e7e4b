"""The same call for many arguments, on the processes of this machine or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any, Literal, TypeVar, get_args

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.remedies import NO_SCHEDULER

Engine = Literal["loky", "dask", "ray"]
_INSTALL = {"dask": "distributed==2026.8.0", "ray": "ray==2.60.0"}
AHEAD, LEAST_AHEAD = 4, 64  # calls that a Dask cluster is given ahead, for each thread and at least: it does not hold all of thousands
_Result = TypeVar("_Result")


def outcomes(
    call: Callable[..., _Result], arguments: Sequence[tuple], *, engine: Engine = "loky", workers: int = 1, scheduler: str | None = None
) -> Iterator[_Result]:
    """What `call` answers to each of these arguments, as they end, in any order.

    Parameters
    ----------
    call : a function of a module, and arguments that can be pickled.
    engine : `loky`, processes of this machine; `dask`, the workers of a scheduler, or of one made here; `ray`.
    workers : how many at once, at least 1; on a cluster that is there, as many as its workers have processes.
    scheduler : the address of a Dask or Ray cluster; None makes one on this machine.

    Raises
    ------
    InputError
        The engine is not installed, or not known; there is less than one worker; no scheduler answers.
    """
    if engine not in get_args(Engine):
        raise InputError(f"No engine is called {engine!r}; the engines are {', '.join(get_args(Engine))}.")
    if workers < 1:
        raise InputError(f"There are 1 or more workers, not {workers}.")
    return _outcomes(call, arguments, engine, workers, scheduler)


def _outcomes(call: Callable[..., Any], arguments: Sequence[tuple], engine: Engine, workers: int, scheduler: str | None) -> Iterator[Any]:
    with ExitStack() as stack:
        if engine == "dask":
            # Not by joblib, whose Dask backend hands nothing to a cluster of one thread, and computes here instead.
            yield from _by_dask(call, arguments, stack.enter_context(_dask(workers, scheduler)))
            return
        from joblib import Parallel, delayed, parallel_config

        as_they_end = {"return_as": "generator_unordered"}
        if engine == "ray":
            _start_ray(workers, scheduler)
            as_they_end = {}
        stack.enter_context(parallel_config(engine, n_jobs=workers))
        yield from Parallel(**as_they_end)(delayed(call)(*each) for each in arguments)


def _by_dask(call: Callable[..., Any], arguments: Sequence[tuple], client: Any) -> Iterator[Any]:
    from distributed import as_completed

    left, under_way, waiting = iter(arguments), as_completed(), 0

    def fill() -> int:
        ahead = max(LEAST_AHEAD, AHEAD * sum(client.nthreads().values())) - waiting  # workers may join later
        some = [client.submit(call, *each, pure=False) for each in islice(left, max(0, ahead))]
        under_way.update(some)
        return len(some)

    waiting += fill()
    while waiting:
        done = next(under_way)
        waiting -= 1
        yield done.result()
        done.release()
        waiting += fill()


@contextmanager
def _dask(workers: int, scheduler: str | None) -> Iterator:
    """A client of the scheduler at this address, or of a cluster made here."""
    try:
        from distributed import Client, LocalCluster
    except ModuleNotFoundError as error:
        raise _not_installed("dask") from error
    with ExitStack() as stack:
        cluster = scheduler or stack.enter_context(LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None))
        try:
            client = stack.enter_context(Client(cluster))
        except OSError as error:
            raise InputError(
                f"No Dask scheduler answers at {scheduler}; start one with `dask scheduler`, or",
                remedy=NO_SCHEDULER,
            ) from error
        yield client


def _start_ray(workers: int, scheduler: str | None) -> None:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ModuleNotFoundError as error:
        raise _not_installed("ray") from error
    ray.init(address=scheduler, num_cpus=None if scheduler else workers, include_dashboard=False, ignore_reinit_error=True)
    register_ray()


def _not_installed(engine: str) -> InputError:
    return InputError(f"The engine {engine} is not installed; install it with `pip install {_INSTALL[engine]}`, or use loky.")
