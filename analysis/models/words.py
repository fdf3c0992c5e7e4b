"""Words as a person types them, as tokens of a vocabulary: told openly, and refused by name where a word is no one token.

A word mostly stands in a text with a space before it, and most vocabularies have a token for that and another without: `forms` gives both. An answer
of a task is something else: it may be several tokens, and then the first one is what the model is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from soft_prompt_explorer.analysis.core.errors import InputError, ModelError
from soft_prompt_explorer.analysis.core.late import one_at_a_time
from soft_prompt_explorer.analysis.core.words import listed, printable
from soft_prompt_explorer.analysis.models.names import ModelFiles, resolve_model
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.models.weights import prepared_folder

PIECES_TOLD = 8
WORDS_TOLD = 6
LONGEST = 200  # characters of a typed word that are cut into pieces; more is no word


def typed_words(text: str) -> list[str]:
    """What is written between commas, without the blanks around it, each once.

    >>> typed_words(" positive,negative , positive,")
    ['positive', 'negative']
    """
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def forms(vocabulary: Vocabulary, word: str) -> list[int]:
    """The tokens that a typed word is: with a space before it, as most words stand in a text, and then without; the blanks at its ends do not count.

    Raises
    ------
    InputError
        Neither is a token: the sentence names the pieces, to choose from.
    """
    return _forms(vocabulary.places, vocabulary, word)


def word_ids(vocabulary: Vocabulary, words: Sequence[str]) -> np.ndarray:
    """The token ids of words to test, sorted and each once: the same in any order of the words.

    Parameters
    ----------
    words : a word as a person types it counts as its first form (see `forms`) and has to be one token. One with a space before it is an answer as it stands
        in a text: its first token, as the model's tokenizer cuts it.

    Raises
    ------
    InputError
        A typed word is no token, or an answer starts with none.
    """
    places = vocabulary.places
    ids = [_first_token(places, vocabulary, word) if word.startswith(" ") else _forms(places, vocabulary, word)[0] for word in words]
    return np.unique(np.array(ids, dtype=np.int64))


def told(vocabulary: Vocabulary, words: Sequence[str]) -> str:
    """Which tokens stand for words to test, in one phrase.

    >>> told(vocabulary, ["positive", "negative"])  # doctest: +SKIP
    "' positive' ('positive' is a token too) and ' negative' ('negative' is a token too)"
    """
    places = vocabulary.places
    if all(word.startswith(" ") for word in words):
        several = sum(printable(word) not in places for word in words)
        first = f", the first token of each: {several:,} of them {'is' if several == 1 else 'are'} several tokens" if several else ""
        return f"{len(words):,} answer{'' if len(words) == 1 else 's'}{first}"
    said = []
    for word in words[:WORDS_TOLD]:
        first, *others = [vocabulary.tokens[i] for i in _forms(places, vocabulary, word)]
        said.append(f"{first!r}" + "".join(f" ({other!r} is a token too)" for other in others))
    return listed([*said, *([f"{len(words) - len(said):,} more"] if len(words) > len(said) else [])])


def _forms(places: dict[str, int], vocabulary: Vocabulary, word: str) -> list[int]:
    bare = word.strip()
    if not bare:
        raise InputError("No word was typed, only blanks; type one.")
    found = [places[form] for form in (printable(f" {bare}"), printable(bare)) if form in places]
    if found:
        return found
    shown = f"{bare[:40]}…" if len(bare) > 40 else bare
    pieces = _cut(vocabulary, f" {bare}") if len(bare) <= LONGEST else None
    if pieces is None:
        raise InputError(f"{shown!r} is no token of {vocabulary.model}, with or without a space before it; give a word that is one token.")
    names = [repr(vocabulary.tokens[i]) for i in pieces]
    more = [f"{len(names) - PIECES_TOLD} more"] if len(names) > PIECES_TOLD else []
    raise InputError(
        f"{shown!r} is no token of {vocabulary.model} but {_NUMBERS.get(len(names), len(names))} of them, {listed([*names[:PIECES_TOLD], *more])}; "
        "give a word that is one token, or one of these."
    )


_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine"}


def _first_token(places: dict[str, int], vocabulary: Vocabulary, answer: str) -> int:
    if (whole := printable(answer)) in places:
        return places[whole]
    if pieces := _cut(vocabulary, answer):
        return pieces[0]
    for end in range(len(answer), 1, -1):  # a vocabulary without its tokenizer
        if (start := printable(answer[:end])) in places:
            return places[start]
    raise InputError(f"The answer {answer[:40]!r} starts with no token of {vocabulary.model}; give another one.")


# --- How the model's own tokenizer cuts a text -----------------------------------------------------------------------


def _cut(vocabulary: Vocabulary, text: str) -> list[int] | None:
    """The ids of a text's tokens, as the model's own tokenizer cuts it; None where that is not at hand, or knows other tokens than the vocabulary."""
    try:
        model = resolve_model(vocabulary.model)
        stat = model.path.stat()
        ids = _tokenizer(model, stat.st_mtime_ns)(text)
    except (ModelError, OSError):
        return None
    return ids if ids and max(ids) < len(vocabulary) else None


@lru_cache(maxsize=4)
def _tokenizer(model: ModelFiles, modified: int) -> Callable[[str], list[int]]:
    """A function from a text to its ids; of a GGUF file that is not prepared, a few seconds the first time. `modified` only tells files apart."""
    folder = prepared_folder(model) if model.is_gguf else model.path
    if (folder / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        try:
            fast = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # tokenizers raises nothing narrower
            raise ModelError(f"The file {folder / 'tokenizer.json'} is not a tokenizer ({error}).") from error
        return lambda text: fast.encode(text, add_special_tokens=False).ids
    with one_at_a_time():
        from transformers import AutoTokenizer

    where: tuple[Path, dict] = (model.path.parent, {"gguf_file": model.path.name}) if model.is_gguf else (model.path, {})
    try:
        slow = AutoTokenizer.from_pretrained(where[0], trust_remote_code=False, local_files_only=True, **where[1])
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise ModelError(f"{model.name} has no tokenizer that can be read ({error}).") from error
    return lambda text: slow(text, add_special_tokens=False).input_ids
