"""Each page through Streamlit's own test driver; what only a browser shows is in tests/browser."""

import io
import shutil
from dataclasses import replace

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from soft_prompt_explorer.analysis.adapters import load_lora, load_soft_prompt
from soft_prompt_explorer.analysis.asking.scores import compare_lora
from soft_prompt_explorer.analysis.asking.sensitivity import effects, fewest_by_effect
from soft_prompt_explorer.analysis.prompts.null import null_of
from soft_prompt_explorer.analysis.prompts.over_prompts import token_index
from soft_prompt_explorer.analysis.prompts.search import unit_rows
from soft_prompt_explorer.analysis.tasks.finding import get_task
from soft_prompt_explorer.trained_prompts.experiments.truncated import at_a_share, score_truncated
from soft_prompt_explorer.trained_prompts.runs import store
from tests.support.driving import driver_of, settled
from tests.support.lora_files import gaussian, lora_file
from tests.support.peft_types import made
from tests.support.places import EMBEDDED
from tests.support.tiny_models import random_llama

pytestmark = pytest.mark.slow


@pytest.fixture
def page(own_runs):
    def open_page(name: str, **query) -> AppTest:
        return settled(driver_of(name, **query))

    return open_page


def test_the_library_lists_every_prompt_and_lora_that_ships(page):
    driver = page("library")
    assert not driver.exception
    runs = store.list_runs()
    table = driver.dataframe[0].value
    assert sorted(table["name"]) == sorted(runs["name"])
    assert set(table.loc[table["kind"] == "LoRA", "name"]) == set(runs.loc[runs["method"] == "lora", "name"])
    for row in table.itertuples():
        (run,) = runs[runs["name"] == row.name].itertuples()
        assert (row.no_prompt, row.score) == pytest.approx((100 * run.no_prompt, 100 * run.score), nan_ok=True)


def test_the_scores_of_all_that_ships_stand_as_a_chart_and_as_a_table(page):
    driver = page("library", tab="Scores")
    assert not driver.exception
    assert len(driver.get("plotly_chart")) == 1
    assert driver.dataframe[0].value["name"].tolist() == store.list_runs()["name"].tolist()


def test_a_link_restores_prompt_metric_and_number_of_words(page):
    name = "sentiment-words-1"
    driver = page("prompt", tab="Tokens", prompt=name, metric="euclidean", k="3")
    assert not driver.exception
    assert driver.selectbox(key="linked-prompt").value == name
    assert driver.selectbox(key="metric").value == "euclidean"
    (grid,) = (frame.value for frame in driver.dataframe if "rank 0" in frame.value)
    assert [column for column in grid.columns if column.startswith("rank")] == ["rank 0", "rank 1", "rank 2"]


def test_a_prompt_started_from_words_is_said_to_be_an_echo(page):
    driver = page("prompt", tab="Tokens", prompt="sentiment-words-1")
    assert any("still nearest to the word they were initialised from" in warning.value for warning in driver.warning)


def test_a_link_to_a_prompt_that_is_not_there_says_so_and_asks_for_another(page):
    driver = page("prompt", tab="Tokens", prompt="nosuchprompt")
    assert not driver.exception
    assert "nosuchprompt" in driver.warning[0].value
    assert "Pick a prompt" in driver.info[0].value


def test_a_model_that_is_typed_and_does_not_exist_gets_a_sentence(page):
    driver = page("prompt", tab="Tokens", prompt="sentiment-words-1")
    driver.text_input(key="model").set_value("/no/such/model").run()
    assert not driver.exception
    assert "tried" in driver.error[0].value


def test_a_prompt_for_another_model_gets_a_sentence(page, tmp_path):
    np.save(tmp_path / "wide.npy", np.ones((4, 768), dtype=np.float32))
    prompt = load_soft_prompt(tmp_path / "wide.npy")
    driver = driver_of("prompt", state={"opened": {"file-wide": prompt}}, prompt="file-wide").run()
    assert not driver.exception
    assert "768 wide" in driver.error[0].value


