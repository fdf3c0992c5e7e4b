"""The memory that a training cannot do without, refused before it starts where the device has less."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soft_prompt_explorer.analysis.core.remedies import ANOTHER_METHOD
from soft_prompt_explorer.analysis.models.computing import BYTES, check_room, device_of, dtype_of, told
from soft_prompt_explorer.analysis.models.size import total_parameters

if TYPE_CHECKING:
    from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig

LEARNED_BYTES = 16  # of a parameter that learns: a float32 each for itself, its gradient and Adam's two moments


def computed_in(config: TrainingConfig, parameters: int) -> tuple[str, str]:
    """The numbers and the device that a model of so many parameters computes in, by these settings: (`bfloat16`, `cuda`).

    Raises
    ------
    InputError
        There is no such device.
    """
    device = device_of(config.device)
    return told(dtype_of(config.dtype, device, parameters)), device


def weights_held(method: str, parameters: int, dtype: str) -> int:
    """Bytes of the frozen weights, and where every weight learns, of the float32 copy that does, its gradient and Adam's two moments."""
    return parameters * (BYTES[dtype] + (LEARNED_BYTES if method == "full" else 0))


def check_fits(config: TrainingConfig) -> None:
    """Refuse a training whose weights alone are larger than the device's memory; of a model that is not at hand, nothing is known yet.

    Raises
    ------
    NoMemoryError
        They are.
    InputError
        There is no such device.
    """
    parameters = total_parameters(config.model)
    if parameters is None or config.method != "full":  # `load_model` looks at the frozen weights
        return
    dtype, device = computed_in(config, parameters)
    needed = weights_held(config.method, parameters, dtype)
    check_room(
        needed, device, f"To train all of {config.model}: the model, a float32 copy, its gradient and Adam's two moments", ANOTHER_METHOD
    )
