"""The head of a page says no more than its tables do."""

import pytest

from soft_prompt_explorer.analysis.behaviour import kept_lens, kept_translation
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.app.parts.prompt_header import gain, in_brief


@pytest.mark.parametrize(("low", "says"), [(0.31, "It works"), (0.29, "No gain is shown beyond the intervals")])
def test_a_gain_is_told_only_where_the_intervals_lie_apart(low, says):
    bare = {"measure": "accuracy", "score": 0.2, "low": 0.1, "high": 0.3, "n": 50}
    trained = {"measure": "accuracy", "score": 0.5, "low": low, "high": 0.7, "n": 50}
    assert gain(bare, trained).startswith(
        f"**{says}:** held-out accuracy 20% (10% to 30%) without it, 50% ({low:.0%} to 70%) with it, n 50."
    )


def test_the_best_control_stands_beside_the_text_that_does_it():
    texts = kept_translation.read(GALLERY / "past-tense-words-1")
    assert texts is not None
    chosen = texts[texts["chosen"]].iloc[0]
    assert (
        in_brief(texts, None)
        == f"{chosen['candidate']} in its place do {chosen['share']:.0%} of it; the best control {chosen['control_share']:.0%}"
    )
    assert in_brief(kept_translation.read(GALLERY / "capitals-words-1"), None) == "no text that was tried says it"


@pytest.mark.parametrize(("name", "twin"), [("sentiment-lora-8", "; no twin is at hand"), ("number-words-words-1", "; its twin too")])
def test_words_stand_beside_what_is_known_of_a_twin(name, twin):
    told = kept_lens.read(GALLERY / name)
    assert told is not None
    words = told.last[told.last["q"] < 0.05]["token"].str.strip().drop_duplicates().head(3)
    assert in_brief(None, told) == f"it pushes the model towards {', '.join(words)}{twin}"
