"""The tab Collection: the folder of a batch that was really run, a stranger's folder, and the way to a single adapter."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from soft_prompt_explorer.analysis.report.batch_folder import collection
from soft_prompt_explorer.app.parts import collection_page
from soft_prompt_explorer.app.server.allowed import VARIABLE
from tests.support.driving import driver_of, settled
from tests.support.hostile_text import HOSTILE
from tests.support.made_collection import ADAPTERS, PROMPTS, UNRELATED, made_collection

pytestmark = pytest.mark.slow
WIDTH = 16  # of the tiny model


@pytest.fixture(scope="module")
def batched(llama_folder, tmp_path_factory):
    """The folder of a batch and the adapters that it read, side by side."""
    folder = tmp_path_factory.mktemp("collections")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFT_PROMPT_EXPLORER_CACHE", str(folder / "cache"))
        made_collection(folder / "adapters", folder / "tables", model=llama_folder, width=WIDTH)
    return folder


@pytest.fixture
def allowed(batched, own_runs, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(batched))
    return batched


def opened(folder, **query) -> AppTest:
    driver = settled(driver_of("library", tab="Collection", collection=str(folder), **query))
    assert not driver.exception, driver.exception[0].value
    return driver


def said(driver: AppTest) -> str:
    kinds = (driver.error, driver.info, driver.markdown, driver.caption)
    return "\n".join(element.value.replace("\\", "") for kind in kinds for element in kind)


def adapters_in(driver: AppTest) -> pd.DataFrame:
    return driver.dataframe[0].value


def test_without_a_folder_one_command_is_told_and_a_folder_asked_for(batched, own_runs, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    driver = settled(driver_of("library", tab="Collection"))
    assert not driver.exception and not driver.error
    (command,) = (block.value for block in driver.code)
    assert command.startswith("spe batch '") and str(own_runs) in command
    assert driver.text_input(key="collection").value == ""


def test_a_batch_is_counted_in_one_line_and_stands_in_a_table_of_few_columns_in_words(allowed):
    driver = opened(allowed / "tables")
    line = next(text.value for text in driver.markdown if "adapters**" in text.value)
    assert line.startswith(f"**{ADAPTERS} adapters** (LoRA {UNRELATED + 4}, Soft prompt {PROMPTS + 1})")
    assert line.endswith("refused 1 · same bytes as another 2 · near copies of another 1 · shared starts 1")
    table = adapters_in(driver)
    assert len(table) == ADAPTERS and len(table.columns) == 8
    assert table["name"].tolist() == sorted(path.name for path in (allowed / "adapters").iterdir() if path.name != "broken.npy")
    of_name = collection(allowed / "tables")["effective_rank"].tolist()
    assert table["effective_rank"].tolist() == pytest.approx(of_name)
    assert len(driver.get("plotly_chart")) == 1
    driver.toggle(key="more").set_value(True)
    assert {"sha256", "path", "notes", "copies"} <= set(adapters_in(settled(driver)).columns)


def test_filters_and_a_search_leave_what_is_like_them(allowed):
    driver = opened(allowed / "tables")
    driver.multiselect(key="of-kind").set_value(["Soft prompt"])
    assert adapters_in(settled(driver))["kind"].unique().tolist() == ["Soft prompt"]
    assert f"**{PROMPTS + 1} of {ADAPTERS} adapters**" in said(driver)
    driver.text_input(key="named").set_value("PROMPT-3")
    assert adapters_in(settled(driver))["name"].tolist() == ["prompt-3.npy"]
    driver.text_input(key="named").set_value("lora-other")
    assert "No adapter is like that" in said(settled(driver))
    driver.multiselect(key="of-kind").set_value([])
    assert len(adapters_in(settled(driver))) == UNRELATED


def test_the_map_draws_no_more_dots_than_a_lasso_can_bring_back_and_says_what_it_leaves_out(allowed, monkeypatch):
    assert "are drawn" not in said(opened(allowed / "tables"))
    monkeypatch.setattr(collection_page, "MOST_DOTS", 5)
    told = said(opened(allowed / "tables"))
    assert f"The first 5 of {UNRELATED + 4} are drawn" in told
    assert f"{PROMPTS + 1} without one of the two figures" in told


def test_copies_near_copies_and_shared_starts_stand_in_tables_of_their_own_and_what_was_refused_says_why(allowed):
    driver = opened(allowed / "tables")
    folded = {expander.label.partition(":")[0]: expander for expander in driver.expander}
    assert list(folded) == ["Files of the same bytes", "Near copies", "Shared starts", "Refused"]
    rows = {name: expander.dataframe[0].value for name, expander in folded.items()}
    assert rows["Files of the same bytes"][["first", "others"]].to_numpy().tolist() == [
        ["lora-base.safetensors", "lora-zz-again.safetensors"],
        ["prompt-1.npy", "prompt-again.npy"],
    ]
    assert rows["Near copies"]["others"].tolist() == ["lora-near.safetensors, lora-zz-again.safetensors"]
    assert rows["Shared starts"][["first", "adapters"]].to_numpy().tolist() == [["lora-base.safetensors", 4]]
    (refused,) = rows["Refused"].itertuples()
    assert refused.path.endswith("broken.npy") and len(refused.why) > 20


def test_a_selection_in_a_link_stands_first_and_what_cannot_be_read_of_it_is_left_out(allowed):
    driver = opened(allowed / "tables", adapters="3-4,999,x")
    names = collection(allowed / "tables")["path"].str.rpartition("/")[2]
    assert f"**2 selected** of {ADAPTERS} adapters" in said(driver)
    assert adapters_in(driver)["name"].tolist()[:2] == names[3:5].tolist()
    next(button for button in driver.button if button.label == "Clear the selection").click()
    assert f"**All {ADAPTERS} adapters**" in said(settled(driver))
    assert "adapters" not in driver.query_params


def test_the_last_folder_is_there_again_when_a_person_comes_back(allowed):
    driver = opened("tables")
    driver.switch_page("views/train.py")
    settled(driver)
    driver.switch_page("views/library.py")
    driver.query_params["tab"] = "Collection"
    settled(driver)
    assert driver.text_input(key="collection").value == "tables" and f"**{ADAPTERS} adapters**" in said(driver)


@pytest.mark.parametrize("name", ["lora-other-3.safetensors", "prompt-3.npy"])
def test_one_is_opened_on_its_own_page(allowed, name):
    number = collection(allowed / "tables")["path"].str.endswith(name).idxmax()
    driver = opened(allowed / "tables", adapters=str(number))
    next(button for button in driver.button if button.label.startswith("Open")).click()
    settled(driver)
    assert not driver.exception
    ((_, adapter),) = driver.session_state["opened"].items()
    assert adapter.source.path == allowed / "adapters" / name
    assert driver.title[0].value.replace("\\", "") == f"{adapter.name} (your file)"


def test_one_that_has_changed_one_that_is_gone_and_one_elsewhere_say_why_they_are_not_opened(allowed, monkeypatch, tmp_path):
    shutil.copytree(allowed / "tables", tmp_path / "tables")
    shutil.copytree(allowed / "adapters", tmp_path / "adapters")
    manifest = pd.read_parquet(tmp_path / "tables" / "manifest.parquet")
    here = manifest["path"].str.replace(str(allowed), str(tmp_path), regex=False)
    away = "s3://bucket/prompt.npy"
    manifest.assign(path=[away, *here[1:]]).to_parquet(tmp_path / "tables" / "manifest.parquet")
    last = len(manifest) - 1
    np.save(tmp_path / "adapters" / here[last].rpartition("/")[2], np.ones((2, WIDTH), np.float32))
    (tmp_path / "adapters" / here[1].rpartition("/")[2]).unlink()
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    for number, why in ((0, "is not on this machine"), (1, "that may be opened"), (last, "is not what the batch read")):
        driver = opened("tables", adapters=str(number))
        next(button for button in driver.button if button.label.startswith("Open")).click()
        settled(driver)
        assert not driver.exception and why in driver.error[0].value.replace("\\", "")
        assert "opened" not in driver.session_state or not driver.session_state["opened"]
    monkeypatch.setenv(VARIABLE, str(tmp_path / "tables"))  # the adapters lie beside it now, not below
    driver = opened(tmp_path / "tables", adapters="2")
    next(button for button in driver.button if button.label.startswith("Open")).click()
    assert "that may be opened" in settled(driver).error[0].value.replace("\\", "")


def test_a_foreign_a_damaged_and_an_outside_folder_are_a_sentence_each(allowed, tmp_path):
    shutil.copytree(allowed / "tables", allowed / "damaged", dirs_exist_ok=True)
    modules = next((allowed / "damaged" / "modules").glob("*/part.parquet"))
    modules.write_bytes(modules.read_bytes()[:100])
    for folder, why in (
        ("adapters", "There is no manifest.parquet"),
        ("damaged", "it is damaged, or cut off"),
        ("tables/manifest.parquet", "is a file; name a folder that the command line's"),
        ("nothing", "that may be opened"),
        (tmp_path, "that may be opened"),
        ("/etc", "that may be opened"),
    ):
        driver = opened(folder)
        (error,) = driver.error
        assert why in error.value.replace("\\", ""), folder
        assert not driver.dataframe
    shutil.rmtree(allowed / "damaged")


def test_what_a_stranger_wrote_stays_text(allowed, tmp_path, monkeypatch):
    shutil.copytree(allowed / "tables", tmp_path / "tables")
    manifest = pd.read_parquet(tmp_path / "tables" / "manifest.parquet")
    for name in ("kind", "base_model", "format", "method", "notes"):
        manifest[name] = manifest[name].astype(object).where(manifest.index > 1, f"{HOSTILE} {name}")
    manifest["path"] = [HOSTILE, f"{HOSTILE} too", *manifest["path"][2:]]
    manifest.to_parquet(tmp_path / "tables" / "manifest.parquet")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    driver = opened("tables", adapters="0-1", marks="base model", more="true", across="effective rank")
    told = [element.value for kind in (driver.markdown, driver.caption, driver.info) for element in kind]
    told += [button.label for button in driver.button] + [expander.label for expander in driver.expander]
    assert any("evil" in text for text in told)
    assert not [text for text in told if re.search(r"(?<!\\)<img|http://evil|(?<!\\)\]\(|:red(?<!\\)\[", text)]
    assert adapters_in(driver)["base_model"].tolist()[:2] == [f"{HOSTILE} base_model"[:199] + "…"] * 2


def test_a_batch_among_the_runs_may_be_opened_without_a_word_to_the_server(batched, own_runs, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    shutil.copytree(batched / "tables", own_runs / "tables")
    assert f"**{ADAPTERS} adapters**" in said(opened("tables"))


@pytest.mark.parametrize("only", ["prompts", "loras"])
def test_a_collection_of_one_kind_offers_what_it_has(own_runs, own_cache, llama_folder, tmp_path, monkeypatch, only):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    made_collection(
        tmp_path / "adapters", tmp_path / "tables", model=llama_folder, width=WIDTH, prompts=only == "prompts", loras=only == "loras"
    )
    driver = opened("tables")
    across = driver.selectbox(key="across").options
    assert ("largest singular value" in across) == (only == "loras")
    assert ("tokens: moved along a word" in across) == (only == "prompts")
    labels = {expander.label.partition(":")[0] for expander in driver.expander}
    assert ("Near copies" in labels) == (only == "loras")
    assert not [field for field in driver.multiselect if field.key == "of-kind"]  # there is one kind alone
    assert "near copies" in said(driver) if only == "loras" else "near copies" not in said(driver)


def test_one_adapter_alone_and_none_at_all_are_told_as_they_are(own_runs, own_cache, llama_folder, tmp_path, monkeypatch):
    from soft_prompt_explorer.analysis.report.batches import batch

    monkeypatch.setenv(VARIABLE, str(tmp_path))
    (tmp_path / "adapters").mkdir()
    np.save(tmp_path / "adapters" / "one.npy", np.random.default_rng(0).normal(size=(3, WIDTH)).astype(np.float32))
    batch(str(tmp_path / "adapters" / "one.npy"), tmp_path / "one", model=str(llama_folder))
    driver = opened("one")
    assert "**1 adapter**" in said(driver) and len(adapters_in(driver)) == 1
    (tmp_path / "adapters" / "one.npy").write_bytes(b"no array")
    batch(str(tmp_path / "adapters" / "one.npy"), tmp_path / "none", model=str(llama_folder))
    driver = opened("none")
    assert "No adapter of this batch could be read" in said(driver)
    assert driver.dataframe[0].value["path"].str.endswith("one.npy").tolist() == [True]
