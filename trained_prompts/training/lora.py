"""LoRA on PEFT's own modules: put into a model, read out of it, and taken away again so that the frozen model is as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.late import one_at_a_time
from soft_prompt_explorer.analysis.core.remedies import TARGETS
from soft_prompt_explorer.analysis.core.words import printable
from soft_prompt_explorer.analysis.loras.weights import TURNED_FAMILIES
from soft_prompt_explorer.analysis.models.weights import model_family

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

    from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig


ALL_LINEAR = "all-linear"  # PEFT's word for every linear module but the head


def targets_of(config: TrainingConfig) -> tuple[str, ...]:
    """The names of the modules that a run's LoRA changes: those that were given, or PEFT's own for the model's family.

    Raises
    ------
    InputError
        None were given, and PEFT has none for such a model.
    """
    if config.targets:
        return config.targets
    with one_at_a_time():
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    family = model_family(config.model) or ""
    names = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(family)
    if not isinstance(names, list):  # of few families PEFT has a pattern, which no run's settings hold
        raise InputError(
            f"PEFT names no modules that LoRA changes in a model of the family {printable(family)[:60] or 'unknown'}; name them",
            remedy=TARGETS,
        )
    return tuple(names)


def config_of(config: TrainingConfig) -> LoraConfig:
    """What PEFT is told of a run's LoRA. Errors as `targets_of`."""
    with one_at_a_time():
        from peft import LoraConfig, TaskType

    targets = targets_of(config)

    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # PEFT takes fractions too
        use_rslora=config.rslora,
        target_modules=ALL_LINEAR if targets == (ALL_LINEAR,) else list(targets),
        fan_in_fan_out=model_family(config.model) in TURNED_FAMILIES,
        lora_dropout=0.0,
    )


def weights_of(peft_model: PeftModel) -> dict[str, np.ndarray]:
    """A copy of the factors as they are now, by the names that PEFT saves them under, float32."""
    with one_at_a_time():
        from peft import get_peft_model_state_dict

    return {name: tensor.detach().cpu().float().numpy().copy() for name, tensor in get_peft_model_state_dict(peft_model).items()}
