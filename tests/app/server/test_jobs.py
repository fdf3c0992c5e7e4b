import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.analysis.prompts.projection import place, vocabulary_map
from soft_prompt_explorer.analysis.tasks import own_data
from soft_prompt_explorer.app.server import jobs
from soft_prompt_explorer.app.server.jobs import JobQueue
from soft_prompt_explorer.trained_prompts.runs import recorded as runs
from soft_prompt_explorer.trained_prompts.runs import store
from soft_prompt_explorer.trained_prompts.runs.recording import checkpoint_path
from soft_prompt_explorer.trained_prompts.training.trainer import train
from tests.support.places import REPOSITORY
from tests.support.waiting import wait_until


@pytest.fixture
def queue(own_runs) -> JobQueue:
    return JobQueue()


def wait_for(queue: JobQueue, job_id: str, *states: str):
    wait_until(lambda: queue.get(job_id).state in states or not queue.get(job_id).under_way)
    job = queue.get(job_id)
    assert job.state in states, f"{job.state} ({job.doing}, {job.error}) instead of {states}"
    return job


def wait_for_step(queue: JobQueue, job_id: str, step: int):
    wait_until(lambda: queue.get(job_id).steps_done >= step or not queue.get(job_id).under_way)


def kept_names(folder) -> list[str]:
    return sorted(path.name for path in folder.glob("[!.]*"))


def unbroken(config) -> list:
    return list(train(config, language_model=load_model(config.model)))


def test_a_finished_job_is_saved_with_its_scores(queue, toy_config, own_runs):
    job = wait_for(queue, queue.submit(toy_config, "mine", limit=None), "saved")
    assert job.losses["step"].tolist() == [1, 2, 3, 4]
    assert job.scores["prompt"].tolist() == ["no prompt", "initial values", "trained"]
    assert job.words["position"].tolist() == [0, 1, 2]
    assert job.words["step"].unique().tolist() == [4]
    assert store.find(job.saved_as).is_dir()
    assert not list(own_runs.glob(".*"))  # nothing to go on with is left


@pytest.mark.parametrize(("method", "trainable"), [("prompt-tuning", 3 * 16), ("p-tuning", 3 * 16 + 3 * (16 * 16 + 16)), ("prefix-tuning", 3 * 64), ("lora", 2 * 2 * 2 * 32), ("full", 14_768)])  # fmt: skip
def test_every_method_trains_and_saves_and_only_prompts_are_read(queue, toy_config, own_runs, method, trainable):
    config = replace(toy_config, method=method, rank=2, alpha=None, learning_rate=None)
    job = wait_for(queue, queue.submit(config, "mine", limit=None), "saved")
    assert job.trainable == trainable
    assert (job.looks is not None) == (method in ("prompt-tuning", "p-tuning"))
    assert store.list_runs().set_index("name").loc["mine", "method"] == method
    assert any((own_runs / "mine" / name).is_file() for name in ("adapter_model.safetensors", "model.safetensors"))


def test_a_stopped_job_is_no_run_until_its_person_keeps_it(queue, toy_config, own_runs):
    job_id = queue.submit(replace(toy_config, steps=100_000), "mine", limit=None)
    wait_for_step(queue, job_id, 3)
    queue.stop(job_id)
    job = wait_for(queue, job_id, "stopped")
    assert 3 <= job.steps_done < 100_000
    assert not kept_names(own_runs)
    assert queue.unfinished()[["name", "steps", "of_steps"]].to_numpy().tolist() == [["mine", job.steps_done, 100_000]]

    queue.keep(job_id, "under-another-name")
    wait_for(queue, job_id, "saved")
    assert read_description(own_runs / "under-another-name")["steps_done"] == job.steps_done
    assert not len(queue.unfinished())


@pytest.fixture
def stopped_after_step_3(queue, monkeypatch):
    """The first training is stopped after its third step, at whatever pace the machine goes."""
    plain, stopped = runs.record, []

    def record(*arguments, **options):
        for recording, step in plain(*arguments, **options):
            if step.step == 3 and not stopped:
                stopped.append(next(job.id for job in queue.all() if job.under_way))
                queue.stop(stopped[0])
            yield recording, step

    monkeypatch.setattr(runs, "record", record)


@pytest.mark.parametrize("restarted", [False, True], ids=["the same server", "another server"])
def test_a_stopped_job_goes_on_to_what_an_unbroken_one_ends_with(queue, toy_config, own_runs, stopped_after_step_3, restarted):
    config = replace(toy_config, steps=12)
    job_id = queue.submit(config, "mine", limit=None)
    stopped = wait_for(queue, job_id, "stopped")
    assert stopped.can_go_on
    assert stopped.steps_done == 3
    if restarted:
        queue = JobQueue()
        row = queue.unfinished().iloc[0]
        job_id = queue.submit(jobs.config_of(row["config"]), row["name"], limit=None)
    else:
        job_id = queue.resume(job_id)
    assert not len(queue.unfinished())  # it is under way
    job = wait_for(queue, job_id, "saved")
    steps = unbroken(config)
    np.testing.assert_array_equal(load_soft_prompt(own_runs / "mine").embeddings, steps[-1].embeddings)
    assert job.losses["loss"].tolist() == [step.loss for step in steps[1:]]
    assert job.looks["step"].iloc[0] == stopped.steps_done


