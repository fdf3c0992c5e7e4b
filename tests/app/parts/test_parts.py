"""Parts of pages by themselves, as functions of what they are handed."""

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.report.measures import MEASURES
from soft_prompt_explorer.app.parts.chosen import Chosen
from soft_prompt_explorer.app.parts.lora_copy import lies
from soft_prompt_explorer.app.parts.prompt_on_page import PromptOnPage
from soft_prompt_explorer.app.parts.selections import numbers_in, ranges
from soft_prompt_explorer.app.parts.training_state import settings_in_words
from soft_prompt_explorer.app.server.jobs import Progress
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from tests.support.waiting import PATIENCE


def drawn(part, *handed) -> AppTest:
    """A page that holds this part alone."""
    driver = AppTest.from_function(part, args=handed, default_timeout=PATIENCE).run()
    assert not driver.exception, driver.exception[0].value
    return driver


def said(driver: AppTest) -> list[tuple[str, str]]:
    """The sentences in boxes, each with the kind of its box."""
    kinds = ("info", "success", "warning", "error")
    return [(kind, element.value.replace("\\", "")) for kind in kinds for element in getattr(driver, kind)]


def how_alike(row, pairs, count):
    from soft_prompt_explorer.app.parts.two_prompts import say_how_alike

    say_how_alike(row, pairs, count)


@pytest.mark.parametrize(
    ("z", "against", "same", "count", "kind", "says"),
    [
        (np.nan, "starts", [False, False], 1, "info", "nothing is said of chance"),
        (1.0, "starts", [True, False], 1, "info", "likewise may be. 1 of 2 matched tokens started from the same values"),
        (2.5, "starts", [False, False], 325, "info", "of which one of 325 pairs may reach"),
        (5.0, "one start", [False, None], 1, "warning", "where the tokens of one of them started is unknown"),
        (5.0, "no start", [None, None], 1, "warning", "where the tokens started is unknown"),
        (5.0, "starts", [True, False], 1, "warning", "beyond the start that 1 of 2 matched tokens share"),
        (5.0, "starts", [False, False], 1, "success", "no matched tokens started from the same values"),
    ],
)
def test_two_prompts_are_said_to_be_alike_only_beyond_chance_and_beyond_a_shared_start(z, against, same, count, kind, says):
    pairs = pd.DataFrame({"same_start": pd.array(same, "boolean")})
    ((box, sentence),) = said(drawn(how_alike, pd.Series({"z": z, "against": against}), pairs, count))
    assert box == kind and says in sentence


def clusters_headline(clusters, tokens):
    from soft_prompt_explorer.app.parts.cluster_headline import headline

    headline(clusters, tokens)


def found(**columns) -> pd.DataFrame:
    one = {"cluster": 0, "label": "sun, moon, star", "size": 4, "prompts": 2, "tightness": 0.9, "tightness_p": 0.01, "stability": 0.9}
    starts = {"shared_start": 0.0, "start_tightness": 0.1, "echo": pd.array([False], "boolean")}
    return pd.DataFrame([one]).assign(**starts | columns)


@pytest.mark.parametrize(
    ("clusters", "kind", "says"),
    [
        (found().head(0), "info", "There are no clusters among these 1,200 virtual tokens"),
        (found(stability=0.3), "info", "1 found, and none can be believed"),
        (found(tightness_p=0.2), "info", "1 found, and none can be believed"),
        (found(), "success", "1 of 1 clusters are found again and tighter than chance (0: sun, moon, star)"),
        (found(echo=pd.array([True], "boolean")), "warning", "1 of them is an echo"),
        (found(echo=pd.array([None], "boolean")), "warning", "1 of them may be an echo"),
    ],
)
def test_a_cluster_is_believed_only_where_it_is_stable_tight_and_no_echo(clusters, kind, says):
    ((box, sentence),) = said(drawn(clusters_headline, clusters, 1200))
    assert box == kind and says in sentence


class Queue:
    """A queue that only counts."""

    def ahead_of(self, job_id: str) -> int:
        return 2