def test_a_taken_name_is_refused_where_the_person_is(page):
    driver = page("train")
    assert not driver.exception
    driver.text_input(key="name").set_value("sentiment-words-1")
    next(button for button in driver.button if button.label == "Train").click()
    driver.run()
    assert "already" in driver.error[0].value


def test_a_training_that_the_server_has_forgotten_is_explained(page):
    driver = page("train", job="gone")
    assert not driver.exception
    assert "not known any more" in driver.warning[0].value


@pytest.mark.parametrize(
    ("name", "tab"),
    [("atlas", None), ("atlas", "Compare"), *(("learn", tab) for tab in (None, "Which readings hold", "Measures"))],
)
def test_a_page_of_figures_opens_on_the_gallery(page, embedded_map, name, tab):
    driver = page(name, **({} if tab is None else {"tab": tab}))
    assert not driver.exception
    assert not driver.error


@pytest.mark.parametrize("typed", ["organ", " organ", "organ  "])
def test_a_search_finds_the_tokens_of_a_word_however_it_is_typed_and_calls_echoes_so(page, typed):
    driver = page("atlas", word=typed)
    assert not driver.exception and not driver.success
    found = driver.dataframe[0].value
    assert any("of the 20 below resemble the word" in info.value and "started there" in info.value for info in driver.info)
    assert (found["started_there"] == "started there").any() and set(found["form"]) <= {"␣organ", "organ"}
    assert any("Searched as ' organ' and 'organ'" in caption.value.replace("\\", "") for caption in driver.caption)


def test_a_search_finds_nothing_for_a_word_that_no_prompt_has_to_do_with(page):
    driver = page("atlas", word="table")
    assert not driver.exception and not driver.success
    assert any("No token at hand resembles" in info.value for info in driver.info)


@pytest.mark.parametrize(("name", "field"), [("atlas", "word"), ("prompt", "test")])
@pytest.mark.parametrize(("typed", "piece"), [("New York", "' York'"), ("xyzzyplugh", "'zzy'")])
def test_a_word_of_several_tokens_is_refused_by_name_with_its_pieces(page, name, field, typed, piece):
    driver = page(name, **{field: typed}, **({"prompt": "sentiment-words-1", "tab": "Tokens"} if name == "prompt" else {}))
    assert not driver.exception and not driver.success
    said = driver.error[0].value.replace("\\", "")
    assert f"'{typed}' is no token of smollm2-135m" in said and piece in said


def test_the_words_to_test_give_one_figure_however_they_are_typed(page):
    texts = []
    for typed in ("positive, negative", "negative,positive", " negative , positive "):
        driver = page("prompt", tab="Tokens", prompt="sentiment-words-1", test=typed)
        assert not driver.exception
        texts.append([each.value for each in [*driver.success, *driver.info] if "median rank" in each.value])
    assert texts[0] and texts[0] == texts[1] == texts[2]


def test_clusters_of_a_prompt_that_is_not_there_warns_and_goes_on_with_the_others(page, embedded_map):
    driver = page("atlas", prompts=["nosuchprompt", "sentiment-words-1"])
    assert not driver.exception
    assert "nosuchprompt" in driver.warning[0].value.replace("\\", "")
    assert driver.multiselect(key="prompts").value == ["sentiment-words-1"]


def test_one_prompt_cannot_be_compared(page):
    driver = page("atlas", tab="Compare", prompts=["sentiment-words-1"])
    assert not driver.exception
    assert "Pick two or more prompts" in driver.info[0].value


@pytest.mark.parametrize(
    ("selected", "heading"),
    [
        ("3-5", "3 selected virtual tokens"),
        ("9,2-3,2", "3 selected virtual tokens"),  # a token named twice is one token
        ("0-999999999999,abc,-3", "10 selected virtual tokens"),  # no more than there are
        ("5-3,10,-1,--,1-2-3, ,²", "All 10 virtual tokens"),
        ("9" * 5000, "All 10 virtual tokens"),  # more digits than Python turns into a number
    ],
)
def test_a_selection_in_a_link_is_what_can_be_read_of_it(page, embedded_map, selected, heading):
    driver = page("atlas", prompts=["sentiment-words-1"], selected=selected)
    assert not driver.exception
    assert f"**{heading}**" in [markdown.value for markdown in driver.markdown]