def test_an_unfinished_training_can_be_discarded_and_its_name_used_again(queue, toy_config, own_runs):
    job_id = queue.submit(replace(toy_config, steps=100_000), "mine", limit=None)
    wait_for_step(queue, job_id, 1)
    queue.discard("mine")
    assert queue.get(job_id).under_way  # what is under way is stopped first
    queue.stop(job_id)
    wait_for(queue, job_id, "stopped")
    with pytest.raises(InputError, match="other settings"):
        queue.submit(toy_config, "mine", limit=None)
    queue.discard("mine")
    assert queue.get(job_id) is None
    assert not len(queue.unfinished())
    wait_for(queue, queue.submit(toy_config, "mine", limit=None), "saved")


@pytest.fixture
def no_number_at_step_4(monkeypatch):
    """A loss that is nan at the fourth step."""
    cross_entropy, calls = torch.nn.functional.cross_entropy, itertools.count(1)
    monkeypatch.setattr(torch.nn.functional, "cross_entropy", lambda *of: cross_entropy(*of) * (np.nan if next(calls) == 4 else 1))


def test_a_loss_that_is_no_number_leaves_the_last_good_state_to_keep(queue, toy_config, own_runs, no_number_at_step_4):
    job_id = queue.submit(replace(toy_config, steps=50), "mine", limit=None)
    job = wait_for(queue, job_id, "failed")
    assert "smaller learning rate" in job.error
    assert (job.can_be_kept, job.can_go_on) == (True, False)
    assert job.steps_done == 2
    assert job.losses["step"].tolist() == [1, 2]
    assert job.words["step"].unique().tolist() == [2]
    queue.keep(job_id, "mine")
    wait_for(queue, job_id, "saved")
    np.testing.assert_array_equal(load_soft_prompt(own_runs / "mine").embeddings, unbroken(replace(toy_config, steps=50))[2].embeddings)


def test_of_full_fine_tuning_nothing_is_kept_where_the_loss_is_no_number(queue, toy_config, no_number_at_step_4):
    config = replace(toy_config, method="full", steps=50, learning_rate=None)
    job = wait_for(queue, queue.submit(config, "mine", limit=None), "failed")
    assert (job.can_be_kept, job.can_go_on) == (False, False)


def test_a_persons_own_examples_become_a_run(queue, toy_config, own_runs):
    rows = "".join(f"{text},{target}\n" for text, target in [("the cat", "mat"), ("the mat", "cat")] * 12)
    task = own_data.task_from_file(own_data.keep_uploaded("my examples.csv", b"input,target\n" + rows.encode()))
    job = wait_for(queue, queue.submit(replace(toy_config, task=task.name, validate_every=2), "mine", limit=None), "saved")
    assert job.losses["validation"].notna().tolist() == [False, True, False, True]
    assert job.scores["n"].unique().tolist() == [10]
    assert store.list_runs().set_index("name").loc["mine", "task"] == "own-my-examples"


def test_the_tokens_stand_on_the_map_where_it_was_made_and_nowhere_where_it_was_not(queue, toy_config, monkeypatch):
    monkeypatch.setattr(
        "soft_prompt_explorer.analysis.prompts.projection._umap", lambda components, dimensions, report: components[:, :dimensions]
    )  # at once
    job = wait_for(queue, queue.submit(toy_config, "without", limit=None), "saved")
    assert job.looks[["x", "y"]].isna().all(axis=None)
    vocabulary = load_vocabulary(toy_config.model)
    on = vocabulary_map(vocabulary)
    job = wait_for(queue, queue.submit(toy_config, "with", limit=None), "saved")
    rows = unbroken(toy_config)[-1].embeddings
    np.testing.assert_allclose(job.words[["x", "y"]], place(rows - vocabulary.mean, on, vocabulary))


