"""The table of the Library: what is found in it by a word and by filters, and its chips."""

import json
import shutil

import pandas as pd
import pytest

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.behaviour.beyond_chance import AS_CHANCE
from soft_prompt_explorer.analysis.behaviour.kept_lens import EFFECT, WORDS
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.analysis.prompts.verdicts import readings
from soft_prompt_explorer.app.charts.theme import EFFECT_MARKS, HAS_EFFECT, NO_EFFECT, VERDICT_MARKS, verdict_label
from soft_prompt_explorer.trained_prompts.runs import store
from tests.support.driving import driver_of, settled

pytestmark = pytest.mark.slow


@pytest.fixture
def library(own_runs):
    def open_page(**query):
        driver = settled(driver_of("library", **query))
        assert not driver.exception and not driver.error
        return driver

    return open_page


def test_a_chip_tells_each_verdict_of_a_prompt_with_a_shape_beside_the_word(library, embedded_vocabulary):
    driver = library()
    table = driver.dataframe[0].value.set_index("name")
    for name in ("plural-words-1", "sentiment-random-3"):
        counts = readings(load_soft_prompt(GALLERY / name), embedded_vocabulary)["verdict"].value_counts()
        assert list(table.loc[name, "verdict"]) == [*map(verdict_label, counts.index), "▲ acts"]
    loras = table[table["kind"] == "LoRA"]
    assert loras["verdict"].map(tuple).unique().tolist() == [("▲ acts",)]
    column = json.loads(driver.dataframe[0].proto.columns)["verdict"]
    assert {each["value"] for each in column["type_config"]["options"]} >= {chip for chips in table["verdict"] for chip in chips}
    shapes = [*(verdict_label(name)[0] for name in VERDICT_MARKS), *(shape for _, shape in EFFECT_MARKS.values())]
    assert len(set(shapes)) == len(shapes)


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        ({"search": "Plural"}, lambda table: table["name"].str.contains("plural") | (table["task"] == "plural")),
        ({"search": "RANK 64"}, lambda table: table["size"] == "rank 64"),
        ({"kind": "LoRA"}, lambda table: table["kind"] == "LoRA"),
        ({"tasks": ["capitals", "plural"]}, lambda table: table["task"].isin(["capitals", "plural"])),
        ({"verdict": ["unreadable"]}, lambda table: table["verdict"].map(lambda chips: "✕ unreadable" in chips)),
        ({"verdict": ["echo", "unreadable"]}, lambda table: table["verdict"].map(lambda chips: bool({"■ echo", "✕ unreadable"} & set(chips)))),
        ({"verdict": ["echo"], "tasks": ["plural"], "search": "words"}, lambda table: table["name"].str.startswith("plural-words")),
    ],
)  # fmt: skip
def test_a_word_and_the_filters_leave_what_they_say_and_a_link_holds_them(library, query, holds):
    everything = library().dataframe[0].value
    shown = library(**query).dataframe[0].value["name"].tolist()
    assert shown == everything.loc[holds(everything), "name"].tolist()
    assert 0 < len(shown) < len(everything)


def test_what_nothing_is_like_gets_a_sentence(library):
    driver = library(search="no such adapter")
    assert not driver.dataframe
    assert "Take a filter away" in driver.info[0].value


def test_a_run_of_ones_own_has_the_chip_that_is_kept_with_it_and_none_is_made_up(library, saved_lora):
    of_mine = library(search="mine").dataframe[0].value.set_index("name").loc["mine", "verdict"]
    assert len(of_mine) == 0
    gallery, mine = (store.adapter_path(name) for name in ("capitals-lora-8", "mine"))
    for file in (WORDS, EFFECT):
        shutil.copy(gallery / file, mine / file)
    assert list(library(search="mine").dataframe[0].value.set_index("name").loc["mine", "verdict"]) == [f"▲ {HAS_EFFECT}"]
    effect = pd.read_csv(mine / EFFECT)
    effect.assign(verdict=AS_CHANCE).to_csv(mine / EFFECT, index=False)
    assert list(library(search="mine").dataframe[0].value.set_index("name").loc["mine", "verdict"]) == [f"▽ {NO_EFFECT}"]
