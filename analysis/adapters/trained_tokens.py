"""Rows of the vocabulary that were trained anew, of tokens that the base model has: PEFT's TRAINABLE_TOKENS, alone or beside a LoRA."""

from __future__ import annotations

import re

from soft_prompt_explorer.analysis.adapters.opening import Opened
from soft_prompt_explorer.analysis.adapters.soft_prompt import SoftPrompt, left_out, prompt_rows
from soft_prompt_explorer.analysis.core.errors import AdapterError
from soft_prompt_explorer.analysis.models.tensor_names import EMBEDDING_NAMES

METHOD = "TRAINABLE_TOKENS"
_ROWS = re.compile(r"base_model\.model\.(?P<module>.+?)(?:\.token_adapter)?\.trainable_tokens_delta(?:\.default)?")


def tensors_of(opened: Opened) -> dict[str, str]:
    """The tensors of trained rows by the path of the embeddings or the head that they stand in, the input's first."""
    found = {match["module"]: name for name in opened.tensors if len(name) < 1000 and (match := _ROWS.fullmatch(name)) is not None}
    return dict(sorted(found.items(), key=lambda item: not _is_input(item[0])))


def _is_input(module: str) -> bool:
    return any(f".{module}.weight".endswith(f".{name}") for name in EMBEDDING_NAMES)


def read(opened: Opened, name: str) -> SoftPrompt:
    """The rows of the input embeddings, and in the metadata the tokens that they are of.

    Raises
    ------
    AdapterError
        It holds none, or as many as the config lists no tokens.
    """
    found = tensors_of(opened)
    config = opened.config or {}
    if not found:
        raise AdapterError(
            f"The file {opened.tensors.path} holds {opened.tensors.listing()} and no trainable_tokens_delta, which its config promises."
        )
    module, tensor = next(iter(found.items()))
    rows = prompt_rows(opened.tensors, tensor, what="rows of tokens")
    ids = _ids(config, module)
    if ids is not None and len(ids) != len(rows):
        raise AdapterError(
            f"The file {opened.tensors.path} holds the rows of {len(rows)} tokens and its config lists {len(ids)}; one of the two belongs to another adapter."
        )
    shown = "" if ids is None else " " + ", ".join(str(i)[:20] for i in ids[:8]) + (" and more" if len(ids) > 8 else "")
    notes = [f"rows of {module[:80]} trained anew, of the base model's tokens{shown}; they stand in front of nothing"]
    if not _is_input(module):
        notes.append("they stand in no input embeddings that are known")
    elsewhere = list(found)[1:]
    if elsewhere:
        notes.append(f"also holds rows of {', '.join(each[:80] for each in elsewhere[:3])}, which are left out")
    base_model = config.get("base_model_name_or_path")
    return SoftPrompt(
        name,
        rows,
        initial=None,
        base_model=base_model if isinstance(base_model, str) and base_model else None,
        method=METHOD,
        source=opened.source(tensor),
        metadata={key: value for key, value in config.items() if key not in ("initial", "token_indices")}
        | ({} if ids is None else {"token_indices": ids}),
        notes=(*notes, *(left_out(opened.tensors, set(found.values())) if config.get("peft_type") == METHOD else ())),
    )


def _ids(config: dict, module: str) -> list | None:
    """The tokens that the config lists for a module: one list for all, or one for each module by the end of its path."""
    listed = config.get("token_indices") if config.get("peft_type") == METHOD else config.get("trainable_token_indices")
    if isinstance(listed, dict):
        listed = next((ids for key, ids in listed.items() if f".{module}".endswith(f".{key}")), None)
    return listed if isinstance(listed, list) else None
