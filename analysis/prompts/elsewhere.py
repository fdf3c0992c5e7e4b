"""A soft prompt for other programs: PEFT, numpy, safetensors, vLLM and llama.cpp, with where it comes from in the file or beside it.

peft          a folder that PeftModel.from_pretrained loads: adapter_config.json and adapter_model.safetensors; initial.safetensors too where the start is known, which PEFT ignores
npy           (n, d) float32
safetensors   `prompt_embeddings` (n, d) float32, and `initial_embeddings` where the start is known
vllm          a tensor (n, d) of torch.save: what `prompt_embeds` takes, by itself offline and in base64 over HTTP (https://docs.vllm.ai/en/stable/features/prompt_embeds/)
llama.cpp     n · d float32 in little endian, row by row: what `llama_batch.embd` points to (llama.h)
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.export import write
from soft_prompt_explorer.analysis.core.folders import appears_whole
from soft_prompt_explorer.analysis.core.provenance import BESIDE, KEY, Provenance
from soft_prompt_explorer.analysis.core.words import listed

ENDINGS = {"peft": "", "npy": ".npy", "safetensors": ".safetensors", "vllm": ".pt", "llama.cpp": ".bin"}
WITH_TEXT = ("vllm", "llama.cpp")  # which take a whole input as rows
_IN_FRONT = ("peft", *WITH_TEXT)  # which put the rows before an input


def check_target(target: str, out: Path, *, text: str | None = None) -> None:
    """Refuse what cannot be written before anything is read.

    Raises
    ------
    InputError
        There is no such target, the file has another ending, or the target takes no text.
    """
    if target not in ENDINGS:
        raise InputError(f"A prompt is exported to {listed(list(ENDINGS), 'or')}, not to {target[:40]!r}.")
    ending = ENDINGS[target]
    if ending and out.suffix.lower() != ending:
        raise InputError(f"{out.name} does not end in {ending}, as a file for {target} does; give it that ending.")
    if text is not None and target not in WITH_TEXT:
        raise InputError(f"A text is put behind the rows for {listed(list(WITH_TEXT), 'and')} alone; give none for {target}.")


def export_prompt(prompt: SoftPrompt, target: str, out: Path, made: Provenance, *, behind: np.ndarray | None = None) -> None:
    """Write a prompt for another program.

    Parameters
    ----------
    target : of `ENDINGS`.
    out : a file with that ending; of PEFT a folder, which must not exist.
    behind : (t, d) input embeddings of a text that stand behind the prompt's rows, for the targets of `WITH_TEXT`.

    Raises
    ------
    InputError
        It holds several prompts or no input embeddings, stands for words where a prompt stands in front of them, or cannot be written.
    """
    prompt.check_is_one()
    prompt.check_is_embeddings()
    if target in _IN_FRONT and (prompt.kind != "soft_prompt" or prompt.method == "TRAINABLE_TOKENS"):
        raise InputError(
            f"{prompt.name} stands for words of its own and in front of no input, as {target} would put it; export it to npy or safetensors."
        )
    rows = np.ascontiguousarray(prompt.embeddings if behind is None else np.concatenate([prompt.embeddings, behind]), dtype="<f4")
    if target == "peft":
        _write_peft(prompt, rows, out, made)
        return
    if target != "safetensors":
        write(made.as_file(), out.with_name(out.name + BESIDE))
    write(_CONTENTS[target](prompt, rows, made), out)


def _write_peft(prompt: SoftPrompt, rows: np.ndarray, folder: Path, made: Provenance) -> None:
    config = {
        "base_model_name_or_path": prompt.base_model, "inference_mode": True, "num_transformer_submodules": 1, "num_virtual_tokens": len(rows),
        "peft_type": "PROMPT_TUNING", "prompt_tuning_init": "RANDOM", "task_type": "CAUSAL_LM", "token_dim": rows.shape[1],
    }  # fmt: skip
    files = {
        "adapter_config.json": (json.dumps(config, indent=2) + "\n").encode(),
        "adapter_model.safetensors": _tensors({"prompt_embeddings": rows}, made),
    }
    if prompt.initial is not None:
        files["initial.safetensors"] = _tensors({"initial": prompt.initial}, made)
    try:
        with appears_whole(folder) as partial:
            for name, content in files.items():
                (partial / name).write_bytes(content)
    except FileExistsError as error:
        raise InputError(f"{folder} exists; choose another folder for the prompt.") from error
    except OSError as error:
        raise InputError(f"The prompt cannot be written to {folder}: {error.strerror or error}.") from error


def _tensors(arrays: dict[str, np.ndarray], made: Provenance) -> bytes:
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(array, dtype=np.float32) for name, array in arrays.items()}, metadata={KEY: made.as_json()})


def _npy(prompt: SoftPrompt, rows: np.ndarray, made: Provenance) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, rows)
    return buffer.getvalue()


def _safetensors(prompt: SoftPrompt, rows: np.ndarray, made: Provenance) -> bytes:
    start = {} if prompt.initial is None else {"initial_embeddings": prompt.initial}
    return _tensors({"prompt_embeddings": rows} | start, made)


def _pt(prompt: SoftPrompt, rows: np.ndarray, made: Provenance) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(torch.from_numpy(rows.copy()), buffer)
    return buffer.getvalue()


def _bin(prompt: SoftPrompt, rows: np.ndarray, made: Provenance) -> bytes:
    return rows.tobytes()


_CONTENTS: dict[str, Callable[[SoftPrompt, np.ndarray, Provenance], bytes]] = {
    "npy": _npy,
    "safetensors": _safetensors,
    "vllm": _pt,
    "llama.cpp": _bin,
}
