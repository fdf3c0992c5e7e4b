"""What is neither a soft prompt nor a LoRA, known by the names of its tensors, and read or told for what it is.

Keys and values, the queries of another network, classification heads and a model's own weights are matrices too, some as wide as a model's
embeddings; read as virtual tokens they would get neighbours that mean nothing.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from soft_prompt_explorer.analysis.adapters.bare import PROMPT_NAMES
from soft_prompt_explorer.analysis.adapters.lora_names import natural
from soft_prompt_explorer.analysis.adapters.opening import Opened
from soft_prompt_explorer.analysis.adapters.soft_prompt import MAX_PROMPTS, MAX_VALUES, SoftPrompt, left_out, prompt_rows
from soft_prompt_explorer.analysis.adapters.tensors import Tensors
from soft_prompt_explorer.analysis.core.errors import AdapterError
from soft_prompt_explorer.analysis.core.remedies import MODEL, Remedy
from soft_prompt_explorer.analysis.core.words import printable


class Other(NamedTuple):
    """`what` it is, told by a tensor of that name, and what to `do` about it, with a `remedy` where something is to be given."""

    pattern: re.Pattern
    what: str
    do: str
    remedy: Remedy | None = None


def _other(pattern: str, what: str, do: str, remedy: Remedy | None = None) -> Other:
    return Other(re.compile(rf"(?:.*\.)?(?:{pattern})"), what, do, remedy)


_LORA = "convert it to PEFT's layout (lora_A (r, in), lora_B (out, r), adapter_config.json), or with the trainer's own export"
OTHERS = (
    _other(
        r"prefix_encoder\.(?:trans|mlp|control_trans)\..+",
        "the encoder that makes a prefix's keys and values (P-tuning v2 with a projection), not the prefix itself",
        "run the encoder once over all positions and save its output, (tokens, layers × 2 × width), as prefix_encoder.embedding.weight",
    ),
    _other(
        r"adapter_query(?:\.weight)?|adaption_prompt|adaption_gate|adapter_wte\.weight|gating_factor",
        "a LLaMA-Adapter: prompts that each layer's attention takes as further keys and values behind a gate, no input embeddings",
        "use it with the model that it was trained for; its rows have no nearest words",
    ),
    _other(
        r"query_tokens|qformer\..+|Qformer\..+|(?:resampler|perceiver\w*)\.(?:query|queries|latents)|learned_queries",
        "the queries of a Q-Former or resampler, which ask an image encoder and are no input embeddings of a language model",
        "give what the language model receives instead, the projected output for one image",
    ),
    _other(r"\S+\.lora_[AB]\.\d+", "a LoRA with its factors in numbered pieces (lora_A.0, lora_B.0)", _LORA),
    _other(r"\S+\.on_input", "LyCORIS's IA³, which multiplies activations and has no thin factors", "use it with LyCORIS"),
    _other(r"deep_prompt_embeddings|compound_prompts?_\w+(?:\.\d+)?", "prompts of an encoder's deeper layers, no input embeddings of a language model", "use it with the model that it was trained for"),
    _other(
        r"(?:classifier|score|classification_head|qa_outputs|cls|v_head|value_head|reward_head|summary|pooler|logits_proj)(?:\.\w+)*\.(?:weight|bias)",
        "the head of a classification or regression model, whose rows are classes and no virtual tokens",
        "give the file of the prompt or LoRA that was trained with it",
    ),
    _other(
        r"(?:word_embeddings|embed_tokens|wte|wpe|token_embd|tok_embeddings|position_embeddings|token_embedding|position_embedding)(?:\.weight)?",
        "a model's own embeddings, the rows of its vocabulary or positions",
        "name the model",
        MODEL.then(", and give the prompt's file"),
    ),
    Other(  # of PEFT's own names, `bare` says that their config is missing
        re.compile(
            r"(?!base_model\.model\.)(?:.*\.)?(?:(?:layers?|h|blocks?|resblocks)\.\d+\.\S+|"
            r"(?:vision_model|vision_tower|visual|image_encoder|text_encoder)\.\S+)"
        ),
        "weights of a model or of an encoder's layers",
        "give the prompt or LoRA alone, not the model",
    ),
)  # fmt: skip
_PREFIX = re.compile(r"(?:.*\.)?prefix_encoder\.embedding\.weight")
_PROMPT = re.compile(rf"(?:.*\.)?(?:{'|'.join(PROMPT_NAMES)})")
_QUERIES = re.compile(r"(?:.*\.)?(?:query_tokens|(?:resampler|perceiver\w*)\.(?:query|queries|latents)|learned_queries)")
# LLaMA-Adapter's own file has the rows of all its layers in one; PEFT's and lit-gpt's a tensor a layer.
_ADAPTER_QUERY = re.compile(r"(?:.*\.)?adapter_query(?:\.weight)?")
_ADAPTER_LAYER = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.(?:adaption_prompt|adapter_wte\.weight)")
_GATE = re.compile(r"(?:.*\.)?layers\.\d+\.attention\.gate\d*")
_MOST = 1000  # characters of a name that is looked at


def reads(opened: Opened) -> bool:
    if opened.halves or any(len(name) < _MOST and _PROMPT.fullmatch(name) for name in opened.tensors):
        return False
    return _prefix(opened.tensors) is not None or other_in(opened.tensors) is not None


def read(opened: Opened, name: str) -> SoftPrompt:
    """A prefix of P-tuning v2, the prompts of a LLaMA-Adapter, or the queries of a Q-Former; everything else is refused in a sentence that names it."""
    tensors = opened.tensors
    layers = _layers(tensors)
    if layers:
        return _adaption_prompt(opened, name, layers)
    queries = _named(tensors, _QUERIES)
    if len(queries) == 1:
        return SoftPrompt(
            name,
            prompt_rows(tensors, queries[0], what="queries"),
            initial=None,
            base_model=None,
            method=None,
            source=opened.source(queries[0]),
            metadata=opened.metadata | tensors.metadata,
            kind="queries",
            notes=("the queries of a Q-Former or resampler, which ask an image encoder, not input embeddings", *left_out(tensors, queries)),
        )
    found, other = _prefix(tensors), other_in(tensors)
    if found is None and other is not None:
        example = next(each for each in tensors if len(each) < _MOST and other.pattern.fullmatch(each))
        sentence = f"The file {tensors.path} holds {other.what} ({printable(example)[:80]}); {other.do}"
        raise AdapterError(sentence if other.remedy else f"{sentence}.", remedy=other.remedy)
    assert found is not None  # or `reads` would have said no
    rows = prompt_rows(tensors, found, what="a prefix's rows")
    return SoftPrompt(
        name,
        rows,
        initial=None,
        base_model=None,
        method="PREFIX_TUNING",
        source=opened.source(found),
        metadata=opened.metadata | tensors.metadata,
        kind="prefix",
        notes=("keys and values of every layer (P-tuning v2), not input embeddings", *left_out(tensors, {found})),
    )


def _adaption_prompt(opened: Opened, name: str, layers: dict[str, str]) -> SoftPrompt:
    """A LLaMA-Adapter (Zhang et al. 2023): its layers' rows, a part each where the file tells which are whose."""
    tensors = opened.tensors
    if len(layers) > MAX_PROMPTS or sum(tensors.entries[each].values for each in layers.values()) > MAX_VALUES:
        raise AdapterError(f"The prompts in {tensors.path} hold more than {MAX_VALUES:,} values together; the file is damaged.")
    rows = [prompt_rows(tensors, each, what="a layer's prompts") for each in layers.values()]
    if len({each.shape[1] for each in rows}) > 1:
        raise AdapterError(f"The prompts in {tensors.path} are not equally wide in all layers; the file is damaged.")
    parts = tuple((module, len(each)) for module, each in zip(layers, rows, strict=True))
    gates = len(_named(tensors, _GATE))
    if len(rows) == 1 and gates > 1 and len(rows[0]) % gates == 0:
        parts = tuple((f"layer {i} of {gates}", len(rows[0]) // gates) for i in range(gates))
    return SoftPrompt(
        name,
        np.concatenate(rows),
        initial=None,
        base_model=None,
        method="ADAPTION_PROMPT",
        source=opened.source(next(iter(layers.values()))),
        metadata=opened.metadata | tensors.metadata,
        kind="adaption_prompt",
        parts=parts if len(parts) > 1 else (),
        notes=(
            "prompts of a LLaMA-Adapter, which each layer's attention takes behind a gate, not input embeddings",
            *left_out(tensors, layers.values()),
        ),
    )


def _layers(tensors: Tensors) -> dict[str, str]:
    """The tensors of a LLaMA-Adapter's prompts by their layer's path; the one of all layers under its own name."""
    whole = _named(tensors, _ADAPTER_QUERY)
    if len(whole) == 1:
        return {whole[0]: whole[0]}
    found = {match["module"]: name for name in tensors if len(name) < _MOST and (match := _ADAPTER_LAYER.fullmatch(name)) is not None}
    return {printable(module)[:200]: found[module] for module in sorted(found, key=natural)}


def _named(tensors: Tensors, pattern: re.Pattern) -> list[str]:
    return [name for name in tensors if len(name) < _MOST and pattern.fullmatch(name)]


def other_in(tensors: Tensors) -> Other | None:
    """The first of `OTHERS` that a tensor's name tells of."""
    names = [name for name in tensors if len(name) < _MOST]
    return next((other for other in OTHERS if any(other.pattern.fullmatch(name) for name in names)), None)


def _prefix(tensors: Tensors) -> str | None:
    """The tensor that holds a prefix, where no encoder stands between it and the model."""
    if any(OTHERS[0].pattern.fullmatch(name) for name in tensors if len(name) < _MOST):
        return None
    return next((name for name in tensors if len(name) < _MOST and _PREFIX.fullmatch(name)), None)
