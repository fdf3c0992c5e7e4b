"""The formats of adapters, one record each, in the order in which they are asked. docs/formats.md is made from them.

What is around an adapter, a folder, a zip or a tar, is opened before (`opening.py`): these are told by the tensors and the words beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from soft_prompt_explorer.analysis.adapters import bare, delta_names, lora_names, others, peft, textual_inversion
from soft_prompt_explorer.analysis.adapters.lora import LoraAdapter
from soft_prompt_explorer.analysis.adapters.opening import Opened
from soft_prompt_explorer.analysis.adapters.soft_prompt import SoftPrompt


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format.

    Attributes
    ----------
    name : what it is told by.
    says : what is read of it, a kind of adapter each.
    source : who writes it.
    reads : whether what was opened is of it, by the names and shapes of its tensors.
    read : the adapter, with this name.
    """

    name: str
    says: tuple[str, ...]
    source: str
    reads: Callable[[Opened], bool]
    read: Callable[[Opened, str], SoftPrompt | LoraAdapter]


FORMATS = (
    Format(
        name="PEFT's config, beside safetensors or `.bin`",
        says=(
            "prompt tuning, p-tuning, the two halves of an encoder-decoder",
            "multitask prompt tuning: the shared rows and each task's product; CPT, whose start its config lists",
            "prefix tuning and Cartridge, as keys and values; a LLaMA-Adapter, as prompts of its layers: never read as words",
            "trained tokens, alone or beside a LoRA: rows of the vocabulary that started as they were",
            "LoRA with rsLoRA, DoRA, KaSA, BD-LoRA, rank and alpha patterns; embedding adapters; experts, a module each; replicated layers; several adapters in one file; biases, PiSSA, OLoRA and `modules_to_save` are noted",
            "every other type that changes weights, through its ΔW (below)",
        ),
        source="[PEFT](https://github.com/huggingface/peft)",
        reads=peft.reads,
        read=peft.read,
    ),
    Format(
        name="the parts of a ΔW, without PEFT's config",
        says=("LoHa, LoKr and AdaLoRA, as PEFT and LyCORIS name them; LyCORIS's full differences",),
        source="[LyCORIS](https://github.com/KohakuBlueleaf/LyCORIS), PEFT",
        reads=delta_names.reads,
        read=delta_names.read,
    ),
    Format(
        name="the two factors of a LoRA, without PEFT's config",
        says=(
            "PEFT's naming; MLX (its old `.npz` too), llama.cpp (GGUF), loralib, lit-gpt, torchtune, XLabs, NeMo and AdapterHub",
            "of image models kohya's naming (convolutions too), diffusers' old and new, cloneofsimo's, its lists too",
        ),
        source="each trainer's own names, which `inspect` tells",
        reads=lora_names.reads,
        read=lora_names.read,
    ),
    Format(
        name="new words of a text encoder",
        says=("textual inversion, alone or beside a LoRA, SDXL's two embeddings as two prompts",),
        source="[textual inversion](https://github.com/rinongal/textual_inversion), diffusers",
        reads=textual_inversion.reads,
        read=textual_inversion.read,
    ),
    Format(
        name="keys, values and queries",
        says=("P-tuning v2's prefix, LLaMA-Adapter's prompts and BLIP-2's query tokens: never read as words",),
        source="the papers' own code",
        reads=others.reads,
        read=others.read,
    ),
    Format(
        name="an array, with no word on what it is",
        says=(
            "NumPy, safetensors or `torch.save`: an array of (tokens, width), (1, tokens, width) or (width); a dictionary with one",
            "many prompts, a part each: a dictionary or a list of arrays, a stack of (prompts, tokens, width), an `.npz`; a start beside the prompt (`initial_embeddings`)",
            "a training checkpoint with the prompt inside; `encoder.pt` with `decoder.pt`",
            "PEFT's prompts without their config; the prompts of NeMo and AdapterHub; CoOp (one prompt a class too), and the context of CoCoOp and MaPLe",
            "16, 32 and 64 bits, bfloat16, tensors of a GPU",
        ),
        source="[google-research/prompt-tuning](https://github.com/google-research/prompt-tuning), and whoever saves an array",
        reads=bare.reads,  # the last to be asked: it says what is missing
        read=bare.read,
    ),
)
