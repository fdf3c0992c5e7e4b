"""Training as the tests do it: to its end, in a few steps."""

from dataclasses import replace

from soft_prompt_explorer.trained_prompts.runs import recorded as runs
from soft_prompt_explorer.trained_prompts.runs.recording import Recording
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.trainer import train

ABSURD = 1.1e9  # of p-tuning, whose virtual tokens are products of four weights: within a few steps they are more than float32 can hold


def trained(config: TrainingConfig, language_model, **options) -> Recording:
    """What a run to its end leaves behind."""
    recording = Recording(config)
    for step in train(config, language_model=language_model, **options):
        recording.add(step)
    return recording


def absurd(config: TrainingConfig) -> TrainingConfig:
    """The same with a rate beyond what a config may hold: with the largest that it may, 100, these small models stay finite."""
    config = replace(config, method="p-tuning", init="sample-vocab") if config.method == "prompt-tuning" else replace(config)
    object.__setattr__(config, "learning_rate", ABSURD)
    return config


def broken_off(config, language_model, at: int = 3) -> None:
    broken = runs.record(config, "mine", language_model=language_model)
    for _, step in broken:
        if step.step == at:
            broken.close()


def gone_on_with(config, language_model, seen: list[int] | None = None) -> Recording:
    """What the run leaves behind at its end."""
    made = list(runs.record(config, "mine", language_model=language_model))
    if seen is not None:
        seen.extend(step.step for _, step in made)
    return made[-1][0]