def test_the_spectra_of_a_shipped_lora_open_with_its_health_and_a_smaller_copy(page):
    query = {"lora": "sentiment-lora-8", "other": "sentiment-lora-16", "keep": "0.9"}
    driver = page("lora", tab="Ranks", **query)
    assert not driver.exception
    assert not driver.error
    assert driver.selectbox(key="linked-lora").value == "sentiment-lora-8"
    assert driver.metric[0].value == "60"
    assert any("One direction does nearly all in" in text.value for text in driver.markdown)
    for tab, says in (("Smaller copy", "of 480 ranks"), ("Beside another", "60 modules are in both")):
        driver = page("lora", tab=tab, **query)
        assert not driver.exception and not driver.error
        assert any(says in text.value for text in driver.markdown)


def test_a_smaller_copy_is_scored_on_its_own_task_when_it_is_asked_for(saved_lora, language_model, page):
    driver = page("lora", tab="Smaller copy", lora="mine", keep="0.6")
    assert not driver.exception
    assert not any("95 % interval" in text.value for text in driver.markdown)
    driver.button(key="score").click()
    settled(driver)
    assert not driver.exception
    assert not driver.error
    said = next(text.value for text in driver.markdown if "95 % interval" in text.value)
    expected = compare_lora(saved_lora, "mine", "toy", language_model=language_model)
    copy = score_truncated(load_lora(saved_lora), 0.6, "toy", language_model=language_model)
    for score in (*expected["score"], *copy["score"]):
        assert f"{score:.3f}" in said
    shown = next(table.value for table in driver.dataframe if "score" in table.value and "measure" in table.value)
    assert shown["prompt"].tolist() == ["bare model", "mine", "mine at 60% of its energy"]
    assert shown["loss"].to_numpy() == pytest.approx([*expected["loss"], *copy["loss"]], rel=1e-5)
    assert driver.button(key="score").disabled
    driver.button(key="measure-effect").click()
    settled(driver)
    assert not driver.exception
    measured = effects(load_lora(saved_lora), get_task("toy"), language_model=language_model)
    counted = sum(map(len, fewest_by_effect(measured, 0.95).values()))
    assert any(f"**{counted} of {len(measured)} ranks** hold 95% of the effect" in text.value for text in driver.markdown)
    driver.button(key="score-half").click()
    settled(driver)
    assert not driver.exception
    half = at_a_share(load_lora(saved_lora), saved_lora, "toy", language_model=language_model)
    shown = next(table.value for table in driver.dataframe if "kept_by" in table.value)
    assert shown["kept_by"].tolist() == half["kept_by"].tolist() and shown["loss"].to_numpy() == pytest.approx(half["loss"], rel=1e-5)
    driver.slider(key="keep").set_value(0.9).run()
    assert not any("95 % interval" in text.value for text in driver.markdown)
    assert not driver.button(key="score").disabled


def test_of_a_strangers_lora_no_task_is_known_and_a_dora_is_not_cut(tmp_path, byte_level_tokenizer):
    from peft import LoraConfig, get_peft_model

    model = random_llama(byte_level_tokenizer, hidden_size=16, intermediate_size=32, num_hidden_layers=1)
    for name in ("plain", "dora"):
        peft_config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, use_dora=name == "dora")
        peft_model = get_peft_model(model, peft_config)
        peft_model.save_pretrained(tmp_path / name)
        peft_model.unload()
        it = replace(load_lora(tmp_path / name), base_model=None)
        driver = driver_of("lora", state={"opened": {"file-it": it}}, lora="file-it", tab="Smaller copy")
        settled(driver).run()  # once more, as on a machine where something was still being computed
        assert not driver.exception
        assert any("the task is not known" in caption.value for caption in driver.caption) == (name == "plain")
        assert any("weight\\-decomposed" in info.value for info in driver.info) == (name == "dora")


