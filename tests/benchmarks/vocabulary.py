"""The cached vocabulary beside loading the model that it belongs to, from the same GGUF file.

`load_vocabulary` gives the tokens and the embeddings from the cache, warm: it was written before, and the file system remembers
it. As it maps the embeddings and reads none, a second row reads every one of them too. The other is what a person does who knows
only `transformers`: `AutoModelForCausalLM.from_pretrained(gguf_file=…)`, to reach its input embeddings. It too has its file
warm and its modules imported, by a first load that is not counted, and it is spared the tokenizer, which would have to be loaded
beside it for the tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL
from soft_prompt_explorer.analysis.models.names import resolve_model
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from tests.benchmarks.measure import median_and_range, ratio, take_turns, text_table

ROUNDS = 5
OURS = "load_vocabulary, warm cache"
EXPECTED = 100


def tables() -> Iterator[str]:
    """One table."""
    calls = {OURS: _ours, "the same, and every embedding read": _ours_read, "AutoModelForCausalLM.from_pretrained": _whole_model}
    seconds = take_turns(calls, rounds=ROUNDS, subject="vocabulary")
    rows = [[name, *median_and_range(seconds[name]), ratio(seconds, name, OURS)] for name in calls]
    yield text_table(
        f"the vocabulary of {EMBEDDED_MODEL}",
        ["", "median", "range", "against ours"],
        rows,
        f"{ROUNDS} rounds. Expected: {EXPECTED} × or more.",
    )


def _ours():
    return load_vocabulary(EMBEDDED_MODEL)


def _ours_read():
    return load_vocabulary(EMBEDDED_MODEL).embeddings.sum()


def _whole_model():
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    path = resolve_model(EMBEDDED_MODEL).path
    return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name).get_input_embeddings().weight
