"""Training as the tests do it: to its end, in a few steps."""

from soft_prompt_explorer.trained_prompts.runs.recording import Recording
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.trainer import train


def trained(config: TrainingConfig, language_model, **options) -> Recording:
    """What a run to its end leaves behind."""
    recording = Recording(config)
    for step in train(config, language_model=language_model, **options):
        recording.add(step)
    return recording
