"""Does what can be read change with the model's size? `python -m tests.benchmarks.sizes_read [--models NAME...] [--nulls N] [--words DRAWS] [--moved N]`.

The readings of the benchmark of readings (`spe benchmark`) are asked of the prompts that lie behind the picture of sizes: the same four tasks, one recipe, three models. The rule is
the benchmark's own: a task's score is standardised over prompts that know nothing, drawn from the same starts with displacements of the same lengths, and a reading names the task
whose score is highest of the ten. Verbalisation and contextual neighbours were not asked, for the time that they take on the largest model.

With --words it prints instead what `spe lens` and `spe effect` say of one prompt a task, beside so many null prompts of each kind (they draw 200). With --moved: how
many tokens `spe readings` says have moved along a word, of the prompts and of so many null prompts of each kind. That takes a minute.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from itertools import cycle, islice

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import SoftPrompt, load_soft_prompt
from soft_prompt_explorer.analysis.behaviour import kept_lens
from soft_prompt_explorer.analysis.behaviour.difference_lens import LEVEL
from soft_prompt_explorer.analysis.behaviour.lens_null import displaced, displacement_of
from soft_prompt_explorer.analysis.behaviour.unrelated import Watch
from soft_prompt_explorer.analysis.core.export import to_markdown
from soft_prompt_explorer.analysis.core.words import shown
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.analysis.prompts.verdicts import moved_along_a_word, readings
from soft_prompt_explorer.trained_prompts.experiments import sizes
from soft_prompt_explorer.trained_prompts.experiments.benchmark import NULL, PROMPT, TRUE, scores_of_adapters, standard_scores
from soft_prompt_explorer.trained_prompts.experiments.compared_readings import READINGS, Adapter

ASKED = ("nearest words", "task direction", "logit lens", "difference lens", "translation, of known tasks")
SEED = 20_271


def prompts_of(model: str) -> list[tuple[str, SoftPrompt]]:
    """The prompts that were trained, with their tasks."""
    return [
        (task, load_soft_prompt(folder, name=folder.name))
        for task in sizes.ASKED
        for folder in sorted(sizes.FOLDER.glob(f"{task}-{model}-prompt-tuning-*"))
    ]


def places_of(model: str, nulls: int) -> pd.DataFrame:
    """A row a reading and prompt that was trained: reading, prompt, task, the task that the reading names, the place of its own among the ten, seconds."""
    prompts = prompts_of(model)
    adapters: list[tuple[str, str, str, str, Adapter]] = [(prompt.name, PROMPT, TRUE, task, prompt) for task, prompt in prompts]
    rng = np.random.default_rng(SEED)
    for i in range(nulls):
        like, start = (prompts[j][1] for j in rng.integers(len(prompts), size=2))
        lengths = np.linalg.norm(like.embeddings - like.initial, axis=1)
        adapters.append((f"null-{i}", PROMPT, NULL, "", replace(start, embeddings=displaced(start.initial, lengths, 1, rng)[0])))
    readings = {name: READINGS[name] for name in ASKED}
    scores = scores_of_adapters(adapters, readings, load_vocabulary(model), load_model(model), report=_said)
    tasks, rows = list(scores.columns[6:]), []
    for reading, table in scores.groupby("reading", sort=False):
        standard = standard_scores(table[tasks], table.loc[table["kind"] == NULL, tasks])
        places = standard.rank(axis=1, ascending=False).astype(int)
        for i, row in table[table["kind"] == TRUE].iterrows():
            rows.append((reading, row["adapter"], row["task"], standard.loc[i].idxmax(), places.loc[i, row["task"]], row["cpu_seconds"]))
    return pd.DataFrame(rows, columns=["reading", "prompt", "task", "named", "place", "seconds"])


def _said(share: float, doing: str) -> None:
    print(f"{share:4.0%} {doing}", file=sys.stderr, flush=True)


def words_of(model: str, draws: int) -> pd.DataFrame:
    """Of one prompt a task: prompt, changes (how many times as much as null prompts, with its 95 % interval), p, and the words after the last layer that stand out."""
    language_model, vocabulary = load_model(model), load_vocabulary(model)
    watch, rows = Watch(language_model), []
    for task in sizes.ASKED:
        folder = sizes.FOLDER / f"{task}-{model}-prompt-tuning-0"
        told = kept_lens.tell(load_soft_prompt(folder, name=folder.name), watch, vocabulary, draws=draws)
        effect, beyond = told.effect.iloc[0], told.last[told.last["q"] < LEVEL]
        changes = f"{effect['ratio']:.1f} × ({effect['ratio_low']:.1f} to {effect['ratio_high']:.1f})"
        rows.append((folder.name, changes, effect["p"], ", ".join(beyond["token"].map(shown)) or "none"))
        print(f"{model}: {rows[-1]}", file=sys.stderr, flush=True)
    return pd.DataFrame(rows, columns=["prompt", "changes", "p", "words that stand out"])


def moved_of(model: str, nulls: int) -> pd.DataFrame:
    """Of the prompts, and of null prompts from their starts with displacements of their lengths: of, prompts, tokens, moved (tokens), in_prompts (that have one)."""
    vocabulary, rng = load_vocabulary(model), np.random.default_rng(SEED)
    groups: dict[str, list[SoftPrompt]] = {
        "trained": [prompt for _, prompt in prompts_of(model)],
        "no preference": [],
        "from word to word": [],
    }
    for like in islice(cycle(groups["trained"]), nulls):
        start, lengths, words = displacement_of(like, vocabulary, SEED)
        for group, rows in (("no preference", None), ("from word to word", words)):
            groups[group].append(replace(like, embeddings=displaced(start, lengths, 1, rng, rows)[0]))
    found = []
    for group, prompts in groups.items():
        moved = [int(moved_along_a_word(readings(prompt, vocabulary)).sum()) for prompt in prompts]
        found.append((group, len(prompts), sum(map(len, prompts)), sum(moved), sum(count > 0 for count in moved)))
    return pd.DataFrame(found, columns=["of", "prompts", "tokens", "moved", "in_prompts"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(sizes.MODELS))
    parser.add_argument("--nulls", type=int, default=24)
    parser.add_argument("--words", type=int, metavar="DRAWS")
    parser.add_argument("--moved", type=int, metavar="N")
    args = parser.parse_args()
    for table_of, count in ((words_of, args.words), (moved_of, args.moved)):
        if count is not None:
            for model in args.models:
                print(f"\n{model}, {count} of each kind:\n\n{to_markdown(table_of(model, count)).decode()}", flush=True)
            return
    cells: dict[str, dict[str, str]] = {reading: {} for reading in ASKED}
    for model in args.models:
        places = places_of(model, args.nulls)
        print(f"\n{model}:\n\n{to_markdown(places).decode()}", flush=True)
        for reading, own in places.groupby("reading", sort=False):
            hits = int((own["place"] == 1).sum())
            cells[str(reading)][model] = f"{hits} of {len(own)}; places {', '.join(map(str, sorted(own['place'])))}"
    print(f"\n{to_markdown(pd.DataFrame([{'reading': reading} | row for reading, row in cells.items()])).decode()}")


if __name__ == "__main__":
    main()
