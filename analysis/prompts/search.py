"""The nearest vocabulary words of vectors, by any of the metrics, among all words or those of a kind. `exact` says how they are found."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.exact import search, unit_rows
from soft_prompt_explorer.analysis.prompts.metrics import METRICS, MetricName, cosine_space

if TYPE_CHECKING:
    import pandas as pd

    from soft_prompt_explorer.analysis.adapters import SoftPrompt

__all__ = ["COLUMNS", "LARGEST_VALUE", "allowed_tokens", "nearest", "neighbours", "unit_rows"]

COLUMNS = ["prompt", "position", "rank", "token_id", "token", "score", "metric"]

LARGEST_VALUE = 1e15  # beyond it float32 products overflow; trained prompts stay under 1e4


def neighbours(
    prompt: SoftPrompt,
    vocabulary: Vocabulary,
    *,
    metric: MetricName = "centred",
    top_k: int = 10,
    exclude_special: bool = False,
    whole_words: bool = False,
    script: str | None = None,
    report: Report = no_report,
) -> pd.DataFrame:
    """The nearest vocabulary words of each virtual token of a soft prompt.

    Parameters
    ----------
    prompt : SoftPrompt of n virtual tokens, as wide as the vocabulary.
    metric : see `nearest`.
    exclude_special, whole_words, script : see `allowed_tokens`.

    Returns
    -------
    n · top_k rows (fewer where the vocabulary allows fewer words): prompt (its name), position and rank (both from 0), token_id, token,
    score (higher is nearer), metric.

    Raises
    ------
    InputError
        The widths differ, the metric or script is unknown, or no word is allowed.

    Examples
    --------
    >>> import soft_prompt_explorer as spe
    >>> vocabulary = spe.load_vocabulary("smollm2-135m")
    >>> prompt = spe.load_adapter(spe.GALLERY / "plural-words-1")
    >>> spe.neighbours(prompt, vocabulary, top_k=1)["token"].head(3).tolist()
    [' organ', ' foot', ' picture']
    """
    prompt.check_width(vocabulary.width, vocabulary.model)
    allowed = allowed_tokens(vocabulary, exclude_special=exclude_special, whole_words=whole_words, script=script)
    ids, scores = nearest(prompt.embeddings, vocabulary, metric=metric, top_k=top_k, allowed=allowed, report=report)
    n, k = ids.shape
    import pandas as pd

    return pd.DataFrame(
        {
            "prompt": prompt.name,
            "position": np.repeat(np.arange(n), k),
            "rank": np.tile(np.arange(k), n),
            "token_id": ids.ravel(),
            "token": [vocabulary.tokens[i] for i in ids.ravel()],
            "score": scores.ravel(),
            "metric": metric,
        },
        columns=COLUMNS,
    )


def allowed_tokens(
    vocabulary: Vocabulary, *, exclude_special: bool = False, whole_words: bool = False, script: str | None = None
) -> np.ndarray:
    """Which tokens may be named as neighbours, (V,) bool.

    Parameters
    ----------
    exclude_special : leave out control tokens and rows that no text uses.
    whole_words : only tokens that start a word and hold nothing but its letters.
    script : only tokens with at least one letter, all letters being of this Unicode script (`Latin`, `Cyrillic`, `Han`, `Arabic`, …);
        `CJK` means Han, Hiragana, Katakana and Hangul.

    Raises
    ------
    InputError
        The script is unknown, or no token is allowed.
    """
    allowed = np.ones(len(vocabulary), dtype=bool)
    if exclude_special:
        allowed &= ~vocabulary.special
    if whole_words:
        allowed &= ~vocabulary.special & _matches(vocabulary.tokens, _whole_word_pattern(vocabulary.tokens))
    if script is not None:
        allowed &= ~vocabulary.special & _matches(vocabulary.tokens, _script_pattern(script)) & ~_matches(vocabulary.tokens, _not_text())
    if not allowed.any():
        raise InputError(f"No token of {vocabulary.model} is left after the filters; loosen one of them.")
    return allowed


def nearest(
    vectors: np.ndarray,
    vocabulary: Vocabulary,
    *,
    metric: MetricName = "centred",
    top_k: int = 10,
    allowed: np.ndarray | None = None,
    lengths: np.ndarray | None = None,
    report: Report = no_report,
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest vocabulary rows of vectors, exactly; ties go to the smaller token id.

    Parameters
    ----------
    vectors : (n, d) float array.
    metric : a name of `METRICS`, whose record holds its formula. A vector or row of norm zero has the cosine 0 with everything.
    allowed : (V,) bool, the rows that may be named; all when None.
    lengths : (V,) float64, of the metric `centred`: what the product with each e − μ is divided by in place of its own length; a row of length 0 scores 0.
    report : told the progress of the rows' CSLS neighbourhoods, which are computed once per vocabulary.

    Returns
    -------
    ids, scores : (n, k) int64 and float64, best first; k is `top_k` or the number of allowed rows if that is smaller.

    Raises
    ------
    InputError
    """
    if metric not in METRICS:
        raise InputError(f"The metric {metric!r} is not known; choose one of {', '.join(METRICS)}.")
    if top_k < 1:
        raise InputError(f"At least one neighbour has to be asked for, not {top_k}.")
    vectors = np.asarray(vectors, dtype=np.float64)
    if vectors.ndim != 2 or vectors.shape[1] != vocabulary.width:
        raise InputError(
            f"Vectors of shape {vectors.shape} do not go with {vocabulary.model}, whose embeddings are {vocabulary.width} wide."
        )
    if not (np.abs(vectors) <= LARGEST_VALUE).all():
        raise InputError(f"A vector holds NaN, infinity or a value beyond {LARGEST_VALUE:g}; it is not near to any word.")
    space = METRICS[metric].space(vocabulary, report) if lengths is None else cosine_space(vocabulary, vocabulary.mean, lengths)
    k = min(top_k, len(vocabulary) if allowed is None else int(allowed.sum()))
    return search(vectors, vocabulary, space, k, allowed)


# --- The filters -----------------------------------------------------------------------------------------------------


def _matches(tokens: list[str], pattern) -> np.ndarray:
    return np.fromiter((pattern.fullmatch(token) is not None for token in tokens), dtype=bool, count=len(tokens))


def _whole_word_pattern(tokens: list[str]):
    import regex

    # Most tokenizers mark a word's start by a space; WordPiece marks its continuation by ##, which is no letter.
    marks_starts = sum(token.startswith(" ") for token in tokens[:20000]) > len(tokens[:20000]) / 20
    return regex.compile(r" \p{L}[\p{L}\p{M}]*" if marks_starts else r"\p{L}[\p{L}\p{M}]*")


def _not_text():
    import regex

    return regex.compile(r"(<0x[0-9A-F]{2}>)+|.*\\.*")  # what `errors.printable` writes with letters of its own


def _script_pattern(script: str):
    import regex

    try:
        if not re.fullmatch(r"[A-Za-z][A-Za-z_ ]*", script):
            raise regex.error("not a name")
        letters = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}ー" if script.upper() == "CJK" else rf"\p{{Script={script}}}"
        return regex.compile(rf"[\P{{L}}{letters}]*[{letters}][\P{{L}}{letters}]*")
    except regex.error:
        raise InputError(
            f"The script {script!r} is not known; use a Unicode script's name such as Latin, Cyrillic, Greek, Arabic or Han, or CJK."
        ) from None
