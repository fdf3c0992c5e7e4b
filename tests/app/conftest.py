from tests.trained_prompts.conftest import own_runs, toy_config, toy_task

__all__ = ["own_runs", "toy_config", "toy_task"]