def test_the_base_weights_that_a_strangers_file_names_are_not_followed(tmp_path):
    rng = np.random.default_rng(0)
    adapter = lora_file(tmp_path / "style.safetensors", {"model.layers.0.self_attn.q_proj": gaussian(8, 8, 2, rng)})
    opened = {"file-style": replace(adapter, base_model=str(tmp_path))}
    driver = driver_of("lora", state={"opened": opened}, lora="file-style", tab="Ranks", base="true")
    settled(driver).run()
    assert not driver.exception
    assert not driver.error
    assert driver.toggle(key="base").disabled


def test_another_types_updates_have_their_spectra_and_what_lacks_its_weights_says_so(tmp_path, byte_level_tokenizer):
    for kind in ("LOHA", "OFT"):
        model = random_llama(byte_level_tokenizer, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
        made(model, kind, tmp_path / kind)
        it = replace(load_lora(tmp_path / kind), base_model="somebody/elses")
        driver = driver_of("lora", state={"opened": {"file-it": it}}, lora="file-it", tab="Ranks")
        settled(driver).run()
        assert not driver.exception
        said = [error.value for error in driver.error]
        assert ("made of the weight that it changes" in " ".join(said)) == (kind == "OFT")
        assert (kind == "OFT") or driver.metric[0].value == "4"
        driver = driver_of("lora", state={"opened": {"file-it": it}}, lora="file-it", tab="Smaller copy")
        settled(driver).run()
        assert any("only a LoRA is truncated here" in info.value for info in driver.info) == (kind == "LOHA")


@pytest.mark.parametrize("exact_up_to", [1_000_000, 100], ids=["compared with all", "inverted file"])
def test_an_upload_is_searched_and_leaves_no_trace_in_the_cache(exact_up_to, page, tmp_path, monkeypatch, embedded_vocabulary):
    null_of(embedded_vocabulary)  # what is known of the model already is not computed again here
    cache = tmp_path / "cache"
    being_written = shutil.ignore_patterns(".spe-partial-*", "*.lock")  # by another process, to which they belong
    shutil.copytree(embedded_vocabulary.cache, cache / "vocabularies" / embedded_vocabulary.cache.name, ignore=being_written)
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    monkeypatch.setenv("SOFT_PROMPT_EXPLORER_CACHE", str(cache))
    monkeypatch.setitem(token_index.__kwdefaults__, "exact_up_to", exact_up_to)
    noise = np.random.default_rng(0).standard_normal((3, embedded_vocabulary.width))
    vectors = (embedded_vocabulary.embeddings[embedded_vocabulary.tokens.index(" river")] + 0.02 * noise).astype(np.float32)
    content = io.BytesIO()
    np.save(content, vectors)

    driver = page("library", tab="Open a file")
    driver.file_uploader[0].upload("Kummerkasten.npy", content.getvalue(), "application/octet-stream").run()
    assert not driver.exception and "Kummerkasten" in driver.success[0].value
    driver.switch_page("views/atlas.py")
    driver.query_params["word"] = " river"
    settled(driver)
    assert not driver.exception
    assert "Kummerkasten" not in driver.dataframe[0].value["prompt"].tolist()  # of no model that it names

    (key,) = driver.session_state["opened"]
    driver.session_state["models"] = {key: EMBEDDED}  # as the person answers where a page asks for it
    settled(driver)
    assert driver.dataframe[0].value["prompt"].tolist()[:3] == ["Kummerkasten"] * 3
    units = unit_rows(vectors.astype(np.float64) - embedded_vocabulary.mean).astype(np.float32)
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert ("token-index.kept" in {path.name for path in files}) == (exact_up_to == 100)
    for path in files:
        assert "Kummerkasten" not in path.name
        kept = b"" if before.get(path) == path.stat().st_mtime_ns else path.read_bytes()
        assert b"Kummerkasten" not in kept and not any(row.tobytes() in kept for row in [*vectors, *units]), path
