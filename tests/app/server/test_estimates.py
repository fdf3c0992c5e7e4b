"""What is said of a run before it starts is what runs like it took."""

from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.app.server.estimates import estimate, trainable_parameters
from soft_prompt_explorer.app.server.jobs import JobQueue
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from tests.support.waiting import wait_until


def test_what_a_run_took_here_is_what_the_next_one_is_said_to_take(own_runs, toy_config):
    config = toy_config
    assert estimate(config, limit=4).basis == "runs that ship, made on two cores"
    queue = JobQueue()
    job_id = queue.submit(config, "mine", limit=None)
    wait_until(lambda: not queue.get(job_id).under_way)
    taken, made = estimate(config, limit=4), read_description(own_runs / "mine")
    assert taken.basis == "a run of yours"
    assert taken.memory == made["peak_memory_bytes"]
    assert taken.seconds >= 0.9 * made["seconds_training"]
    assert trainable_parameters(config) == made["trainable_parameters"]


def test_nothing_is_said_of_a_model_that_is_not_at_hand():
    config = TrainingConfig(task="plural", model="nobody/nothing", method="lora")
    assert estimate(config, limit=10) is None
    assert trainable_parameters(config) is None
