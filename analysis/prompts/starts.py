"""Where a prompt's training started: from another file's rows, from the words that its config spells, or as its nearest words tell.

A reading without the start misleads: most tokens still stand nearest to the word that they started from. A file seldom holds its start, but
PEFT's config often spells the text, or lists the token ids, that the rows were taken from. Nothing is fetched to find out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.core.discoveries import q_values
from soft_prompt_explorer.analysis.core.errors import InputError, ModelError
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.core.words import printable
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_ALIASES
from soft_prompt_explorer.analysis.models.names import is_at_hand, is_hub_id
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.models.weights import load_tokenizer
from soft_prompt_explorer.analysis.prompts.null import null_of, p_as_word
from soft_prompt_explorer.analysis.prompts.search import nearest

INITIAL = "initial"  # in a prompt's metadata: how its initial values were found out, where no file holds them
RECOVERED, FROM_TEXT, FROM_IDS = "recovered", "from the config's text", "from the config's token ids"
_LISTS_IDS = {"CPT": "cpt_token_ids", "TRAINABLE_TOKENS": "token_indices"}  # where PEFT's config lists the tokens whose rows were the start
LEVEL = 0.05
MAX_TEXT = 100_000  # characters


def mark_of(prompt: SoftPrompt) -> str:
    """What is added to every verdict that rests on initial values which no file holds: ` (recovered)`; nothing where a file does."""
    found = prompt.metadata.get(INITIAL)
    return f" ({found})" if found in (RECOVERED, FROM_TEXT, FROM_IDS) and prompt.initial is not None else ""


def plain_verdict(verdict: str) -> str:
    """A verdict without such a mark.

    >>> plain_verdict("echo (from the config's text)")
    'echo'
    """
    return verdict.partition(" (")[0]


def start_from_config(prompt: SoftPrompt, vocabulary: Vocabulary) -> SoftPrompt:
    """The prompt with the rows that its config names as initial values, where it names any and they are not known already.

    PEFT's prompt tuning takes the rows of `prompt_tuning_init_text`, tokenised with the special tokens that the tokenizer adds, repeated and cut to the
    number of virtual tokens, over the encoder's and the decoder's together; its CPT takes those of `cpt_token_ids`, and trained
    tokens start as their own rows. Give the whole prompt, before `split`.

    Returns
    -------
    The prompt with initial values, marked in its metadata (see `mark_of`); as it was where its config names no start; with one note more that
    says why where it names one that cannot be told, for instance because the tokenizer is not on this machine.
    """
    if prompt.initial is not None or prompt.kind != "soft_prompt" or prompt.width != vocabulary.width:
        return prompt
    try:
        found = _config_ids(prompt, vocabulary)
    except InputError as error:
        return replace(prompt, notes=(*prompt.notes, str(error)))
    if found is None:
        return prompt
    ids, mark = found
    return replace(prompt, initial=np.array(vocabulary.embeddings[ids], dtype=np.float32), metadata=prompt.metadata | {INITIAL: mark})


def names_start(prompt: SoftPrompt) -> bool:
    """Whether the prompt's config spells the text or lists the tokens that it started from."""
    return _text(prompt) is not None or _listed_ids(prompt) is not None


def recover_initial(prompt: SoftPrompt, vocabulary: Vocabulary, *, report: Report = no_report) -> SoftPrompt:
    """The prompt with its nearest vocabulary rows as initial values, where most tokens are nearer to a word than chance allows.

    A prompt trained from vocabulary rows echoes them, so for its echoes these are the initial values. For a token that started elsewhere they
    are not, which is why everything that rests on them is marked as recovered.

    Raises
    ------
    InputError
        Fewer than half of the tokens beat chance: it was not initialised from words, or has left them.
    """
    prompt.check_width(vocabulary.width, vocabulary.model)
    ids, scores = nearest(prompt.embeddings, vocabulary, top_k=1)
    null = null_of(vocabulary, report=report)
    p_chance = np.maximum(null.p_drawn(scores[:, 0]), p_as_word(prompt.embeddings, ids[:, 0], vocabulary, null))  # as `readings` tells it
    near = int((q_values(p_chance) < LEVEL).sum())
    if 2 * near <= len(prompt):
        raise InputError(
            f"The initial values of {prompt.name} cannot be recovered: only {near} of its {len(prompt)} tokens are nearer to a word than chance allows; "
            "give the file that holds them."
        )
    initial = np.ascontiguousarray(vocabulary.embeddings[ids[:, 0]])
    return replace(prompt, initial=initial, metadata=prompt.metadata | {INITIAL: RECOVERED})


def split_from(prompt: SoftPrompt, initial: SoftPrompt) -> list[SoftPrompt]:
    """`prompt.split()`, each part with its own rows of another file as initial values.

    Where the prompt has several tasks and the file has too, each task starts from its product of the file's rows and factors. From a file of rows
    alone only the shared rows' start is known.

    Parameters
    ----------
    initial : the same prompt before training.

    Raises
    ------
    InputError
        It cannot be what this prompt started from: another shape, other parts or tasks, another model, or another kind of adapter.
    """
    _check_can_be_start(prompt, initial)
    metadata = {key: value for key, value in prompt.metadata.items() if key != INITIAL}
    parts = replace(prompt, initial=initial.embeddings, metadata=metadata).split()
    if initial.task_factors is None:
        return parts
    starts = replace(initial, parts=prompt.parts).split()  # a file of bare rows does not tell the encoder's from the decoder's
    return [replace(part, initial=start.embeddings) for part, start in zip(parts, starts, strict=True)]


