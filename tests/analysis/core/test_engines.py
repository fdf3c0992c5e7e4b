"""Calls on other processes: every argument once, in processes of their own, each with a graphics card of its own."""

import importlib.util
import os
from collections import Counter
from pathlib import Path

import pytest

from soft_prompt_explorer.analysis.core.engines import outcomes, take_card
from soft_prompt_explorer.analysis.core.errors import InputError
from tests.support.waiting import wait_until

NEEDS_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")


def seen(i: int, met: Path, workers: int) -> tuple[int, int, str | None]:
    """Answers once so many processes have met in that folder: none is done with all of them before another begins."""
    (met / str(os.getpid())).touch()
    wait_until(lambda: len(list(met.iterdir())) >= workers)
    return i, os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")


def check(answers: list[tuple[int, int, str | None]], cards: Counter) -> None:
    """Each argument was answered once, elsewhere, and of so many processes each saw one card."""
    assert sorted(i for i, _, _ in answers) == list(range(40))
    processes = {process: card for _, process, card in answers}
    assert all(processes[process] == card for _, process, card in answers)  # the same all along
    assert os.getpid() not in processes and Counter(processes.values()) == cards


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "cards"), [(2, {"4": 1, "7": 1}), (3, {"4": 2, "7": 1})])
@pytest.mark.parametrize("engine", ["loky", "dask"])
def test_each_process_sees_a_card_of_its_own(engine, workers, cards, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    check(list(outcomes(seen, [(i, tmp_path, workers) for i in range(40)], engine=engine, workers=workers)), Counter(cards))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_workers_of_a_cluster_that_is_there_see_a_card_each(workers, tmp_path, monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    with LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None, host="127.0.0.1", protocol="tcp://") as cluster:
        answers = list(outcomes(seen, [(i, tmp_path, workers) for i in range(40)], engine="dask", scheduler=cluster.scheduler_address))
    check(answers, Counter(["4", "7"][:workers]))


@pytest.mark.slow
@NEEDS_RAY
@pytest.mark.parametrize(("workers", "cards"), [(1, {"0": 1}), (2, {"0": 1, "1": 1}), (3, {"0": 2, "1": 1})])
def test_the_workers_of_ray_see_a_card_each(workers, cards, tmp_path):
    import ray

    ray.init("local", num_cpus=3, num_gpus=2, include_dashboard=False)
    try:
        check(list(outcomes(seen, [(i, tmp_path, workers) for i in range(40)], engine="ray", workers=workers)), Counter(cards))
    finally:
        ray.shutdown()


@NEEDS_RAY
@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "nowhere", "127.0.0.1:99999999"])
def test_a_cluster_of_ray_that_does_not_answer_is_told(address):
    with pytest.raises(InputError, match=f"No Ray cluster answers at {address}"):
        list(outcomes(seen, [(0, Path(), 1)], engine="ray", scheduler=address))


@pytest.mark.parametrize(
    ("sees", "index", "takes"), [("0,1", 0, "0"), ("0,1", 3, "1"), ("5", 1, "5"), ("", 1, ""), ("GPU-a,GPU-b,GPU-c", 4, "GPU-b")]
)
def test_a_card_is_taken_from_those_that_are_seen(sees, index, takes, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", sees)
    take_card(index)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == takes


@pytest.mark.parametrize(
    ("script", "takes"), [("echo 'GPU 0: A'; echo 'GPU 1: B'; echo 'note'", "1"), ("echo 'GPU 0: A'", None), ("exit 9", None)]
)
def test_where_nothing_says_which_cards_are_seen_the_driver_is_asked(script, takes, tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    take_card(3)
    seen_now = os.environ.get("CUDA_VISIBLE_DEVICES")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert seen_now == takes


def test_what_is_not_there_is_told():
    with pytest.raises(InputError, match="No engine is called 'slurm'"):
        outcomes(seen, [], engine="slurm")
    with pytest.raises(InputError, match="1 or more workers"):
        outcomes(seen, [], workers=0)
