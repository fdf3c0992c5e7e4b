"""Grids of runs: what is trained, what is not trained again, and that it does not matter where."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.trained_prompts.experiments.sweeps import AXES, grid, sweep
from soft_prompt_explorer.trained_prompts.runs import recorded as runs
from soft_prompt_explorer.trained_prompts.runs import store
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from tests.support.places import REPOSITORY, names_in
from tests.support.training import absurd


@pytest.fixture
def base(config) -> TrainingConfig:
    return replace(config, steps=4, validate_every=None, patience=None)


@pytest.fixture
def cells(base) -> dict[str, TrainingConfig]:
    return grid(base, {"tokens": [2, 3], "seed": [0, 1]})


def prompts_in(folder, cells) -> dict[str, bytes]:
    return {name: (folder / name / "adapter_model.safetensors").read_bytes() for name in cells}


def test_a_cell_is_called_by_what_is_particular_to_it(base):
    assert list(grid(base, {"tokens": [5, 10], "init": ["random"], "seed": [0, 1]})) == [
        "tokens-5-seed-0", "tokens-5-seed-1", "tokens-10-seed-0", "tokens-10-seed-1",
    ]  # fmt: skip
    cells = grid(base, {"learning_rate": [0.05, 1e-5], "readable": [0.0, float("inf")]})
    assert list(cells) == [
        "learning-rate-0.05-readable-0.0", "learning-rate-0.05-readable-inf", "learning-rate-1e-05-readable-0.0", "learning-rate-1e-05-readable-inf",
    ]  # fmt: skip
    assert list(grid(base, {"seed": [3]})) == ["only"]
    assert list(grid(base, {})) == ["only"]
    assert cells["learning-rate-1e-05-readable-inf"] == replace(base, learning_rate=1e-5, readable=float("inf"))


def test_every_cell_can_be_kept_under_its_name_however_much_is_varied(base, own_runs):
    axes = {
        "tokens": [100, 200], "init": ["sample-vocab", "random"], "rank": [128, 256], "learning_rate": [0.00125, 0.0025], "seed": [1000, 2000],
        "readable": [0.125, 0.25],
    }  # fmt: skip
    assert set(axes) == set(AXES)
    cells = grid(base, axes)
    assert len(cells) == 64
    for name in cells:
        store.check_name(name)
    assert list(grid(base, axes)) == list(cells)  # the same names another day


def test_what_nobody_named_is_derived_for_each_cell(base):
    lora = replace(base, method="lora", learning_rate=None)
    assert [(cell.rank, cell.alpha) for cell in grid(replace(lora, alpha=None, rank=8), {"rank": [2, 16]}).values()] == [
        (2, 4.0),
        (16, 32.0),
    ]
    assert [cell.alpha for cell in grid(replace(lora, alpha=5.0), {"rank": [2, 16]}).values()] == [5.0, 5.0]


def test_an_axis_that_is_not_one_and_values_that_cannot_be_are_refused(base):
    with pytest.raises(InputError, match="cannot vary 'colour'"):
        grid(base, {"colour": [1]})
    with pytest.raises(InputError, match="1 to 200 virtual tokens"):
        grid(base, {"tokens": [5, 500]})


def test_every_cell_is_trained_as_it_would_be_alone_and_none_twice(base, cells, language_model, tmp_path, own_runs):
    folder, said = tmp_path / "sweep", []
    table = sweep(cells, folder, report=lambda share, doing: said.append((share, doing)))
    assert table["name"].tolist() == sorted(cells)
    assert table["error"].isna().all() and set(table["origin"]) == {"sweep"}
    assert said[-1] == (1.0, "4 of 4 cells")
    runs.run(cells["tokens-3-seed-1"], "alone", language_model=language_model)
    assert (own_runs / "alone" / "adapter_model.safetensors").read_bytes() == prompts_in(folder, cells)["tokens-3-seed-1"]
    assert len(set(prompts_in(folder, cells).values())) == 4

    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    said.clear()
    more = cells | grid(replace(base, tokens=5), {"seed": [7]})
    again = sweep(more, folder, report=lambda share, doing: said.append((share, doing)))
    assert said == [(0.8, "4 of 5 cells were finished before"), (1.0, "5 of 5 cells")]
    assert {path: path.stat().st_mtime_ns for path in times if path != folder} == {
        path: time for path, time in times.items() if path != folder
    }
    assert again["name"].tolist() == sorted(more)
    assert sweep(cells, folder)["name"].tolist() == sorted(cells)  # the others in the folder are left out


# A sweep of one process that kills itself when two cells are done and a third one has made two steps.
KILLED = """
import os, signal, sys
from pathlib import Path
from soft_prompt_explorer.trained_prompts.runs import recorded as runs
from soft_prompt_explorer.trained_prompts.experiments import sweeps
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig

