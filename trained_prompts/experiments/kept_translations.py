"""The runs put into words: the texts that do what each does, kept with it as `translation.json`."""

from __future__ import annotations

from collections.abc import Sequence

from soft_prompt_explorer.analysis.adapters import load_adapter
from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.behaviour import kept_translation
from soft_prompt_explorer.analysis.behaviour.templates import task_of_run
from soft_prompt_explorer.analysis.behaviour.translation import translate
from soft_prompt_explorer.analysis.behaviour.translation_candidates import inputs_of_task
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report, no_report, part
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.models.weights import LanguageModel, load_model
from soft_prompt_explorer.trained_prompts.runs import store


def put_into_words(names: Sequence[str], *, report: Report = no_report) -> None:
    """Translate the adapters of these runs on their own task, as far as it is not kept with them, and keep it: two minutes each on two cores.

    Raises
    ------
    InputError
        There is no such run, its model or its task is not at hand, or nothing can be written there.
    """
    models: dict[str, LanguageModel] = {}
    for i, name, folder, model in store.lacking(names, kept_translation.read):
        if model not in models:
            models[model] = load_model(model, report=report)
        inputs = inputs_of_task(task_of_run(read_description(folder)))
        table = translate(load_adapter(folder), models[model], load_vocabulary(model), inputs, report=part(report, i, len(names), name))
        try:
            kept_translation.write(table, folder)
        except OSError as error:
            raise InputError(f"The texts cannot be kept in {folder}: {error.strerror or error}.") from error
    report(1.0, "all are in words")
