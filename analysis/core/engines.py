"""The same call for many arguments, on the processes of this machine or on a cluster.

Where a machine has several graphics cards, each process sees one of them alone: the i-th worker of the machine the i-th card, counted round.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any, Literal, TypeVar, get_args

from soft_prompt_explorer.analysis.core.errors import InputError, not_installed
from soft_prompt_explorer.analysis.core.remedies import NO_SCHEDULER

Engine = Literal["loky", "dask", "ray"]
CARDS = "CUDA_VISIBLE_DEVICES"  # the graphics cards that a process sees
AHEAD, LEAST_AHEAD = 4, 64  # calls that a Dask cluster is given ahead, for each thread and at least: it does not hold all of thousands
TO_ANSWER = 5.0  # seconds
_Result = TypeVar("_Result")


def outcomes(
    call: Callable[..., _Result], arguments: Sequence[tuple], *, engine: Engine = "loky", workers: int = 1, scheduler: str | None = None
) -> Iterator[_Result]:
    """What `call` answers to each of these arguments, as they end, in any order.

    Parameters
    ----------
    call : a function of a module, and arguments that can be pickled.
    engine : `loky`, processes of this machine; `dask`, the workers of a scheduler, or of one made here; `ray`.
    workers : how many at once, at least 1; on a Dask cluster that is there, as many as its workers have threads. One of loky is this process itself.
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
        # Not by joblib, which hands nothing to a cluster of one thread, and computes here instead.
        if engine == "dask":
            yield from _by_dask(call, arguments, stack.enter_context(_dask(workers, scheduler)))
        elif engine == "ray":
            yield from _by_ray(call, arguments, workers, stack.enter_context(_ray(workers, scheduler)))
        else:
            from joblib import Parallel, delayed

            # One call at a time for each process, and what it has done is answered at once: a stop then costs few calls.
            run = call if workers == 1 else _with_own_card
            each_call = () if workers == 1 else (call,)
            yield from Parallel(workers, "loky", return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs")(
                delayed(run)(*each_call, *each) for each in arguments
            )


def _with_own_card(call: Callable[..., _Result], *arguments: Any) -> _Result:
    """The call, in a process of loky's, whose names end in 1, 2, …"""
    import multiprocessing

    take_card(int(multiprocessing.current_process().name.rpartition("-")[2]) - 1)
    return call(*arguments)


def take_card(index: int) -> None:
    """Let this process, and what it starts, see one of the graphics cards that it sees now, as long as it has not begun to use one."""
    seen = os.environ.get(CARDS)
    cards = _cards() if seen is None else seen.split(",")
    if len(cards) > 1:
        os.environ[CARDS] = cards[index % len(cards)]


def _cards() -> list[str]:
    """The numbers of this machine's cards, asked for without beginning to use one."""
    if shutil.which("nvidia-smi") is None:
        return []
    told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    return [str(i) for i, _ in enumerate(line for line in told.splitlines() if line.startswith("GPU "))]


def _by_dask(call: Callable[..., Any], arguments: Sequence[tuple], client: Any) -> Iterator[Any]:
    from distributed import as_completed

    left, under_way, waiting = iter(arguments), as_completed(), 0
    known: set[str] = set()

    def fill() -> int:
        there = client.scheduler_info(n_workers=-1)["workers"]  # workers may join later
        for host in {told["host"] for told in there.values()}:
            for i, address in enumerate(sorted(address for address, told in there.items() if told["host"] == host)):
                if address not in known:
                    client.run(take_card, i, workers=[address])
                    known.add(address)
        ahead = max(LEAST_AHEAD, AHEAD * sum(told["nthreads"] for told in there.values())) - waiting
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
        raise not_installed(error) or error from error
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


def _by_ray(call: Callable[..., Any], arguments: Sequence[tuple], workers: int, ray: Any) -> Iterator[Any]:
    """By as many processes as there are workers, each with its share of the cluster's cards."""
    from ray.util import ActorPool

    class Worker:
        def call(self, call: Callable[..., Any], arguments: tuple) -> Any:
            return call(*arguments)

    remote: Any = ray.remote(Worker)
    there = ray.cluster_resources()
    workers = max(1, min(workers, int(there.get("CPU", 1))))  # one that finds no place would wait for ever
    cards = int(there.get("GPU", 0))
    share = int(10_000 / math.ceil(workers / cards)) / 10_000 if cards else 0  # Ray counts ten-thousandths
    pool = ActorPool([remote.options(num_cpus=1, num_gpus=share).remote() for _ in range(workers)])
    left = iter(arguments)
    for each in islice(left, AHEAD * workers):
        pool.submit(lambda worker, each: worker.call.remote(call, each), each)
    while pool.has_next():
        done = pool.get_next_unordered()
        for each in islice(left, 1):
            pool.submit(lambda worker, each: worker.call.remote(call, each), each)
        yield done


@contextmanager
def _ray(workers: int, scheduler: str | None) -> Iterator:
    """Ray, connected to the cluster at this address or to one made here."""
    try:
        import ray
    except ModuleNotFoundError as error:
        raise not_installed(error) or error from error
    began = not ray.is_initialized()
    if began:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        if scheduler:
            _check_answers(scheduler)  # Ray itself would wait for it for minutes
            ray.init(scheduler, logging_level=logging.WARNING)
        else:
            ray.init("local", num_cpus=workers, include_dashboard=False, logging_level=logging.WARNING)
    try:
        yield ray
    finally:
        if began:
            ray.shutdown()


def _check_answers(scheduler: str) -> None:
    host, _, port = scheduler.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=TO_ANSWER).close()
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(f"No Ray cluster answers at {scheduler}; start one there, or", remedy=NO_SCHEDULER) from error
