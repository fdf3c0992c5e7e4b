"""Held-out scores of a run that has just been recorded."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import pandas as pd

from soft_prompt_explorer.analysis.asking.in_front import Adapted, with_lora, with_prefix, with_prompt
from soft_prompt_explorer.analysis.asking.scores import Ready, evaluate_all
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.models.weights import LanguageModel

if TYPE_CHECKING:
    from soft_prompt_explorer.trained_prompts.runs.recording import Recording


def evaluate_run(
    recording: Recording, *, language_model: LanguageModel, limit: int | None = None, report: Report = no_report
) -> pd.DataFrame:
    """Held-out scores before and after training: rows `no prompt`, `initial values` (of a prompt) and `trained`; of a LoRA as it is kept, in 16 bits."""
    prompts: list[tuple[str, Ready | None]] = [("no prompt", None)]
    if (initial := recording.initial) is not None:
        prompts.append(("initial values", lambda: nullcontext(with_prompt(language_model, initial))))
    prompts.append(("trained", lambda: recorded(recording, language_model)))
    return evaluate_all(prompts, recording.config.asked_task(), language_model, limit, report)


def recorded(recording: Recording, language_model: LanguageModel) -> AbstractContextManager[Adapted]:
    """The model as a run has left it, as long as the block lasts."""
    from soft_prompt_explorer.analysis.asking.lora import applied_weights
    from soft_prompt_explorer.trained_prompts.training import lora

    if recording.embeddings is not None:
        return nullcontext(with_prompt(language_model, recording.embeddings))
    if recording.weights is None:  # trained whole
        return nullcontext(Adapted(recording.model, language_model.tokenizer))
    if recording.config.method == "lora":
        return with_lora(language_model, applied_weights(language_model.model, lora.config_of(recording.config), recording.weights))
    return nullcontext(with_prefix(language_model, recording.weights["prompt_embeddings"]))
