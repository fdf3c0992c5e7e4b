"""What readability costs: prompts drawn to words ever more strongly, their scores, and the scores of those words in their place."""

from __future__ import annotations

import pandas as pd

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.adapters.soft_prompt import DRAWN_TO_WORDS
from soft_prompt_explorer.analysis.asking.in_front import with_prompt
from soft_prompt_explorer.analysis.asking.scores import score, score_bare
from soft_prompt_explorer.analysis.behaviour.changes import discretised
from soft_prompt_explorer.analysis.core.progress import Report, no_report, part
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.models.weights import LanguageModel
from soft_prompt_explorer.analysis.prompts.verdicts import LEVEL, readings
from soft_prompt_explorer.analysis.tasks.task import Task

COLUMNS = [
    "prompt",
    "task",
    "readable",
    "near",
    "cosine",
    "words",
    "measure",
    "score",
    "low",
    "high",
    "words_score",
    "words_low",
    "words_high",
    "no_prompt",
    "no_prompt_low",
    "no_prompt_high",
    "n",
]


def trade(
    prompts: list[SoftPrompt],
    task: Task,
    vocabulary: Vocabulary,
    *,
    language_model: LanguageModel,
    limit: int | None = None,
    report: Report = no_report,
) -> pd.DataFrame:
    """Score against readability.

    Parameters
    ----------
    prompts : of one task and model, trained with several strengths of the pull towards words.

    Returns
    -------
    A row a prompt, the weakest pull first: prompt, task, readable (γ), near (share of its tokens that are nearer to a word than chance allows and are not nearest to
    the word that they started from), cosine (mean centred cosine with the nearest word), words (those words), measure, score, low, high (95 % interval) of the
    vectors, words_score, words_low, words_high of the words in their place, no_prompt, no_prompt_low, no_prompt_high of the model as it is, n.
    """
    table = task.examples("held-out").head(limit)
    parts = 2 * len(prompts) + 1
    bare = score_bare(task, table, language_model, report=part(report, 0, parts, "no prompt")).iloc[0]
    rows = []
    for i, prompt in enumerate(prompts):
        scores = []
        for j, each in enumerate((prompt, discretised(prompt, vocabulary))):
            report_part = part(report, 1 + 2 * i + j, parts, each.name)
            scores.append(score(each.name, with_prompt(language_model, each.embeddings), task, table, report=report_part).iloc[0])
        read = readings(prompt, vocabulary)
        away = (read["q_chance"] < LEVEL) & ~read["echo"].fillna(False).astype(bool)
        vectors, words = scores
        rows.append(
            [
                prompt.name, task.name, float(prompt.metadata.get(DRAWN_TO_WORDS, 0.0)), away.mean(), read["score"].mean(),
                " ".join(token.strip() for token in read["nearest_token"]), vectors["measure"], vectors["score"], vectors["low"], vectors["high"],
                words["score"], words["low"], words["high"], bare["score"], bare["low"], bare["high"], vectors["n"],
            ]
        )  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS).sort_values("readable", kind="stable", ignore_index=True)
