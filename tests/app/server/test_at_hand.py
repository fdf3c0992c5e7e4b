"""What the server reads once: a vocabulary a process, the list of runs a change of its folders."""

import json
import os
import shutil
import threading

import pytest

from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.analysis.models import vocabulary as vocabularies
from soft_prompt_explorer.app.pages import BEHAVIOUR, TOKENS, TRY
from soft_prompt_explorer.app.server import at_hand
from soft_prompt_explorer.trained_prompts.runs import store
from tests.support.driving import driver_of, settled
from tests.support.places import EMBEDDED


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The models' folders whose kept rows are opened, an entry each time; as in a process that has not opened any."""
    monkeypatch.setattr(at_hand, "_vocabularies", at_hand._Read(at_hand.VOCABULARIES))
    folders: list[str] = []

    class Counted(vocabularies.KeptArrays):
        def get(self, compute):
            if self.path.name == "embeddings.kept":
                folders.append(self.path.parent.name)
            return super().get(compute)

    monkeypatch.setattr(vocabularies, "KeptArrays", Counted)
    return folders


@pytest.fixture
def listed(monkeypatch) -> list[int]:
    """An entry each time that the runs are read from the disk; as in a process that has not read them."""
    monkeypatch.setattr(at_hand, "_lists", at_hand._Read(1))
    times: list[int] = []
    read = store.list_runs

    def list_runs():
        times.append(len(times))
        return read()

    monkeypatch.setattr(store, "list_runs", list_runs)
    return times


@pytest.mark.slow
def test_clicks_on_several_pages_load_the_vocabulary_once_and_read_the_runs_once(own_runs, embedded_vocabulary, opened, listed):
    for page, query in (
        ("prompt", {"prompt": "sentiment-words-1", "tab": TOKENS}),
        ("atlas", {"word": "positive"}),
        ("prompt", {"prompt": "plural-words-1", "tab": TRY}),
    ):
        driver = settled(driver_of(page, **query))
        assert not driver.exception and not driver.error
        settled(driver)
    for page, query, act, seen in (
        ("prompt", {"prompt": "sentiment-words-1", "tab": TOKENS}, lambda page: page.slider(key="k").set_value(3), "Near to now"),
        ("prompt", {"prompt": "plural-words-1", "tab": BEHAVIOUR}, lambda page: page.button_group(key="view").set_value("In words"), "Patchscopes"),
        ("atlas", {}, lambda page: page.text_input(key="word").set_value("river"), "Searched as"),
    ):  # fmt: skip
        driver = settled(driver_of(page, **query))
        act(driver)
        settled(driver)
        assert not driver.exception and not driver.error
        assert any(seen in each.value for each in [*driver.markdown, *driver.caption])
    assert len(opened) == 1
    assert len(listed) == 1


def test_a_vocabulary_is_the_same_object_until_its_model_or_what_is_kept_of_it_changes(own_cache, llama_folder, tmp_path, opened):
    folder = shutil.copytree(llama_folder, tmp_path / "model")
    first = at_hand.vocabulary(str(folder))
    assert at_hand.vocabulary(str(folder)) is first and len(opened) == 1
    os.utime(folder / "config.json", ns=(1, 1))
    second = at_hand.vocabulary(str(folder))
    assert second is not first and len(opened) == 2
    (second.cache / "words.kept").unlink()
    third = at_hand.vocabulary(str(folder))
    assert third is not second and third.tokens == second.tokens and (third.cache / "words.kept").is_file()
    assert at_hand.vocabulary(str(folder)) is third


def test_threads_that_ask_at_once_load_it_once(own_cache, llama_folder, opened):
    found = []
    threads = [threading.Thread(target=lambda: found.append(at_hand.vocabulary(str(llama_folder)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and all(each is found[0] for each in found)
    assert len(opened) == 1


def test_a_vocabulary_that_nobody_asked_for_lately_makes_room(monkeypatch):
    read = at_hand._Read(2)
    for name in ("a", "b", "a", "c"):
        read.get(name, tuple, lambda name=name: [name])
    loads = []
    for name in ("a", "c", "b"):
        read.get(name, tuple, lambda name=name: loads.append(name))
    assert loads == ["b"]


def test_what_failed_is_tried_again():
    read = at_hand._Read(1)
    with pytest.raises(ZeroDivisionError):
        read.get("it", tuple, lambda: 1 / 0)
    assert read.get("it", tuple, lambda: 1) == 1


def test_the_runs_are_read_again_when_one_comes_changes_or_goes(own_runs, listed):
    def yours() -> list[str]:
        runs = at_hand.list_runs()
        return runs.loc[runs["origin"] == "yours", "name"].tolist()

    assert yours() == yours() == [] and len(listed) == 1
    shutil.copytree(GALLERY / "sentiment-words-1", own_runs / "mine")
    assert yours() == yours() == ["mine"] and len(listed) == 2
    description = json.loads((own_runs / "mine" / "run.json").read_text())
    description["config"]["seed"] = 77
    (own_runs / "mine" / "run.json").write_text(json.dumps(description))
    assert at_hand.list_runs().set_index("name").loc["mine", "seed"] == 77 and len(listed) == 3
    (own_runs / "mine" / "run.json").write_text("{")
    assert yours() == [] and list(at_hand.left_out()) == ["mine"] and len(listed) == 4
    store.delete("mine")
    assert yours() == [] and not at_hand.left_out() and len(listed) == 5


def test_who_changes_a_list_changes_it_for_nobody_else(own_runs):
    runs = at_hand.list_runs()
    runs["name"] = "x"
    at_hand.left_out()["x"] = "x"
    assert (at_hand.list_runs()["name"] != "x").all() and not at_hand.left_out()


def test_the_vocabulary_of_the_pages_is_the_one_that_everybody_loads(embedded_vocabulary):
    ours = at_hand.vocabulary(EMBEDDED)
    assert ours.tokens == embedded_vocabulary.tokens and (ours.embeddings[:100] == embedded_vocabulary.embeddings[:100]).all()