def _check_can_be_start(prompt: SoftPrompt, initial: SoftPrompt) -> None:
    initial.check_is_embeddings()
    wanted = "give the values that this very prompt started from"
    if initial.embeddings.shape != prompt.embeddings.shape:
        raise InputError(
            f"The initial values in {initial.name} have the shape {initial.embeddings.shape} and {prompt.name} has {prompt.embeddings.shape}; {wanted}."
        )
    if initial.parts and initial.parts != prompt.parts:
        raise InputError(
            f"The initial values in {initial.name} have the parts {_parts(initial)} and {prompt.name} has {_parts(prompt)}; {wanted}."
        )
    if initial.task_factors is not None and (prompt.task_factors is None or prompt.task_factors.shape != initial.task_factors.shape):
        tasks = 0 if prompt.task_factors is None else len(prompt.task_factors)
        raise InputError(
            f"The initial values in {initial.name} are of {len(initial.task_factors)} tasks and {prompt.name} is of {tasks or 'none'}; {wanted}."
        )
    models = [None if each.base_model is None else _one_name(each.base_model) for each in (prompt, initial)]
    if None not in models and models[0] != models[1]:
        raise InputError(f"The initial values in {initial.name} are of {models[1]} and {prompt.name} was trained on {models[0]}; {wanted}.")
    if prompt.kind != initial.kind:
        raise InputError(f"The initial values in {initial.name} are a {initial.kind} and {prompt.name} is a {prompt.kind}; {wanted}.")


def _parts(prompt: SoftPrompt) -> str:
    return " and ".join(f"{part} ({rows})" for part, rows in prompt.parts) or "none"


def _one_name(model: str) -> str:
    return min(EMBEDDED_ALIASES) if model in EMBEDDED_ALIASES else model


# --- What a config says ----------------------------------------------------------------------------------------------


def _text(prompt: SoftPrompt) -> str | None:
    """The text that PEFT took the rows of; one that stands there unused is none."""
    text = prompt.metadata.get("prompt_tuning_init_text")
    used = str(prompt.metadata.get("prompt_tuning_init", "")).upper().rpartition(".")[2] == "TEXT"
    return text if used and isinstance(text, str) and text else None


def _listed_ids(prompt: SoftPrompt) -> list | None:
    key = _LISTS_IDS.get(prompt.method or "")
    ids = prompt.metadata.get(key) if key is not None and prompt.metadata.get("init_weights") is not False else None
    return ids if isinstance(ids, list) and ids else None


def _config_ids(prompt: SoftPrompt, vocabulary: Vocabulary) -> tuple[np.ndarray, str] | None:
    """The token id that each row started from, (n,), and how that is known; None where the config names none.

    Raises
    ------
    InputError
        It names some, and they cannot be told.
    """
    n, listed, text = len(prompt), _listed_ids(prompt), _text(prompt)
    if listed is not None:
        if len(listed) != n:
            raise InputError(f"the config lists {len(listed)} {_LISTS_IDS[prompt.method or '']} for {n} rows, so its start cannot be told")
        return _checked(listed, vocabulary), FROM_IDS
    if text is None:
        return None
    ids = _tokenised(text, prompt, vocabulary)
    return _checked([ids[i % len(ids)] for i in range(n)], vocabulary), FROM_TEXT


def _checked(ids: Sequence, vocabulary: Vocabulary) -> np.ndarray:
    bad = [i for i in ids if type(i) is not int or not 0 <= i < len(vocabulary)]
    if bad:
        raise InputError(
            f"the config names the token {str(bad[0])[:20]}, which is none of {vocabulary.model}'s {len(vocabulary):,}, so its start cannot be told"
        )
    return np.array(ids, dtype=np.int64)


def _tokenised(text: str, prompt: SoftPrompt, vocabulary: Vocabulary) -> list[int]:
    """The text as PEFT tokenises it: by the tokenizer that the config names, as it comes, special tokens and all."""
    if len(text) > MAX_TEXT or prompt.metadata.get("tokenizer_kwargs"):
        raise InputError("the config's text is tokenised in a way of its own, so its start cannot be told")
    if not text.isascii() and text != text.encode("utf-8", "replace").decode():
        raise InputError("the config's text holds what is no character, so its start cannot be told")
    named, model = prompt.metadata.get("tokenizer_name_or_path"), vocabulary.model
    known = {_one_name(prompt.base_model or model), _one_name(model)}
    if (
        isinstance(named, str) and is_hub_id(named) and _one_name(named) not in known
    ):  # of a path, which is not followed, the model's own stands in
        if not is_at_hand(named):
            raise InputError(
                f"the config spells the text that it started from, and its tokenizer {printable(named)} is not on this machine, so its start cannot be told"
            )
        model = named
    try:
        ids = load_tokenizer(model)(text)["input_ids"]
    except ModelError as error:
        raise InputError(f"the config spells the text that it started from, which cannot be tokenised: {str(error).rstrip('.')}") from error
    except ModuleNotFoundError as error:  # the reading half alone is installed
        raise InputError(
            f"the config spells the text that it started from, which {error.name} tokenises, and that is not installed"
        ) from error
    if not ids:
        raise InputError("the config's text holds no token, so its start cannot be told")
    return ids
