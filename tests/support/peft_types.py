"""One adapter of every type that the installed PEFT can make, on a tiny Llama, as after training."""

from pathlib import Path

import peft
import torch
from peft import PeftConfig, PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

TARGETS = ["q_proj", "down_proj"]
TOKENS = 4
TYPES = sorted(kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING)

_ON_MODULES = {"target_modules": TARGETS, "task_type": "CAUSAL_LM"}
_TOKENS = {"num_virtual_tokens": TOKENS, "task_type": "CAUSAL_LM"}
# What each type is asked for, small enough for a model 16 wide. A type that is not here has no test, which fails by its name.
OPTIONS: dict[str, dict] = {
    "PROMPT_TUNING": _TOKENS,
    "MULTITASK_PROMPT_TUNING": _TOKENS | {"num_tasks": 2},
    "P_TUNING": _TOKENS | {"encoder_hidden_size": 12},
    "PREFIX_TUNING": _TOKENS,
    "CARTRIDGE": _TOKENS | {"num_frozen_tokens": 1},
    "CPT": {"cpt_token_ids": [9, 4, 11], "cpt_mask": [1] * 3, "cpt_tokens_type_mask": [1, 2, 2], "task_type": "CAUSAL_LM"},
    "ADAPTION_PROMPT": {"adapter_len": 3, "adapter_layers": 2, "task_type": "CAUSAL_LM"},
    "TRAINABLE_TOKENS": {"token_indices": [3, 7, 5], "task_type": "CAUSAL_LM"},
    "LORA": _ON_MODULES | {"r": 3, "lora_alpha": 7},
    "ADALORA": _ON_MODULES | {"init_r": 5, "lora_alpha": 7, "total_step": 10},
    "ADAMSS": _ON_MODULES | {"r": 6, "num_subspaces": 3, "subspace_rank": 2},
    "BEFT": _ON_MODULES,
    "BOFT": _ON_MODULES | {"boft_block_size": 4},
    "C3A": _ON_MODULES | {"block_size": 8},
    "DEFT": _ON_MODULES | {"r": 3, "alpha": 5},
    "DELORA": _ON_MODULES | {"r": 3},
    "FOURIERFT": _ON_MODULES | {"n_frequency": 20},
    "FROD": _ON_MODULES,
    "GLORA": _ON_MODULES | {"r": 3},
    "GRALORA": _ON_MODULES | {"r": 4, "alpha": 7, "gralora_k": 2, "hybrid_r": 1},
    "HIRA": _ON_MODULES | {"r": 3},
    "HRA": _ON_MODULES | {"r": 3},
    "IA3": _ON_MODULES | {"feedforward_modules": ["down_proj"]},
    "LILY": _ON_MODULES | {"r": 3, "num_B": 2, "stride_A": 1, "scaling": 1.5},
    "LN_TUNING": {"task_type": "CAUSAL_LM"},
    "LOHA": _ON_MODULES | {"r": 2, "alpha": 7},
    "LOKR": _ON_MODULES | {"r": 2, "alpha": 7},
    "MISS": _ON_MODULES | {"r": 4},
    "OFT": _ON_MODULES | {"oft_block_size": 4},
    "OSF": _ON_MODULES | {"effective_rank": 5},
    "PEANUT": _ON_MODULES | {"r": 5, "depth": 2},
    "POLY": _ON_MODULES | {"r": 3, "n_tasks": 2, "n_skills": 3, "n_splits": 2},
    "PSOFT": _ON_MODULES | {"r": 4},
    "PVERA": _ON_MODULES | {"r": 6},
    "RANDLORA": _ON_MODULES | {"r": 5},
    "ROAD": _ON_MODULES | {"group_size": 4},
    "SHIRA": _ON_MODULES | {"r": 2},
    "SHADOW": _ON_MODULES,
    "SUPERTUNING": _ON_MODULES | {"sparsity": 0.9, "r": 2, "lora_alpha": 5},
    "TINYLORA": _ON_MODULES | {"r": 2, "u": 6, "weight_tying": 0.5},
    "UNILORA": _ON_MODULES | {"r": 3, "theta_d_length": 40, "save_indices": True},
    "VBLORA": _ON_MODULES | {"r": 2, "vector_length": 8, "num_vectors": 12, "topk": 3},
    "VERA": _ON_MODULES | {"r": 6},
    "WAVEFT": _ON_MODULES | {"n_frequency": 20},
}


def config_of(kind: str, **options) -> PeftConfig:
    return PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(kind)](**OPTIONS[kind] | options)


def made(model, kind: str, folder: Path, **options) -> PeftModel:
    """PEFT's model with an adapter whose every parameter was moved, saved into the folder."""
    torch.manual_seed(5)
    peft_model = get_peft_model(model, config_of(kind, **options)).eval()
    moved(peft_model)
    peft_model.save_pretrained(folder, save_embedding_layers=False)
    return peft_model


def moved(peft_model) -> None:
    generator = torch.Generator().manual_seed(6)
    for parameter in peft_model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def mixture_of_loras(load, folder: Path) -> None:
    """An X-LoRA over two LoRAs, as PEFT saves it: the router alone."""
    for i in range(2):
        made(load(), "LORA", folder.parent / f"lora-{i}")
    model = load()
    model.config.use_cache = False
    adapters = {str(i): str(folder.parent / f"lora-{i}") for i in range(2)}
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType.XLORA]
    get_peft_model(model, kind(task_type="CAUSAL_LM", hidden_size=16, xlora_depth=1, adapters=adapters)).save_pretrained(folder)


# Types that compute with float32 whatever they are given, in the base weight's decomposition or in a transform.
IN_FLOAT32 = ("ADAMSS", "FROD", "OSF", "PSOFT", "TINYLORA")


def merged(load, kind: str, folder: Path) -> dict[str, torch.Tensor]:
    """What PEFT's own merge of a saved adapter adds to each weight, float64."""
    precision = torch.float32 if kind in IN_FLOAT32 else torch.float64
    before = {name: weight.detach().double() for name, weight in load().named_parameters()}
    base = load().double().to(precision)  # in memory of torch's own: a decomposition's last digits depend on where a file's weights begin
    model = PeftModel.from_pretrained(base, folder, autocast_adapter_dtype=False).to(precision)
    after = {name: weight.detach().double() for name, weight in model.merge_and_unload().named_parameters()}
    return {name: after[name] - before[name] for name in before if not torch.equal(after[name], before[name])}


def answers(model: PeftModel, module: str, **inputs) -> torch.Tensor:
    """(in, out): what one of PEFT's layers adds to its module's output for each unit vector; for types that it cannot merge."""
    layer = model.base_model.model.get_submodule(module)
    units = torch.eye(layer.in_features)
    with torch.no_grad():
        return (torch.cat([layer(unit[None, None], **inputs)[0] for unit in units]) - layer.get_base_layer()(units)).double()
