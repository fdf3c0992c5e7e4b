"""A prompt carried to another model as words: `python -m tests.benchmarks.carried [PROMPT...] [--model gemma3-270m]`.

Of each prompt the text that is kept as the one which does what it does is put before the same task's held-out inputs, on a model that the prompt was never trained for. Beside it
stand the bare model, and two controls: as many of the same examples with shuffled answers, which show the form alone, and the text of another task's prompt, the next one's in the
order of the names.
"""

from __future__ import annotations

import argparse
import sys

import pandas as pd

from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.behaviour import kept_translation
from soft_prompt_explorer.analysis.behaviour.translation import best_text, carry, copied
from soft_prompt_explorer.analysis.core.export import to_markdown
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.analysis.tasks.shipped import TASKS

ASKED = ("antonyms", "capitals", "first-letter", "number-words", "past-tense", "plural", "sentiment")
LIMIT = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "prompts", nargs="*", default=[f"{task}-words-1" for task in ASKED], help="names in the gallery; one a task by default"
    )
    parser.add_argument("--model", default="gemma3-270m")
    args = parser.parse_args()
    model = load_model(args.model)
    texts, shuffled = {}, {}
    for name in args.prompts:
        table = kept_translation.read(GALLERY / name)
        best = None if table is None else best_text(table)
        if best is None:
            parser.error(f"no text is kept with {name}")
        texts[name] = best["candidate"], copied(best["text"])
        shuffled[name] = copied(table.loc[table["candidate"].str.endswith("answers shuffled"), "text"].iloc[0])
    rows = []
    for i, name in enumerate(args.prompts):
        run = read_description(GALLERY / name)
        task = TASKS[run["config"]["task"]]
        other = args.prompts[(i + 1) % len(args.prompts)]
        without, with_text = carry(texts[name][1], task, model, limit=LIMIT).to_dict("records")
        form, control = (carry(text, task, model, limit=LIMIT).iloc[1].to_dict() for text in (shuffled[name], texts[other][1]))
        rows.append(
            {
                "prompt": name, "the prompt on its own model": f"{run['scores']['trained']['score']:.2f}", "text": texts[name][0],
                "no text": _said(without), "the text": _said(with_text), "its examples, answers shuffled": _said(form),
                "the text of another task": _said(control), "n": with_text["n"],
            }
        )  # fmt: skip
        print(f"{name}: {rows[-1]}", file=sys.stderr, flush=True)
    print(f"On {args.model}:\n\n{to_markdown(pd.DataFrame(rows)).decode()}")


def _said(row: dict) -> str:
    return f"{row['score']:.2f} ({row['low']:.2f} to {row['high']:.2f})"


if __name__ == "__main__":
    main()