def test_a_long_job_keeps_some_of_its_looks_the_first_and_the_last_among_them(queue, toy_config, monkeypatch):
    monkeypatch.setattr(jobs, "LOOK_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(jobs, "LOOK_SHARE", np.inf)
    job = wait_for(queue, queue.submit(replace(toy_config, steps=100), "mine", limit=None), "saved")
    looked = job.looks["step"].unique()
    assert 20 < len(looked) <= jobs.KEPT_LOOKS + 1
    assert (looked[0], looked[-1]) == (0, 100)


def test_jobs_run_one_after_another_and_one_that_waits_can_be_stopped(queue, toy_config):
    first = queue.submit(replace(toy_config, steps=100_000), "first", limit=None)
    second = queue.submit(toy_config, "second", limit=None)
    third = queue.submit(toy_config, "third", limit=None)
    wait_for_step(queue, first, 1)
    assert [queue.ahead_of(job) for job in (first, second, third)] == [0, 1, 2]
    assert queue.get(second).state == "queued"
    queue.stop(second)
    assert queue.get(second).state == "stopped"  # at once, not when its turn comes
    queue.stop(first)
    assert wait_for(queue, third, "saved").saved_as == "third"


def test_a_failed_job_says_why_and_the_next_one_is_unaffected(queue, toy_config, own_runs):
    failing = queue.submit(replace(toy_config, model="/no/such/model"), "failing", limit=None)
    after = queue.submit(toy_config, "after", limit=None)
    assert "tried" in wait_for(queue, failing, "failed").error
    assert wait_for(queue, after, "saved").saved_as == "after"
    assert kept_names(own_runs) == ["after"]


def test_a_bug_in_a_job_is_told_without_a_traceback(queue, toy_config, own_runs, monkeypatch):
    monkeypatch.setattr("soft_prompt_explorer.app.server.jobs.evaluate_run", lambda *_, **__: 1 / 0)
    job_id = queue.submit(toy_config, "mine", limit=None)
    job = wait_for(queue, job_id, "failed")
    assert "ZeroDivisionError" in job.error
    assert "\n" not in job.error
    assert not kept_names(own_runs)


def test_a_training_whose_saving_fails_is_not_lost(queue, toy_config, own_runs, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr("soft_prompt_explorer.app.server.jobs.evaluate_run", lambda *_, **__: 1 / 0)
        job_id = queue.submit(toy_config, "mine", limit=None)
        assert wait_for(queue, job_id, "failed").can_be_kept
    queue.keep(job_id, "mended")
    assert wait_for(queue, job_id, "saved").saved_as == "mended"
    assert [path.name for path in own_runs.iterdir()] == ["mended"]  # and nothing to go on with is left


def test_a_name_that_waits_in_the_queue_is_taken(queue, toy_config):
    first = queue.submit(replace(toy_config, steps=100_000), "mine", limit=None)
    with pytest.raises(InputError, match="already in the queue"):
        queue.submit(toy_config, "mine", limit=None)
    queue.stop(first)
    wait_for(queue, first, "stopped")


def test_sessions_take_turns_and_one_has_so_many_waiting(queue, toy_config):
    first = queue.submit(replace(toy_config, steps=100_000), "first", limit=None, session="a")
    wait_for_step(queue, first, 1)
    of_a = [queue.submit(toy_config, f"a{i}", limit=None, session="a") for i in range(jobs.WAITING)]
    with pytest.raises(InputError, match=f"You have {jobs.WAITING} trainings that wait"):
        queue.submit(toy_config, "one-more", limit=None, session="a")
    of_b = [queue.submit(toy_config, f"b{i}", limit=None, session="b") for i in range(2)]
    in_turn = [of_b[0], of_a[0], of_b[1], *of_a[1:]]
    assert [queue.ahead_of(job) for job in in_turn] == list(range(1, len(in_turn) + 1))
    queue.stop(of_a[-1])
    of_a[-1] = queue.submit(toy_config, "one-more", limit=None, session="a")  # one fewer waits
    queue.stop(first)
    for job in (*of_a, *of_b):
        wait_for(queue, job, "saved")
    runs_made = store.list_runs().set_index("name")["path"]
    when = {name: (Path(path) / "run.json").stat().st_mtime_ns for name, path in runs_made.items() if name[:1] in "ab" and len(name) == 2}
    assert sorted(when, key=when.get)[:4] == ["b0", "a0", "b1", "a1"]


HOLDS = """
import sys
from soft_prompt_explorer.trained_prompts.runs import recorded as runs
with runs.claimed(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def elsewhere(own_runs):
    """Another process that holds the name `mine`, until it is let go."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, "mine"], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_name_that_another_process_trains_under_is_refused_and_free_once_that_ends_however_it_ends(
    queue, toy_config, elsewhere, own_runs
):
    with pytest.raises(InputError, match="mine is under way already, on a page or in another process"):
        queue.submit(toy_config, "mine", limit=None)
    with pytest.raises(InputError, match="under way already"):
        queue.discard("mine")
    with pytest.raises(InputError, match="under way already"):
        runs.run(toy_config, "mine", language_model=load_model(toy_config.model))
    other = queue.submit(toy_config, "other", limit=None)  # only that name
    wait_for(queue, other, "saved")
    elsewhere.kill()
    elsewhere.wait()
    wait_for(queue, queue.submit(toy_config, "mine", limit=None), "saved")
    assert sorted(path.name for path in own_runs.iterdir()) == ["mine", "other"]


def test_what_the_page_trains_the_command_line_does_not_train_too(queue, toy_config, own_runs):
    job = queue.submit(replace(toy_config, steps=100_000), "mine", limit=None)
    wait_for_step(queue, job, 1)
    with pytest.raises(InputError, match="under way already"):
        runs.run(toy_config, "mine", language_model=load_model(toy_config.model))
    queue.stop(job)
    wait_for(queue, job, "stopped")
    assert checkpoint_path("mine").is_file()


def test_an_unknown_job_is_none(queue):
    assert queue.get("never") is None
