"""How long a prompt's interventions take, and whether the verdicts that ship stay: `python -m tests.benchmarks.behaviour [PROMPT...] [--kept] [--threads N]`.

Each prompt (sentiment-words-1 where none is named) is asked about anew, on 200 examples: when the verdict stands, and when the whole table does. With `--kept`, of every
table that is kept with the gallery the ranks are asked anew, as this machine asks them, and the verdict is judged beside the kept one.
"""

from __future__ import annotations

import argparse
import time

import pandas as pd
import torch

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.behaviour.changes import JUDGED_BY
from soft_prompt_explorer.analysis.behaviour.of_task import behave, examples_of, judged
from soft_prompt_explorer.analysis.core.export import to_markdown
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.analysis.prompts.starts import start_from_config
from soft_prompt_explorer.trained_prompts.experiments import kept_behaviour

LIMIT = 200
MODEL = "smollm2-135m"


def timed(name: str) -> dict:
    """When the verdict of a prompt stands and when its table does, in seconds, and what was said of it."""
    prompt, vocabulary, task, examples = _of(name)
    last_judged = 0.0
    began = time.perf_counter()

    def row_made(table: pd.DataFrame) -> None:
        nonlocal last_judged
        if table["intervention"].isin(JUDGED_BY).all():
            last_judged = time.perf_counter() - began

    table = behave(prompt, vocabulary, examples, task, row_made=row_made)
    seconds = time.perf_counter() - began
    kept = kept_behaviour.kept(name)
    return {
        "prompt": name,
        "n": table["n"].iloc[0],
        "verdict_s": last_judged,
        "table_s": seconds,
        "quick_rows": int((table["dtype"] != examples.dtype).sum()),
        "rows": len(table),
        "verdict": judged(prompt, vocabulary, task, table).verdict.label,
        "kept": None if kept is None else judged(prompt, vocabulary, task, kept).verdict.label,
    }


def ranked_anew(name: str) -> dict:
    """The verdict on a prompt by its kept table, and by the same with the ranks of now."""
    prompt, vocabulary, task, examples = _of(name)
    kept = kept_behaviour.kept(name)
    assert kept is not None
    began = time.perf_counter()
    anew = behave(prompt, vocabulary, examples, task, before=kept.assign(rank_p=float("nan"), rank_draws=pd.NA))
    then, now = (judged(prompt, vocabulary, task, table).verdict for table in (kept, anew))
    return {
        "prompt": name,
        "rank_p kept": _ranks(kept),
        "rank_p now": _ranks(anew),
        "verdict kept": then.label,
        "verdict now": now.label,
        "same": (then.label, then.necessary, then.sufficient, then.words_act) == (now.label, now.necessary, now.sufficient, now.words_act),
        "seconds": time.perf_counter() - began,
    }


def _ranks(table: pd.DataFrame) -> str:
    return ", ".join(f"{p:.3f}" for p in table["rank_p"].dropna()) or "–"


def _of(name: str):
    vocabulary, language_model = load_vocabulary(MODEL), load_model(MODEL)
    prompt, task = start_from_config(load_soft_prompt(GALLERY / name), vocabulary), kept_behaviour.task_of(name)
    return prompt, vocabulary, task, examples_of(task, language_model, limit=LIMIT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompts", nargs="*", default=["sentiment-words-1"])
    parser.add_argument("--kept", action="store_true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    rows = []
    for name in kept_behaviour.tested() if settings.kept else settings.prompts:
        rows.append((ranked_anew if settings.kept else timed)(name))
        print(rows[-1], flush=True)
    print(f"{settings.threads} threads of torch\n")
    print(to_markdown(pd.DataFrame(rows)).decode())


if __name__ == "__main__":
    main()
