"""What the runs push the model towards, kept with each: `lens.csv` and `effect.csv` in its folder."""

from __future__ import annotations

from collections.abc import Sequence

from soft_prompt_explorer.analysis.adapters import load_adapter
from soft_prompt_explorer.analysis.behaviour import kept_lens
from soft_prompt_explorer.analysis.behaviour.others import AtHand, changes_at_hand
from soft_prompt_explorer.analysis.behaviour.unrelated import Watch
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report, no_report, part
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.trained_prompts.runs import store


def look_at(names: Sequence[str], *, report: Report = no_report) -> None:
    """Look at the adapters of these runs through the difference lens, as far as it is not kept with them, and keep it: a minute each on two cores.

    Raises
    ------
    InputError
        There is no such run, its model is not at hand, or nothing can be written there.
    """
    seen_through: dict[str, tuple[Watch, AtHand]] = {}
    for i, name, folder, model in store.lacking(names, kept_lens.read):
        vocabulary, adapter = load_vocabulary(model), load_adapter(folder)
        if model not in seen_through:
            watch = Watch(load_model(model, report=report))
            seen_through[model] = watch, changes_at_hand(watch, vocabulary)
        watch, others = seen_through[model]
        told = kept_lens.tell(adapter, watch, vocabulary, others=others, report=part(report, i, len(names), name))
        try:
            kept_lens.write(told, folder)
        except OSError as error:
            raise InputError(f"What was seen cannot be kept in {folder}: {error.strerror or error}.") from error
    report(1.0, "all were looked at")
