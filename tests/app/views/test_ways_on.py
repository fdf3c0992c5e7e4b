"""Where a person goes on to from a figure: a link says which prompt, which token and which task it is about, and finds them there."""

from dataclasses import replace
from types import SimpleNamespace
from urllib.parse import parse_qs

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.app.pages import BEHAVIOUR, BESIDE, COMPARE, FINDINGS, METHODS, RANKS, SIZES, TOKENS
from soft_prompt_explorer.app.parts import several
from soft_prompt_explorer.app.parts.behaviour_token import on_atlas
from soft_prompt_explorer.app.parts.chosen import VISIT
from soft_prompt_explorer.app.parts.findings import parts
from soft_prompt_explorer.trained_prompts.runs import store
from tests.support.driving import driver_of, settled

pytestmark = pytest.mark.slow

NAME = "sentiment-words-1"


def ways(driver: AppTest) -> dict[str, dict[str, list[str]]]:
    """What each link of the page says, by its label."""
    return {link.label.replace("\\", ""): parse_qs(link.query_string) for link in driver.get("page_link")}


@pytest.mark.parametrize("said", [{"tab": TOKENS}, {"tab": BEHAVIOUR, "view": "One token"}], ids=lambda said: said["tab"])
def test_a_token_is_found_on_the_map_and_its_training_is_played_there(own_runs, embedded_map, said):
    driver = settled(driver_of("prompt", prompt=NAME, token="3", **said))
    assert not driver.exception and not driver.error
    found = ways(driver)
    assert found["On the map"] == {"prompts": [NAME], "selected": ["3"]}
    assert store.has_trajectory(NAME)
    assert found["Play how it moved"] == {"prompts": [NAME], "selected": ["3"], "played": [NAME]}
    atlas = settled(
        driver_of("atlas", **{name: values if name == "prompts" else values[0] for name, values in found["Play how it moved"].items()})
    )
    assert not atlas.exception and not atlas.error
    assert any(text.value.startswith("**1 selected") for text in atlas.markdown)
    assert atlas.selectbox(key="played").value == NAME


def test_of_a_prompt_that_is_read_against_another_model_nothing_leads_to_the_map(own_runs, llama_folder):
    driver = settled(driver_of("prompt", prompt=NAME, tab=TOKENS))
    assert "On the map" in ways(driver)
    driver.text_input(key="model").set_value(str(llama_folder)).run()
    assert "On the map" not in ways(driver)


def test_a_link_to_a_selection_is_followed_after_another_one(own_runs, embedded_map):
    driver = settled(driver_of("atlas", prompts=[NAME], selected="3-5"))
    assert any(text.value.startswith("**3 selected") for text in driver.markdown)
    driver.query_params["selected"] = "7"
    assert any(text.value.startswith("**1 selected") for text in settled(driver).markdown)
    assert driver.query_params["selected"] == "7"
    driver.multiselect(key="prompts").set_value(["capitals-words-1"])
    assert any(text.value.startswith("**All 10") for text in settled(driver).markdown)


def test_a_link_to_the_same_numbers_selects_them_of_another_prompt(own_runs, embedded_map):
    driver = settled(driver_of("atlas", prompts=[NAME], selected="0"))
    driver.session_state[VISIT] += 1  # by way of another page
    driver.query_params["selected"] = "0"
    driver.multiselect(key="prompts").set_value(["capitals-words-1"])
    assert any(text.value.startswith("**1 selected") for text in settled(driver).markdown)


def test_of_a_file_of_several_prompts_the_first_alone_has_a_key(monkeypatch):
    """The others have none, for the page would open the first."""
    first, second, twin = (
        SoftPrompt(name, np.full((2, 3), i, np.float32), None, None, None, None) for i, name in enumerate(("a (1)", "a (2)", "b"))
    )
    whole = SimpleNamespace(split=lambda: [first, second])
    monkeypatch.setattr(several.choosing, "load_prompt", lambda key: {"a": whole, "b": SimpleNamespace(split=lambda: [twin])}[key])
    renamed = replace(twin, name="b (2)")  # as a table calls it where another one is called so
    assert several.keys_by_name([first, second, renamed], ["a", "b"]) == {"a (1)": "a", "b (2)": "b"}


def test_the_cluster_of_a_token_is_found_among_the_prompts_that_share_it():
    members = pd.DataFrame({"prompt": ["a", "a", "b", "b", "c (encoder)", "c (decoder)"], "cluster": [-1, 2, 0, 0, -1, 2]})
    keys = {"a": "a", "b": "b", "c (encoder)": "c", "c (decoder)": "c"}
    assert on_atlas(members, 2, keys) == (["a", "c"], [1, 3])
    assert on_atlas(members, 0, keys) == (["b"], [0, 1])
    assert on_atlas(members, 2, {"b": "b", "c (encoder)": "c", "c (decoder)": "c"}) == (["c"], [1])


def test_what_is_compared_is_opened_from_there(own_runs, embedded_map):
    driver = settled(driver_of("atlas", tab=COMPARE, prompts=[NAME, "capitals-words-1"]))
    found = ways(driver)
    for name in (NAME, "capitals-words-1"):
        assert found[f"Open {name}"] == {"prompt": [name], "tab": [TOKENS]}
    driver = settled(driver_of("lora", tab=BESIDE, lora="sentiment-lora-8", other="capitals-lora-8"))
    assert ways(driver)["Open capitals-lora-8"] == {"lora": ["capitals-lora-8"], "tab": [RANKS]}


def test_methods_lead_to_training_to_what_was_trained_and_to_what_was_found(own_runs):
    driver = settled(driver_of("learn", tab=METHODS, task="sentiment"))
    found = ways(driver)
    assert found["Train one on this task"] == {"task": ["sentiment"]}
    assert found["Read what was trained on it"] == {"tasks": ["sentiment"]}
    library = settled(driver_of("library", tasks="sentiment"))
    assert set(library.dataframe[0].value["task"]) == {"sentiment"}
    finding = ways(settled(driver_of("learn", tab=METHODS, methods=SIZES)))["What was found"]
    assert finding["tab"] == [FINDINGS] and finding["finding"][0] in parts()
