from tests.trained_prompts.conftest import own_runs, toy_config, toy_task
from tests.trained_prompts.test_lora import config, language_model, saved

__all__ = ["config", "language_model", "own_runs", "saved", "toy_config", "toy_task"]
