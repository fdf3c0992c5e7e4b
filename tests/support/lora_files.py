"""LoRAs of made-up factors, in a file as PEFT names them."""

import torch
from safetensors.torch import save_file

from soft_prompt_explorer.analysis.adapters import load_lora


def lora_file(path, modules: dict, *, alpha=None):
    """Save (A, B) of each module under PEFT's names; answers the adapter as it is read."""
    tensors = {}
    for module, (a, b) in modules.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.as_tensor(a).contiguous().clone()
        tensors[f"base_model.model.{module}.lora_B.weight"] = torch.as_tensor(b).contiguous().clone()
        if alpha is not None:
            tensors[f"base_model.model.{module}.alpha"] = torch.tensor(float(alpha))
    save_file(tensors, path)
    return load_lora(path)


def gaussian(out, inp, rank, rng, dtype=torch.float32):
    return tuple(torch.from_numpy(rng.standard_normal(shape)).to(dtype) for shape in ((rank, inp), (out, rank)))
