"""Which readings of a prompt are real: a verdict for each virtual token, from three questions.

Is its nearest word nearer than chance allows? Is that word only the one that the token started from? And did training move it
along a word? A prompt that starts from vocabulary rows stays nearest to those rows long after it has learned its task: its list
of neighbours then says how it was initialised and nothing of what it learned. A reading that does not say so misleads.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.adapters.soft_prompt import DRAWN_TO_WORDS
from soft_prompt_explorer.analysis.core.discoveries import q_values
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.never_trained import untrained
from soft_prompt_explorer.analysis.prompts.null import null_of, p_as_word, p_as_word_and_read
from soft_prompt_explorer.analysis.prompts.search import nearest
from soft_prompt_explorer.analysis.prompts.starts import mark_of

START_COLUMNS = ["prompt", "position", "norm", "norm_ratio", "nearest_token", "score", "initial_token", "echo", "drift"]
COLUMNS = [
    "prompt",
    "position",
    "norm",
    "norm_ratio",
    "nearest_token",
    "score",
    "p_chance",
    "q_chance",
    "initial_token",
    "echo",
    "drift",
    "delta_token",
    "p_learned",
    "verdict",
]
LEVEL = 0.05
MOVED = 0.01  # the level of "moved along a word": at 0.05, three of eighteen prompts trained on shuffled answers had such a token

VERDICTS: dict[str, str] = {
    "moved along a word": "training moved it along a word, beyond chance, and not along the one that it started from; that it learned that word is not shown: now and then it happens in training on shuffled answers too",
    "echo": "still nearest to the word that it started from, and nothing that it learned can be read",
    "near a word": "nearer to a word than chance allows; that it learned that word is not shown: it may have started there, or been drawn to words whatever it learned",
    "unreadable": "no nearer to any word than a random vector is, or only along a direction that all words share",
    "never trained": "the whole prompt is as it started, or looks so: there is nothing in it to read",
}
SHAPES = {
    "moved along a word": "★",
    "echo": "■",
    "near a word": "◆",
    "unreadable": "✕",
    "never trained": "○",
}  # beside the word, so that nothing rests on colour


def readings(prompt: SoftPrompt, vocabulary: Vocabulary, *, report: Report = no_report) -> pd.DataFrame:
    """A verdict for each virtual token, with the evidence for it.

    Parameters
    ----------
    prompt : with initial values, or without them (then nothing is said of echoes and learned directions). `analysis.prompts.starts` finds or guesses them.

    Returns
    -------
    One row a token: prompt, position (from 0), norm (Euclidean), norm_ratio (over the vocabulary's median norm), nearest_token and its
    score (centred cosine), p_chance (the share of 1,000 draws from N(μ, Σ) that score as high, or, where larger, of random vectors from which a word
    stands out as far once the common directions are taken off: see `analysis.prompts.null`), q_chance (Benjamini and Hochberg 1995, over the prompt's tokens),
    initial_token (nearest word of the initial value), echo (whether both are the same), drift (distance from the initial value), delta_token (the word
    that the drift is read as, once its parts along its own start and along the common directions are taken off), p_learned (its p-value: how far that
    word stands out from the next ten, the larger one against N(0, Σ) and against uniform directions), verdict (see `VERDICTS`; followed by
    " (recovered)" or " (from the config's text)" where it rests on initial values that no file holds).

    Raises
    ------
    InputError
        The prompt is not as wide as the vocabulary, or its rows are no input embeddings.

    Examples
    --------
    >>> import soft_prompt_explorer as spe
    >>> vocabulary = spe.load_vocabulary("smollm2-135m")
    >>> read = spe.readings(spe.load_adapter(spe.GALLERY / "plural-words-1"), vocabulary)
    >>> read["verdict"].value_counts().to_dict()
    {'echo': 10}
    """
    table, nearest_ids = _start_and_now(prompt, vocabulary)
    null = null_of(vocabulary, report=report)
    if prompt.initial is None:
        as_word = p_as_word(prompt.embeddings, nearest_ids, vocabulary, null)
    else:
        as_word, delta_ids, p_learned = p_as_word_and_read(
            prompt.embeddings, nearest_ids, displacements(prompt), vocabulary, null, but=prompt.initial
        )
    table["p_chance"] = np.maximum(null.p_drawn(table["score"].to_numpy()), as_word)
    table["q_chance"] = q_values(table["p_chance"])
    near = (table["q_chance"] < LEVEL) & ~vocabulary.special[nearest_ids]
    table["delta_token"] = pd.array([None] * len(table), dtype="string")
    table["p_learned"] = np.nan
    never = untrained(prompt, vocabulary) is not None
    if prompt.initial is None:
        table["verdict"] = "never trained" if never else np.where(near, "near a word", "unreadable")
        return table[COLUMNS]
    drifted = table["drift"].to_numpy() > 0
    table["delta_token"] = pd.array(
        [vocabulary.tokens[i] if moved else None for i, moved in zip(delta_ids, drifted, strict=True)], dtype="string"
    )
    table["p_learned"] = p_learned
    echo = table["echo"].to_numpy(dtype=bool)
    moved = moved_along_a_word(table)
    if DRAWN_TO_WORDS in prompt.metadata:  # that it moved along a word is then how it was made
        verdict = np.select([echo, near | moved], ["echo", "near a word"], "unreadable")
    else:
        verdict = np.select([moved, echo, near], ["moved along a word", "echo", "near a word"], "unreadable")
    table["verdict"] = [("never trained" if never else value) + mark_of(prompt) for value in verdict]
    return table[COLUMNS]


def moved_along_a_word(table: pd.DataFrame) -> np.ndarray:
    """Which tokens of a table of `readings` moved along a word beyond chance, (n,) bool. Tokens trained on shuffled answers can, too: a count stands beside its twin's."""
    if table["p_learned"].isna().any():
        return np.zeros(len(table), dtype=bool)
    return q_values(table["p_learned"]) < MOVED


def start_and_now(prompt: SoftPrompt, vocabulary: Vocabulary) -> pd.DataFrame:
    """One row a virtual token: what it is nearest to, and what it started from. No null is drawn, so it is quick the first time too.

    Returns
    -------
    The columns of `readings` that need no null: prompt, position, norm, norm_ratio, nearest_token, score, initial_token, echo, drift. The last
    three are missing where the initial values are unknown.

    Raises
    ------
    InputError
        The prompt is not as wide as the vocabulary.
    """
    return _start_and_now(prompt, vocabulary)[0]


def _start_and_now(prompt: SoftPrompt, vocabulary: Vocabulary) -> tuple[pd.DataFrame, np.ndarray]:
    """The table of `start_and_now`, and the id of each token's nearest word."""
    prompt.check_width(vocabulary.width, vocabulary.model)
    n = len(prompt)
    rows = prompt.embeddings if prompt.initial is None else np.concatenate([prompt.embeddings, prompt.initial])
    found, scores = nearest(rows, vocabulary, top_k=1)  # one pass over the vocabulary for both
    ids, initial_ids = found[:n, 0], found[n:, 0]
    initial_token, echo, drift = [None] * n, [None] * n, np.full(n, np.nan)
    if prompt.initial is not None:
        initial_token = [vocabulary.tokens[i] for i in initial_ids]
        echo = (initial_ids == ids).tolist()
        drift = np.linalg.norm(displacements(prompt), axis=1)
    table = pd.DataFrame(
        {
            "prompt": prompt.name,
            "position": np.arange(n),
            "norm": prompt.norms,
            "norm_ratio": prompt.norms / vocabulary.median_norm,
            "nearest_token": [vocabulary.tokens[i] for i in ids],
            "score": scores[:n, 0],
            "initial_token": pd.array(initial_token, dtype="string"),
            "echo": pd.array(echo, dtype="boolean"),
            "drift": drift,
        },
        columns=START_COLUMNS,
    )
    return table, ids


def displacements(prompt: SoftPrompt) -> np.ndarray:
    """Δ = P − P⁰, (n, d) float64; the initial values must be known."""
    return prompt.embeddings.astype(np.float64) - prompt.start
