"""Every page draws beside run folders that each have one thing wrong; the lists name what they leave out."""

import pytest
from streamlit.testing.v1 import AppTest

from soft_prompt_explorer.app.pages import (
    BEHAVIOUR,
    BESIDE,
    COLLECTION,
    DOES,
    FINDINGS,
    GLOSSARY,
    LESSON,
    MADE,
    MEASURES,
    METHODS,
    RANKS,
    READINGS,
    SMALLER,
    SOURCES,
    TOKENS,
    TRY,
)
from soft_prompt_explorer.app.parts.atlas_search import A_TOKEN
from soft_prompt_explorer.trained_prompts.runs import store
from tests.support.damaged_runs import OF_WHAT_IT_DOES, PROMPT, damaged_runs
from tests.support.driving import driver_of, settled

pytestmark = pytest.mark.slow
TWO = [PROMPT, "capitals-words-1"]
PAGES = [
    ("start", {}),
    ("library", {}),
    ("library", {"tab": "Open a file"}),
    ("library", {"tab": COLLECTION}),
    ("library", {"tab": "Scores"}),
    *(("prompt", {"prompt": PROMPT, "tab": tab}) for tab in (DOES, TOKENS, BEHAVIOUR, TRY, MADE)),
    *(("lora", {"lora": "sentiment-lora-8", "tab": tab}) for tab in (DOES, RANKS, SMALLER, BESIDE, MADE)),
    ("atlas", {"prompts": TWO}),
    ("atlas", {"prompts": TWO, "tab": "Compare"}),
    ("atlas", {"prompts": TWO, "word": "river"}),
    ("atlas", {"prompts": TWO, "by": A_TOKEN, "prompt": PROMPT, "token": "3"}),
    ("train", {}),
    *(("learn", {"tab": tab}) for tab in (LESSON, READINGS, MEASURES, METHODS, FINDINGS, GLOSSARY, SOURCES)),
]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged") / "runs"
    return folder, damaged_runs(folder, 1000)


def drawn(driver: AppTest) -> AppTest:
    assert not driver.exception, driver.exception[0].value
    assert not any("failed unexpectedly" in error.value for error in driver.error)
    return driver


@pytest.mark.parametrize(("name", "query"), PAGES)
def test_every_page_draws_beside_a_thousand_of_them(damaged, embedded_map, monkeypatch, name, query):
    monkeypatch.setenv("SOFT_PROMPT_EXPLORER_RUNS", str(damaged[0]))
    driver = drawn(settled(driver_of(name, **query)))
    assert driver.title
    assert not driver.error
    if (name, query) == ("library", {}):
        (caption,) = [caption for caption in driver.caption if "Left out" in caption.value]
        line = caption.value.replace("\\", "")
        assert caption.help.count("\n\n") == 18  # nineteen more are told where one points at it
        first = next(iter(store.left_out()))
        assert first in line and "more" in line and "move the folder" in line


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("library", {}),
        *(("prompt", {"tab": tab}) for tab in (DOES, TOKENS, BEHAVIOUR, MADE)),
        *(("lora", {"tab": tab}) for tab in (DOES, MADE)),
        ("atlas", {}),
        ("atlas", {"tab": "Compare"}),
    ],
)
def test_a_page_that_opens_on_damaged_ones_draws_and_says_what_is_wrong(own_runs, embedded_map, name, query):
    wrong = damaged_runs(own_runs, 12, seed=1) | damaged_runs(own_runs, 12, seed=2, only=OF_WHAT_IT_DOES)
    drawn(settled(driver_of(name, **query)))
    if name in ("prompt", "lora"):  # one at a time: each is read, or refused where the person is
        method = "prompt-tuning" if name == "prompt" else "lora"
        for key in store.list_runs().query(f"origin == 'yours' and method == {method!r}")["name"]:
            driver = drawn(settled(driver_of(name, **query, **{name: key})))
            assert driver.title, wrong[key]
