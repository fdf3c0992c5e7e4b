"""Words are read as they are typed: one figure for all spellings, and a word that is no token is refused by name."""

from dataclasses import replace

import pytest

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.models.words import forms, told, typed_words, word_ids
from soft_prompt_explorer.analysis.prompts.directions import direction
from tests.support.made_prompts import drifted, made_vocabulary
from tests.support.places import EMBEDDED


def names(vocabulary, ids) -> list[str]:
    return [vocabulary.tokens[i] for i in ids]


def test_a_word_is_found_with_its_space_and_without_whatever_blanks_are_typed(embedded_vocabulary):
    for typed in ("organ", " organ", "  organ ", "\torgan"):
        assert names(embedded_vocabulary, forms(embedded_vocabulary, typed)) == [" organ", "organ"]
    (only,) = forms(embedded_vocabulary, "ancient")
    assert embedded_vocabulary.tokens[only] == " ancient"


@pytest.mark.parametrize(
    ("typed", "number", "pieces"),
    [
        ("New York", "two", ["' New'", "' York'"]),
        ("xyzzyplugh", "four", ["' xy'", "'zzy'", "'pl'", "'ugh'"]),
        ("Tegucigalpa", "six", ["' T'", "'eg'", "'uc'", "'ig'", "'al'", "'pa'"]),
    ],
)
def test_what_is_several_tokens_is_refused_with_its_pieces(embedded_vocabulary, typed, number, pieces):
    for ask in (lambda: forms(embedded_vocabulary, typed), lambda: word_ids(embedded_vocabulary, ["positive", typed])):
        with pytest.raises(InputError) as refused:
            ask()
        said = str(refused.value)
        assert said.startswith(f"{typed!r} is no token of {EMBEDDED} but {number} of them")
        assert all(piece in said for piece in pieces)


def test_what_has_no_end_or_no_letter_is_refused_in_a_sentence(embedded_vocabulary):
    for typed in ("x" * 10_000, "\U0010ffff", "positive\x00", "two words of several tokens and more of them than are told"):
        with pytest.raises(InputError) as refused:
            forms(embedded_vocabulary, typed)
        assert len(str(refused.value)) < 400 and str(refused.value).isprintable()
    with pytest.raises(InputError, match="only blanks"):
        forms(embedded_vocabulary, "  ")


def test_of_an_answer_the_first_token_is_the_tokenizer_s_own(embedded_vocabulary, embedded_model):
    _, tokenizer = embedded_model
    for answer in (" positive", " Tegucigalpa", " Washington D.C.", " Bandar Seri Begawan", " quatre-vingt"):
        (first,) = word_ids(embedded_vocabulary, [answer])
        assert first == tokenizer(answer, add_special_tokens=False).input_ids[0]
    without = made_vocabulary("hub-ridden")  # no tokenizer: the longest token that it starts with
    tokens = [*without.tokens[:-3], " ab", " abc", "abc"]
    known = replace(without, tokens=tokens)
    assert names(known, word_ids(known, [" abcd"])) == [" abc"]
    with pytest.raises(InputError, match="starts with no token"):
        word_ids(known, ["\x20\U0010ffff"])
    with pytest.raises(InputError, match=r"no token of .*, with or without a space"):
        word_ids(known, ["abcd"])


@pytest.mark.slow
def test_an_unprepared_gguf_cuts_alike(own_cache):
    vocabulary = load_vocabulary(EMBEDDED)
    with pytest.raises(InputError, match="' xy', 'zzy', 'pl' and 'ugh'"):
        forms(vocabulary, "xyzzyplugh")


SPELLINGS = ("positive,negative", "negative, positive", " positive , negative", "positive, negative,", "negative,positive,negative")


def test_every_spelling_gives_one_figure(embedded_vocabulary):
    prompt = drifted(embedded_vocabulary, 0, planted=0.15)
    figures = {
        tuple(direction([prompt], embedded_vocabulary, words=typed_words(text)).iloc[0][["words_median_rank", "words_p"]])
        for text in SPELLINGS
    }
    assert len(figures) == 1
    ids = word_ids(embedded_vocabulary, typed_words(SPELLINGS[0]))
    assert sorted(names(embedded_vocabulary, ids)) == [" negative", " positive"]


def test_which_tokens_are_tested_is_told(embedded_vocabulary):
    assert told(embedded_vocabulary, ["ancient", "organ"]) == "' ancient' and ' organ' ('organ' is a token too)"
    assert told(embedded_vocabulary, [" Paris", " Tegucigalpa"]) == "2 answers, the first token of each: 1 of them is several tokens"
    assert told(embedded_vocabulary, [" Paris"]) == "1 answer"
