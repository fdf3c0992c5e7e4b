"""A LoRA put into a model on PEFT's own modules, and taken away again so that the frozen model is as it was."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from soft_prompt_explorer.analysis.adapters.lora import changes_base_weights
from soft_prompt_explorer.analysis.adapters.opening import read_json
from soft_prompt_explorer.analysis.adapters.soft_prompt import check_task_type
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.late import one_at_a_time
from soft_prompt_explorer.analysis.core.words import printable

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel


@contextmanager
def injected(model, lora_config: LoraConfig, *, seed: int = 0) -> Iterator[PeftModel]:
    """The model with fresh factors: A drawn with the seed, B zero. Afterwards the model is as it was found.

    Raises
    ------
    InputError
        The model has no module of a name that is to be changed.
    """
    import torch

    with one_at_a_time():
        from peft import get_peft_model
        from transformers.pytorch_utils import Conv1D

    with learning_as_found(model), weights_as_found(model) if changes_base_weights(vars(lora_config)) else nullcontext():
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")  # PEFT 0.21.2 still asks for it
            torch.manual_seed(seed)
            try:
                peft_model = get_peft_model(model, lora_config)
            except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError, ImportError, re.error) as error:
                _take_out(model)
                if "arget modules" not in str(error):
                    raise InputError(f"PEFT cannot put a LoRA with such a config into the model: {_first_line(error)}") from error
                linear = (torch.nn.Linear, Conv1D)
                names = sorted({name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, linear)})
                raise InputError(
                    f"The modules {', '.join(sorted(lora_config.target_modules or ()))} are not all in the model; its linear ones are {', '.join(names)}."
                ) from error
        try:
            yield peft_model
        finally:
            peft_model.unload()


def _take_out(model) -> None:
    """The layers that PEFT had put in before it gave up, out again."""
    with one_at_a_time():
        from peft.tuners.tuners_utils import BaseTunerLayer

    for path, layer in list(model.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            owner, _, name = path.rpartition(".")
            setattr(model.get_submodule(owner), name, layer.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


@contextmanager
def weights_as_found(model) -> Iterator[None]:
    """PEFT takes the directions that some LoRAs start from off the weights that they change, and leaves it so; afterwards the weights are as before."""
    import torch

    found = [(parameter, parameter.detach().clone()) for parameter in model.parameters()]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, values in found:
                parameter.copy_(values)


@contextmanager
def learning_as_found(model) -> Iterator[None]:
    """PEFT takes every parameter of a model off those that learn; afterwards they learn or not as before."""
    found = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, learns in found:
            parameter.requires_grad_(learns)


@contextmanager
def applied(model, folder: Path) -> Iterator[None]:
    """The model with a saved LoRA in it: what calls `model` meanwhile calls it with the LoRA.

    Parameters
    ----------
    folder : as PEFT saves it, with safetensors; a pickle is not opened here.

    Raises
    ------
    InputError
        The folder is not such a one, or of another type, or its factors do not fit the model.
    """
    with one_at_a_time():
        from peft import LoraConfig
    from safetensors.numpy import load_file

    if not (folder / "adapter_config.json").is_file() or not (folder / "adapter_model.safetensors").is_file():
        raise InputError(f"The LoRA in {folder} is no PEFT folder with safetensors, which is what can be put into a model.")
    config = read_json(folder / "adapter_config.json")
    kind = config.get("peft_type")
    if kind != "LORA":
        raise InputError(
            f"The adapter in {folder} is of the type {str(kind)[:80]}, and only a LoRA can be put into a model here; spectra and lens read the others."
        )
    if config.get("alora_invocation_tokens"):
        raise InputError(
            f"The LoRA in {folder} acts only behind the tokens that invoke it (aLoRA), which no example here has; its spectra can be read."
        )
    if config.get("layer_replication"):
        raise InputError(
            f"The LoRA in {folder} repeats layers of the model (layer_replication), which is not done here; its spectra can be read."
        )
    try:
        lora_config = LoraConfig.from_pretrained(str(folder))
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
        raise InputError(f"PEFT cannot use the adapter_config.json in {folder}: {_first_line(error)}") from error
    check_task_type(config.get("task_type"), folder.name, lora_config.auto_mapping)
    lora_config.base_model_name_or_path = None  # PEFT warns where it is not the folder that this model was loaded from
    with applied_weights(model, lora_config, load_file(folder / "adapter_model.safetensors")):
        yield


@contextmanager
def applied_weights(model, lora_config: LoraConfig, weights: dict[str, np.ndarray]) -> Iterator[None]:
    """The same from memory, the weights by the names that PEFT saves them under."""
    import torch

    with one_at_a_time():
        from peft import set_peft_model_state_dict

    with injected(model, lora_config) as peft_model:
        tensors = {name: torch.from_numpy(np.array(array, dtype=np.float32)) for name, array in weights.items()}
        try:
            result: Any = set_peft_model_state_dict(peft_model, tensors)  # whose annotation names no fields
        except KeyError as error:
            raise InputError(
                f"The LoRA does not fit the model: the file lacks {_first_line(error)[:100]}, which its config promises."
            ) from error
        except RuntimeError as error:  # other shapes
            raise InputError(f"The LoRA does not fit the model: {str(error).splitlines()[-1].strip()}") from error
        missing = [name for name in result.missing_keys if "lora_" in name]
        if missing or result.unexpected_keys:
            raise InputError(
                f"The LoRA does not fit the model: {len(missing)} factors are missing and {len(result.unexpected_keys)} have no place in it."
            )
        peft_model.eval()
        yield


def _first_line(error: Exception) -> str:
    return printable((str(error).strip() or type(error).__name__).splitlines()[0])[:300]
