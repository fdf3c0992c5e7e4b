import time
from dataclasses import replace

import pytest

from analysis.errors import InputError
from app.jobs import JobQueue
from trained_prompts import store


@pytest.fixture
def queue(own_runs) -> JobQueue:
    return JobQueue()


def wait_for(queue: JobQueue, job_id: str, *states: str):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        job = queue.get(job_id)
        if job.state in states:
            return job
        time.sleep(0.02)
    raise AssertionError(f"{job.state} ({job.doing}, {job.error}) instead of {states}")


def wait_for_step(queue: JobQueue, job_id: str, step: int):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and queue.get(job_id).steps_done < step:
        time.sleep(0.01)


def test_a_finished_job_is_saved_with_its_scores(queue, toy_config):
    job = wait_for(queue, queue.submit(toy_config, "mine", limit=None), "saved")
    assert job.losses["step"].tolist() == [1, 2, 3, 4]
    assert job.scores["prompt"].tolist() == ["no prompt", "initial values", "trained"]
    assert job.words["position"].tolist() == [0, 1, 2]
    assert job.words_step == 4
    assert store.find(job.saved_as).is_dir()


def test_a_stopped_job_leaves_nothing_until_its_person_keeps_it(queue, toy_config, own_runs):
    job_id = queue.submit(replace(toy_config, steps=100_000), "mine", limit=None)
    wait_for_step(queue, job_id, 3)
    queue.stop(job_id)
    job = wait_for(queue, job_id, "stopped")
    assert 3 <= job.steps_done < 100_000
    assert not list(own_runs.glob("*"))

    queue.keep(job_id, "mine")
    wait_for(queue, job_id, "saved")
    assert store.read_description(own_runs / "mine")["steps_done"] == job.steps_done


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
    assert [path.name for path in own_runs.iterdir()] == ["after"]


def test_a_bug_in_a_job_is_told_without_a_traceback(queue, toy_config, own_runs, monkeypatch):
    monkeypatch.setattr("app.jobs.evaluate_run", lambda *_, **__: 1 / 0)
    job_id = queue.submit(toy_config, "mine", limit=None)
    job = wait_for(queue, job_id, "failed")
    assert "ZeroDivisionError" in job.error
    assert "\n" not in job.error
    assert not list(own_runs.glob("*"))


def test_a_training_whose_saving_fails_is_not_lost(queue, toy_config, own_runs, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr("app.jobs.evaluate_run", lambda *_, **__: 1 / 0)
        job_id = queue.submit(toy_config, "mine", limit=None)
        assert wait_for(queue, job_id, "failed").can_be_kept
    queue.keep(job_id, "mended")
    assert wait_for(queue, job_id, "saved").saved_as == "mended"
    assert [path.name for path in own_runs.iterdir()] == ["mended"]


def test_a_name_that_waits_in_the_queue_is_taken(queue, toy_config):
    first = queue.submit(replace(toy_config, steps=100_000), "mine", limit=None)
    with pytest.raises(InputError, match="already in the queue"):
        queue.submit(toy_config, "mine", limit=None)
    queue.stop(first)
    wait_for(queue, first, "stopped")


def test_an_unknown_job_is_none(queue):
    assert queue.get("never") is None
