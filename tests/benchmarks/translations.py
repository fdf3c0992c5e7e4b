"""How much of each prompt of the gallery a text recovers: `python -m tests.benchmarks.translations [PROMPT...] [--twins] [--into FOLDER]`.

All soft prompts of the gallery, and those of known truth that learned a task of which the gallery has none, are asked. What is kept with a prompt is told as it is kept. Else its
whole table is kept in the folder as PROMPT.csv, and a prompt whose table lies there is not asked again. The table of medians by task goes to standard output, progress to standard error. With `--twins` it is asked of adapters of known truth that learned from shuffled answers, two a task: a prompt that
started from words, and a LoRA. Of such a twin no text should be said to do what it does, beyond what its form of the answers comes to.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import pandas as pd

from soft_prompt_explorer.analysis.adapters import load_adapter
from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.behaviour import kept_translation
from soft_prompt_explorer.analysis.behaviour.templates import task_of_run
from soft_prompt_explorer.analysis.behaviour.translation import sentence, translate, what_it_does
from soft_prompt_explorer.analysis.behaviour.translation_candidates import CONTROL, inputs_of_task
from soft_prompt_explorer.analysis.core.export import to_csv, to_markdown, write
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.trained_prompts.experiments.known_truth import FOLDER as KNOWN
from soft_prompt_explorer.trained_prompts.experiments.known_truth import SHUFFLED

COLUMNS = ["task", "prompts", "examples", "best_text", "mixture", "other_tasks", "controls", "beyond_other_tasks", "says"]


def kept(folder: Path, name: str) -> pd.DataFrame:
    """The table of an adapter of the gallery or of known truth, made where it is missing."""
    home, path = KNOWN / name if (KNOWN / name).is_dir() else GALLERY / name, folder / f"{name}.csv"
    if (table := kept_translation.read(home)) is not None:
        return table
    if not path.is_file():
        run = read_description(home)
        began, cpu = time.perf_counter(), time.process_time()
        model = run["model"]["name"]
        firsts: list[float] = []

        def told(table: pd.DataFrame) -> None:
            firsts.append(time.perf_counter() - began)

        table = translate(
            load_adapter(home), load_model(model), load_vocabulary(model), inputs_of_task(task_of_run(run)), path=name, row_made=told
        )  # fmt: skip
        write(to_csv(table), path)
        seconds = (
            f"{time.perf_counter() - began:.0f} s, {time.process_time() - cpu:.0f} s of processor time, first row after {firsts[0]:.1f} s"
        )
        print(f"{name}: {seconds}\n  {sentence(table)}", file=sys.stderr, flush=True)
    return pd.read_csv(path, keep_default_na=False, na_values=[""]).fillna({"text": ""})


def medians(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """A row a task: the median shares of its prompts, of their examples (at most eight), their best text, their mixture, and their best controls."""
    rows = []
    for table in tables:
        share = table.set_index("candidate")["share"]
        examples = share[share.index.str.fullmatch(r"\d examples?")]
        controls = share[share.index.str.startswith(CONTROL)]
        others = controls[controls.index.str.contains(" of ")]
        texts = share[~share.index.isin(["nothing", "mixture"]) & ~share.index.str.startswith(CONTROL)]
        rows.append(
            {
                "task": table["task"].iloc[0], "examples": examples.iloc[-1], "best_text": texts.max(), "mixture": share["mixture"],
                "other_tasks": others.max(), "controls": controls.max(), "beyond_other_tasks": examples.iloc[-1] - others.max(),
                "says": what_it_does(table) is not None,
            }
        )  # fmt: skip
    by_task = pd.DataFrame(rows).groupby("task")
    found = by_task.median(numeric_only=True).assign(prompts=by_task.size(), says=by_task["says"].mean())
    return found.reset_index()[COLUMNS]


def all_prompts() -> list[str]:
    """The soft prompts of the gallery, and those of known truth whose task none of them learned."""
    ours = sorted(path.parent.name for path in GALLERY.glob("*/run.json") if "-lora-" not in path.parent.name)
    lacking = [task for task in TASKS if not any(name.startswith(f"{task}-") for name in ours)]
    return ours + [f"{task}-{recipe}" for task in lacking for recipe in ("rows-11", "text-12", "random-13")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompts", nargs="*", help="names in the gallery or of known truth; all soft prompts by default")
    parser.add_argument("--twins", action="store_true")
    parser.add_argument("--into", type=Path, default=Path("build/translations"))
    asked = parser.parse_args()
    asked.into.mkdir(parents=True, exist_ok=True)
    twins = [f"{task}-{recipe}{SHUFFLED}" for recipe in ("rows-11", "lora-14") for task in TASKS] if asked.twins else []
    names = asked.prompts or twins or all_prompts()
    print(to_markdown(medians([kept(asked.into, name) for name in names])).decode("utf-8"), end="")


if __name__ == "__main__":
    main()
