"""What a run's settings leave to its model."""

from __future__ import annotations

from dataclasses import replace

from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.trained_prompts.training.config import LEARNING_RATES, WORD_LENGTHS_A_STEP, TrainingConfig
from soft_prompt_explorer.trained_prompts.training.initial import scale_of
from soft_prompt_explorer.trained_prompts.training.lora import targets_of


def settled(config: TrainingConfig) -> TrainingConfig:
    """The same settings with what they leave to the model by name: the learning rate, and the modules that a LoRA changes. A run says what it did.

    Raises
    ------
    InputError
        The model's vocabulary cannot be read, or PEFT names no modules that LoRA changes in such a model.

    Examples
    --------
    >>> import soft_prompt_explorer as spe
    >>> settled(spe.TrainingConfig(task="plural")).learning_rate
    0.05
    """
    if config.learning_rate is None:
        config = replace(config, learning_rate=rate_of(config))
    return replace(config, targets=targets_of(config)) if config.method == "lora" else config


def rate_of(config: TrainingConfig) -> float:
    """The learning rate of the first step: the one that was given, or the method's own.

    Prompt tuning's own is less where the model's words are short. A step of Adam moves no value by much more than the rate (Kingma and Ba 2015, section 2.1);
    here that is 0.05 at most, and about 0.4 of the root mean square of the values of the model's words where this is less, in one digit.

    Raises
    ------
    InputError
        The model's vocabulary cannot be read.
    """
    if config.learning_rate is not None:
        return config.learning_rate
    rate = LEARNING_RATES[config.method]
    if config.method != "prompt-tuning":
        return rate
    return min(rate, float(f"{WORD_LENGTHS_A_STEP * scale_of(load_vocabulary(config.model)):.0e}"))
