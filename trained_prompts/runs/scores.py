"""Held-out scores of a run that has just been recorded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pandas as pd

from soft_prompt_explorer.analysis.asking.in_front import Subject, bare, subject_of, with_prefix, with_prompt
from soft_prompt_explorer.analysis.asking.scores import evaluate_all
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.models.weights import LanguageModel

if TYPE_CHECKING:
    from soft_prompt_explorer.trained_prompts.runs.recording import Recording


def evaluate_run(
    recording: Recording, *, language_model: LanguageModel, limit: int | None = None, report: Report = no_report
) -> pd.DataFrame:
    """Held-out scores before and after training: rows `no prompt`, `initial values` (of a prompt) and `trained`; of a LoRA as it is kept, in 16 bits."""
    subjects = [("trained", recorded(recording, language_model))]
    if recording.initial is not None:
        subjects.insert(0, ("initial values", subject_of(recording.initial, language_model)))
    return evaluate_all(subjects, recording.config.asked_task(), language_model, limit, report)


@contextmanager
def recorded(recording: Recording, language_model: LanguageModel) -> Iterator[Subject]:
    """The model as a run has left it, as long as the block lasts."""
    from soft_prompt_explorer.analysis.asking.lora import applied_weights
    from soft_prompt_explorer.trained_prompts.training import lora

    if recording.embeddings is not None:
        yield with_prompt(language_model, recording.embeddings)
    elif recording.weights is None:  # trained whole
        yield Subject(recording.model, language_model.tokenizer)
    elif recording.config.method == "lora":
        with applied_weights(language_model.model, lora.config_of(recording.config), recording.weights):
            yield bare(language_model)
    else:
        yield with_prefix(language_model, recording.weights["prompt_embeddings"])
