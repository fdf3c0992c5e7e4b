"""Adapters of which it is known what they learned: what the benchmark of readings asks its readings about.

Ten tasks by three starts, a soft prompt each, and a LoRA of each task; and of every one its twin, trained on answers that were dealt out anew among the
examples, which learned the form of the answers and nothing more (Hewitt and Liang 2019, section 2). They lie in `known_truth`, in 16 bits, in PEFT's own
format. No choice of a reading (its words, layers or sentences) was made on them: those were made on the gallery, whose seeds and settings are others.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import appears_whole
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.models.weights import LanguageModel, load_model
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.trained_prompts.runs import recorded
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig

FOLDER = Path(__file__).parent / "known_truth"
SCORED_ON = 100  # held-out examples, at most
SHUFFLED = "-shuffled"
_ANY_TASK = "Read the line below and write what belongs after it."  # a start from a text that says nothing of the task
_STARTS: dict[str, dict] = {
    "rows-11": {"init": "sample-vocab", "seed": 11},
    "text-12": {"init": "text", "init_text": _ANY_TASK, "seed": 12},
    "random-13": {"init": "random", "seed": 13},
}
_CHOOSING = ("sentiment", "topic")  # among labels: learned at a higher rate than what is written

PROMPTS = {
    f"{task}-{start}": TrainingConfig(task=task, steps=200, learning_rate=0.05 if task in _CHOOSING else 0.02, **settings)
    for task in TASKS
    for start, settings in _STARTS.items()
}
# The same once more, learned inside texts, of the tasks with short inputs. They have longer, since the plain use takes one step in four.
FRAMES = ("Please §.\n", "Instruction: §\n\n", "You have to §.\n")
_FRAMED_TASKS = ("antonyms", "capitals", "first-letter", "number-words", "past-tense", "plural")
FRAMED_END = "-framed"
FRAMED = {name + FRAMED_END: replace(config, frames=FRAMES, steps=300) for name, config in PROMPTS.items() if config.task in _FRAMED_TASKS}
LORAS = {f"{task}-lora-14": TrainingConfig(task=task, method="lora", rank=2, steps=200, seed=14) for task in TASKS}


RECIPES = {
    name + end: replace(config, shuffled=shuffle)
    for name, config in {**PROMPTS, **LORAS}.items()
    for end, shuffle in (("", None), (SHUFFLED, 1))
} | FRAMED

# --- The words of each task ------------------------------------------------------------------------------------------
# Fixed before any of these adapters was trained. Function words, and the verbs that ask for something, say nothing of a task.
_SAY_NOTHING = frozenset(
    [
        "a",
        "an",
        "and",
        "any",
        "as",
        "at",
        "by",
        "for",
        "from",
        "give",
        "in",
        "into",
        "is",
        "it",
        "name",
        "of",
        "on",
        "or",
        "say",
        "that",
        "the",
        "to",
        "what",
        "whether",
        "which",
        "with",
        "write",
        "about",
        "means",
    ]
)


def words_of_tasks(vocabulary: Vocabulary) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Two groups of words for every task, as token ids: its answers that no other task has, and the content words of its description.

    An answer of several words counts as its words, each with the space before it, as far as that is one token.
    """
    places = {token: i for i, token in reversed(list(enumerate(vocabulary.tokens)))}

    def ids(words: Sequence[str]) -> set[int]:
        return {places[form] for word in words if (form := f" {word.strip('.,:;!?')}") in places}

    answers = {name: ids([word for answer in task.answer_words() for word in answer.split()]) for name, task in TASKS.items()}
    described = {
        name: ids([word for word in task.description.split() if word.lower().strip(".,:") not in _SAY_NOTHING])
        for name, task in TASKS.items()
    }
    of_others = {name: set().union(*(ids for other, ids in answers.items() if other != name)) for name in TASKS}
    return {name: (np.array(sorted(answers[name] - of_others[name])), np.array(sorted(described[name]))) for name in TASKS}


# --- Making them -----------------------------------------------------------------------------------------------------
def make(names: Sequence[str] = (), *, folder: Path = FOLDER, report: Report = no_report) -> None:
    """Train those that are not there yet, score each on held-out examples, and keep it in 16 bits.

    Parameters
    ----------
    names : keys of `RECIPES`; all of them when empty.

    Raises
    ------
    InputError
        There is no recipe of a name.
    """
    for name in names:
        if name not in RECIPES:
            raise InputError(f"There is no adapter of known truth called {name!r}; the first of them is {next(iter(RECIPES))}.")
    lacking = [name for name in names or RECIPES if not (folder / name).is_dir()]
    language_model: LanguageModel | None = None
    for i, name in enumerate(lacking):
        config = RECIPES[name]
        language_model = language_model or load_model(config.model, report=report)

        def watch(step, i: int = i, name: str = name) -> None:
            report((i + step.step / step.steps) / len(lacking), f"{name}: step {step.step} of {step.steps}")

        with tempfile.TemporaryDirectory() as runs:
            recorded.run(config, name, language_model=language_model, limit=SCORED_ON, folder=Path(runs), watch=watch)
            keep_in_16_bits(Path(runs) / name, folder / name)
    report(1.0, "all are there")


def keep_in_16_bits(run: Path, path: Path) -> None:
    """Keep what a reading needs of a run, in 16 bits: the adapter, its initial values, and how it was made."""
    from safetensors.numpy import load_file, save_file

    described = json.loads((run / "run.json").read_text(encoding="utf-8"))
    with appears_whole(path) as partial:
        for file in ("adapter_model.safetensors", "initial.safetensors"):
            if (run / file).is_file():
                save_file({key: values.astype(np.float16) for key, values in load_file(run / file).items()}, partial / file)
        (partial / "adapter_config.json").write_bytes((run / "adapter_config.json").read_bytes())
        (partial / "run.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
