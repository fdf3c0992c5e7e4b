"""The head of a page says no more than its tables do."""

import pandas as pd
import pytest

from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.behaviour import kept_lens, kept_translation
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.app.parts.prompt_header import gain, in_brief
from soft_prompt_explorer.app.parts.training_figures import loss_in_words
from soft_prompt_explorer.trained_prompts.experiments import sizes

BARE = {"measure": "accuracy", "score": 0.2, "low": 0.1, "high": 0.3, "n": 50, "loss": 2.0}


@pytest.mark.parametrize(("low", "says"), [(0.31, "It works"), (0.29, "No gain is shown beyond the intervals")])
def test_a_gain_is_told_only_where_the_intervals_lie_apart(low, says):
    trained = BARE | {"score": 0.5, "low": low, "high": 0.7, "loss": 1.0}
    assert gain(BARE, trained) == f"**{says}:** held-out accuracy 20% (10% to 30%) without it, 50% ({low:.0%} to 70%) with it, n 50."


def test_a_harm_is_told_only_where_the_intervals_lie_apart():
    assert gain(BARE, BARE | {"score": 0.05, "low": 0.0, "high": 0.09}).startswith("**It does harm:** ")
    assert gain(BARE, BARE | {"score": 0.05, "low": 0.0, "high": 0.11}).startswith("**No gain is shown")


def test_of_the_kept_prompts_of_the_large_model_those_are_said_to_be_worse_that_are():
    said = {}
    for folder in sizes.FOLDER.glob("*-qwen2.5-coder-1.5b-prompt-tuning-*"):
        scores = read_description(folder)["scores"]
        said[folder.name] = "The held-out loss is higher with it" in gain(scores["no prompt"], scores["trained"])
    assert len(said) == 12
    assert {name for name, worse in said.items() if worse} == {
        f"{of}-qwen2.5-coder-1.5b-prompt-tuning-{seed}" for of, seed in (("past-tense", 1), ("past-tense", 2), ("capitals", 2))
    }


@pytest.mark.parametrize(
    ("losses", "says"),
    [
        ([2.6, 10.8, 10.2, *[4.0] * 37], "The loss does not fall: 2.60 at first, 4.00 now. A smaller learning rate may help."),
        ([2.6, *[1.0] * 39], "The loss falls: 2.60 at first, 1.00 now."),
        ([2.6, 2.7], "The loss does not fall: 2.60 at first, 2.70 now."),
        ([2.6], None),
    ],
)
def test_a_loss_is_told_beside_that_of_the_first_step(losses, says):
    assert loss_in_words(pd.DataFrame({"loss": losses})) == says


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