runs.CHECKPOINT_SECONDS = -1.0
recorded, begun = runs.record, []

def record(config, name, **options):
    begun.append(name)
    for recording, step in recorded(config, name, **options):
        if len(begun) == 3 and step.step == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        yield recording, step

runs.record = record
sweeps.sweep(sweeps.grid(TrainingConfig(**eval(os.environ["CONFIG"])), {"tokens": [2, 3], "seed": [0, 1]}), Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on_where_it_was(base, cells, tmp_path, monkeypatch, one_thread):
    folder = tmp_path / "sweep"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, folder], cwd=REPOSITORY, env=os.environ | {"CONFIG": repr(vars(base)), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    finished = names_in(folder)
    assert finished == [".unfinished", "tokens-2-seed-0", "tokens-2-seed-1"]
    assert [path.name for path in (folder / ".unfinished").glob("*.safetensors")] == ["tokens-3-seed-0.safetensors"]

    began = []
    train = runs.train
    monkeypatch.setattr(runs, "train", lambda config, **options: began.append((config, options["resume"])) or train(config, **options))
    times = {name: (folder / name / "run.json").stat().st_mtime_ns for name in finished[1:]}
    assert sweep(cells, folder)["error"].isna().all()
    assert [(config.tokens, config.seed, None if state is None else int(state["progress"][0])) for config, state in began] == [
        (3, 0, 2),
        (3, 1, None),
    ]
    assert {name: (folder / name / "run.json").stat().st_mtime_ns for name in times} == times
    sweep(cells, tmp_path / "unbroken")
    assert prompts_in(folder, cells) == prompts_in(tmp_path / "unbroken", cells)
    assert names_in(folder) == sorted(cells)


@pytest.fixture
def workers_end():
    """Processes that joblib would keep for the next call, with this test's environment."""
    yield
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)


def same_as_here(engine: str, base, tmp_path) -> None:
    """Two workers train the very same prompts as this process does one after the other."""
    cells = grid(base, {"tokens": [2, 3]})
    here, there = sweep(cells, tmp_path / "here"), sweep(cells, tmp_path / engine, engine=engine, workers=2)
    assert there["error"].isna().all()
    assert there["score"].tolist() == here["score"].tolist()
    assert prompts_in(tmp_path / engine, cells) == prompts_in(tmp_path / "here", cells)


@pytest.mark.slow
def test_processes_of_this_machine_train_the_very_same_prompts(base, tmp_path, workers_end, monkeypatch, one_thread):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    same_as_here("loky", base, tmp_path)


@pytest.mark.slow
def test_a_dask_cluster_on_loopback_trains_the_very_same_prompts(base, tmp_path, monkeypatch, one_thread):
    import distributed

    made = []

    class Watched(distributed.LocalCluster):
        def __init__(self, *arguments, **options) -> None:
            super().__init__(*arguments, **options)
            made.append((self.scheduler_address, len(self.workers)))

    monkeypatch.setattr(distributed, "LocalCluster", Watched)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    same_as_here("dask", base, tmp_path)
    ((address, workers),) = made
    assert address.startswith("tcp://127.0.0.1:") and workers == 2


