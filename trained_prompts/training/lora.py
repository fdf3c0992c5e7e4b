"""LoRA on PEFT's own modules: put into a model, read out of it, and taken away again so that the frozen model is as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

    from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig


def config_of(config: TrainingConfig) -> LoraConfig:
    """What PEFT is told of a run's LoRA."""
    from peft import LoraConfig, TaskType

    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # PEFT takes fractions too
        use_rslora=config.rslora,
        target_modules=list(config.targets),
        lora_dropout=0.0,
    )


def weights_of(peft_model: PeftModel) -> dict[str, np.ndarray]:
    """A copy of the factors as they are now, by the names that PEFT saves them under, float32."""
    from peft import get_peft_model_state_dict

    return {name: tensor.detach().cpu().float().numpy().copy() for name, tensor in get_peft_model_state_dict(peft_model).items()}