def training_state(queue, job):
    from soft_prompt_explorer.app.parts.training_state import show_state

    show_state(queue, job)


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"state": "queued"}, "info", "Waiting: 2 before this one."),
        ({"state": "saved", "saved_as": "mine", "steps_done": 9}, "success", "Saved as mine."),
        ({"state": "stopped", "steps_done": 4}, "warning", "Stopped after 4 of 9 steps; it is not among your runs yet."),
        ({"state": "failed", "error": "No [room].", "steps_done": 4, "can_be_kept": True}, "error", "No [room]. What it had learned after 4 of 9 steps can be saved."),
        ({"state": "failed", "error": "No room."}, "error", "No room."),
    ],
)  # fmt: skip
def test_a_training_says_where_it_is_and_what_can_be_done(changes, kind, says):
    config = TrainingConfig(task="plural", steps=9, tokens=3)
    driver = drawn(training_state, Queue(), Progress("id", "a run", config, **changes))
    ((box, sentence),) = said(driver)
    assert (box, sentence) == (kind, says)
    buttons = [button.label for button in driver.button]
    assert buttons == {"queued": ["Stop"], "saved": ["Read it"]}.get(changes["state"], [])


def test_the_settings_of_a_run_are_told_on_one_line_as_far_as_its_method_has_them():
    lora, drawn_to_words = (TrainingConfig(task="plural", **own) for own in ({"method": "lora", "rank": 4}, {"tokens": 3, "readable": 0.5}))
    assert "rank 4" in settings_in_words(lora) and "virtual tokens" not in settings_in_words(lora)
    assert "3 virtual tokens from rows of frequent words · drawn to words (γ = 0.5)" in settings_in_words(drawn_to_words)


def page_facts(page, tokens):
    from soft_prompt_explorer.app.parts.token_readings import show_facts, warn_of_start

    show_facts(page, tokens)
    warn_of_start(page, tokens)


@pytest.mark.parametrize(
    ("initial", "echo", "values", "says"),
    [
        (
            np.ones((2, 3), np.float32),
            [True, False],
            ["2", "2.0 ×", "1 of 2", "3.0 ×"],
            "1 of 2 virtual tokens is still nearest to the word it was",
        ),
        (None, [False, False], ["2", "2.0 ×", "unknown", "unknown"], "initial values of this prompt are unknown"),
    ],
)
def test_a_page_counts_echoes_and_drift_only_where_the_start_is_known(initial, echo, values, says):
    vocabulary = Vocabulary.from_embeddings(["a", "b"], 2 * np.eye(2, 3, dtype=np.float32))
    prompt = SoftPrompt("p", np.full((2, 3), 2.0, np.float32), initial, None, None, None, {})
    tokens = pd.DataFrame({"norm_ratio": [1.0, 3.0], "echo": echo, "drift": [4.0, 8.0]})
    driver = drawn(page_facts, PromptOnPage("p", prompt, vocabulary), tokens)
    assert [metric.value for metric in driver.metric] == values
    assert says in driver.warning[0].value


def one_measure(measure):
    from soft_prompt_explorer.app.parts.measures import show_measure

    show_measure(measure)


def test_a_measure_is_shown_with_its_formula_its_limits_and_its_source_under_its_anchor():
    measure = next(each for each in MEASURES if each.name == "Centred cosine")
    driver = drawn(one_measure, measure)
    assert (driver.subheader[0].value, driver.subheader[0].anchor) == ("Centred cosine", "centred-cosine")
    said = [markdown.value for markdown in driver.markdown]
    formula = next(text for text in said if "$$" in text)
    assert measure.formula in formula and 'tabindex="0"' in formula  # the keyboard reaches it where it is wider than the window
    assert any(measure.not_shown in text for text in said) and measure.source in driver.caption[0].value


@pytest.mark.parametrize("numbers", [[], [0], [0, 1, 2, 5, 7, 8], list(range(30))])
def test_a_selection_comes_back_from_a_link_as_it_went(numbers):
    assert numbers_in(ranges(numbers), 30) == numbers


@pytest.mark.parametrize(
    ("text", "fits"), [("", False), ("0-4,9", True), (ranges(list(range(0, 1000, 2))), True), (ranges(list(range(0, 2000, 2))), False)]
)
def test_a_link_holds_a_selection_that_servers_take(text, fits):
    assert Chosen("adapters", text=text).fits_link == fits


def test_intervals_that_touch_overlap():
    low, high = pd.Series({"low": 0.1, "high": 0.4}), pd.Series({"low": 0.4, "high": 0.9})
    assert (lies(low, high), lies(high, low)) == ("overlaps", "overlaps")
    assert (lies(low, high + 0.1), lies(high + 0.1, low)) == ("lies below", "lies above")