def test_the_workers_of_a_dask_scheduler_are_used_by_its_address(cells, tmp_path):
    from distributed import Client, LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None, host="127.0.0.1", protocol="tcp://"
    ) as cluster:
        table = sweep(cells, tmp_path / "dask", engine="dask", scheduler=cluster.scheduler_address)
        assert table["error"].isna().all()
        with Client(cluster.scheduler_address) as client:
            assert len(client.scheduler_info()["workers"]) == 1  # it is somebody else's cluster, and still there
    sweep(cells, tmp_path / "here")
    assert prompts_in(tmp_path / "dask", cells) == prompts_in(tmp_path / "here", cells)


@pytest.mark.slow
def test_a_cluster_of_one_worker_thread_trains_and_this_process_does_not(cells, tmp_path, monkeypatch, one_thread):
    from distributed import LocalCluster

    def here(*_, **__):
        raise AssertionError("trained in the client")

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, host="127.0.0.1", protocol="tcp://") as cluster,
        monkeypatch.context() as client,
    ):
        client.setattr(runs, "run", here)  # the worker is a process of its own
        table = sweep(cells, tmp_path / "dask", engine="dask", scheduler=cluster.scheduler_address)
    assert table["error"].isna().all() and sorted(table["name"]) == sorted(cells)
    sweep(cells, tmp_path / "here")
    assert prompts_in(tmp_path / "dask", cells) == prompts_in(tmp_path / "here", cells)


def test_a_worker_of_several_threads_trains_one_cell_at_a_time(cells, tmp_path):
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=4, processes=False, dashboard_address=None, host="127.0.0.1", protocol="tcp://"
    ) as cluster:
        table = sweep(cells, tmp_path / "dask", engine="dask", scheduler=cluster.scheduler_address)
    assert table["error"].isna().all()
    sweep(cells, tmp_path / "here")
    assert prompts_in(tmp_path / "dask", cells) == prompts_in(tmp_path / "here", cells)


def test_an_address_where_no_scheduler_answers_is_refused_in_a_sentence(cells, tmp_path):
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(InputError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:9"),
    ):
        sweep(cells, tmp_path / "dask", engine="dask", scheduler="tcp://127.0.0.1:9")


def test_an_engine_that_is_not_installed_says_how_to_install_it(cells, tmp_path, monkeypatch):
    for engine, library in (("ray", "ray"), ("dask", "distributed")):
        monkeypatch.setitem(sys.modules, library, None)  # as where it is not installed
        with pytest.raises(InputError, match=rf"^This needs {library}, .* `pip install 'soft-prompt-explorer\[{engine}\]'`\.$"):
            sweep(cells, tmp_path / "sweep", engine=engine)
    with pytest.raises(InputError, match="the engines are loky, dask, ray"):
        sweep(cells, tmp_path / "sweep", engine="spark")
    with pytest.raises(InputError, match="1 or more workers"):
        sweep(cells, tmp_path / "sweep", workers=0)
    assert not list(tmp_path.glob("sweep/*"))


def test_a_cell_that_fails_has_its_row_with_what_went_wrong_and_the_others_are_trained(base, tmp_path):
    cells = grid(replace(base, init="sample-vocab"), {"tokens": [2, 150]})  # more than the tiny vocabulary has words
    table = sweep(cells, tmp_path / "sweep").set_index("name")
    assert table.index.tolist() == ["tokens-2", "tokens-150"]
    assert "frequent whole words" in table.loc["tokens-150", "error"] and "\n" not in table.loc["tokens-150", "error"]
    assert table.loc["tokens-2", "steps"] == 4 and table["error"].isna().tolist() == [True, False]
    assert set(table["origin"]) == {"sweep"}
    assert names_in(tmp_path / "sweep") == ["tokens-2"]


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_a_cell_whose_loss_became_no_number_has_one_row_with_what_it_had_learned_and_what_went_wrong(base, tmp_path):
    cells = {"absurd": absurd(replace(base, steps=6)), "sane": base}
    table = sweep(cells, tmp_path / "sweep").set_index("name")
    assert sorted(table.index) == ["absurd", "sane"]
    assert "learning rate" in table.loc["absurd", "error"]
    assert table.loc["absurd", "steps"] == read_description(tmp_path / "sweep" / "absurd")["steps_done"]
