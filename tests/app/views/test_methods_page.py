"""Learn below *Methods* through Streamlit's own test driver, on comparisons that are made up."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.trained_prompts.experiments import sizes
from soft_prompt_explorer.trained_prompts.experiments.comparison import ComparisonConfig
from soft_prompt_explorer.trained_prompts.runs import store
from soft_prompt_explorer.trained_prompts.runs.scores import evaluate_run
from tests.support.comparisons import ROWS, diverged, made_up
from tests.support.driving import driver_of, settled
from tests.support.training import trained


def kept(table: pd.DataFrame, folder: Path) -> None:
    config = ComparisonConfig(task=table["task"].iloc[0], model=table["model"].iloc[0], seed=3, limit=400)
    (folder / ".comparisons").mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / ".comparisons" / f"{config.key}.csv", index=False)


@pytest.fixture
def page(own_runs, monkeypatch, tmp_path):
    """Open the page with these comparisons and none that ships."""
    monkeypatch.setattr("soft_prompt_explorer.trained_prompts.experiments.comparison.SHIPPED", tmp_path / "none")

    def open_page(*tables: pd.DataFrame, **query: str | list[str]) -> AppTest:
        for table in tables:
            kept(table, own_runs)
        link = {key.replace("_", "-"): value for key, value in query.items()}
        return driver_of("learn", tab="Methods", state={"against-size": True}, **link).run()

    return open_page


def texts(driver: AppTest) -> str:
    return "\n".join(element.value for kind in (driver.markdown, driver.caption, driver.info) for element in kind)


@pytest.mark.slow
def test_without_a_comparison_the_page_says_how_to_get_one_and_still_shows_what_papers_published(page):
    driver = page()
    assert not driver.exception
    assert "run one in *Run one*" in driver.info[0].value
    for part, shown in (("As published", "Hu et al. 2022"), ("Run one", "Zero-shot, each hand-written prompt")):
        driver = page(methods=part)
        assert not driver.exception
        assert driver.session_state["linked-methods"] == part and shown in texts(driver)
    assert any(button.label == "Run" for button in driver.button)


@pytest.mark.slow
def test_one_part_is_shown_at_a_time_and_a_link_of_before_opens_the_part_that_it_speaks_of(page):
    for query, part in (
        ({}, "Measured here"),
        ({"new_task": "plural"}, "Run one"),
        ({"trade": "plural"}, "What readability costs"),
        ({"runs": ["no prompt"]}, "Scorecards"),
        ({"published": "x"}, "As published"),
    ):
        driver = page(made_up(), **query)
        assert not driver.exception
        assert driver.session_state["linked-methods"] == part
        assert ("Zero-shot scores" in texts(driver)) == (part == "Measured here")


@pytest.mark.slow
def test_score_against_size_is_drawn_of_each_task_and_says_what_did_not_fit(page, monkeypatch):
    rows = [(model, size, task, way, "", "exact match", score, score - 0.1, score + 0.1, 50, 1.0, 0.0, 1.0, 1, "float32")
            for model, size in (("small", 10**8), ("large", 10**9)) for task in ("plural", "capitals")
            for way, score in (("zero-shot", 0.4), ("full fine-tuning", float("nan") if model == "large" else 0.8))]  # fmt: skip
    monkeypatch.setattr(sizes, "kept", lambda: pd.DataFrame(rows, columns=sizes.COLUMNS))
    driver = page(methods="Score against size")
    assert not driver.exception
    assert "did not fit" not in texts(driver)  # into the mean goes what was scored
    driver.segmented_control(key="of-task").set_value("capitals").run()
    assert not driver.exception
    assert "Full fine-tuning of large did not fit into the memory." in texts(driver)
    monkeypatch.setattr(sizes, "kept", lambda: pd.DataFrame(columns=sizes.COLUMNS))
    assert "the command line's `sizes` makes them" in texts(driver.run())


@pytest.mark.slow
def test_a_comparison_is_told_in_a_sentence_that_keeps_to_the_intervals(page):
    driver = page(made_up(), made_up("capitals"), task="capitals")
    assert not driver.exception
    assert driver.selectbox(key="task").value == "capitals"
    said = texts(driver)
    assert "Zero-shot scores **0.500 (0.450 to 0.550, n 400)**" in said
    assert "Above zero-shot beyond the intervals: LoRA and full fine-tuning." in said
    assert "Below it beyond the intervals: prompt engineering in 1 of 2 tries." in said
    assert "Not told apart from it: prompt tuning and prompt engineering in 1 of 2 tries." in said
    assert "150 steps, seed 3, 400 held-out examples, made here" in said
    assert "two models or more" in said
    table = driver.dataframe[0].value
    assert table["method"].tolist() == [row[0] for row in ROWS]


@pytest.mark.slow
def test_models_are_set_side_by_side_and_what_else_differs_is_said(page):
    driver = page(made_up(), made_up(model="gemma3-270m"), made_up(model="nobody/unknown"), model="gemma3-270m")
    assert not driver.exception
    said = texts(driver)
    assert "not on this machine to be counted: nobody/unknown" in said.replace("\\", "")
    assert "Size is not all that differs: smollm2-135m was taught to follow instructions" in said.replace(
        "gemma3-270m is a base model in 4-bit K-quants and ", ""
    )


@pytest.mark.slow
def test_a_link_to_a_comparison_that_is_not_here_says_so(page):
    driver = page(made_up(), task="nosuchtask")
    assert not driver.exception
    assert "nosuchtask" in driver.warning[0].value


@pytest.mark.slow
def test_a_comparison_that_is_run_here_shows_its_rows_and_can_be_picked_afterwards(page, toy_task, llama_folder, own_cache):
    driver = page(new_task="toy", new_model="another", other=str(llama_folder), steps="2", limit="10")
    assert "6 rows" in texts(driver)
    driver.button(key="run").click()
    settled(driver)
    assert not driver.exception
    assert not driver.error, driver.error[0].value
    assert any("This comparison is kept" in success.value for success in driver.success)
    driver = page(task="toy")
    assert driver.selectbox(key="task").value == "toy"
    table = driver.dataframe[0].value
    assert table["method"].tolist() == ["zero-shot", "prompt tuning", "p-tuning", "prefix tuning", "LoRA", "full fine-tuning"]


@pytest.mark.slow
def test_a_model_that_does_not_exist_gets_a_sentence(page, own_cache):
    driver = page(new_task="capitals", new_model="another", other="/no/such/model")
    driver.button(key="run").click()
    settled(driver)
    assert not driver.exception
    assert "tried" in driver.error[0].value
    driver.run()
    assert not driver.error  # it is not tried again by itself


@pytest.mark.slow
def test_a_scorecard_hides_no_measure(page):
    driver = page(runs=["no prompt", "sentiment-words-1"], examples="10")
    driver.button(key="measure").click()
    settled(driver)
    assert not driver.exception
    card = driver.dataframe[-1].value
    assert card["prompt"].tolist() == ["no prompt", "sentiment-words-1"]
    assert card.columns.tolist() == [
        "prompt", "task", "accuracy", "accuracy, lower case", "accuracy, typing errors", "loss", "calibration error", "seconds an example", "n",
    ]  # fmt: skip
    assert card.notna().all(axis=None)
    assert store.list_runs().set_index("name").loc["sentiment-words-1", "task"] == "sentiment"
    assert any("How sure it is" in text.value for text in driver.markdown)


@pytest.mark.slow
def test_what_diverged_and_what_cannot_be_read_is_said(page, own_runs):
    kept(diverged(made_up()), own_runs)
    (own_runs / ".comparisons" / "broken.csv").write_text("method,what\nzero-shot")
    driver = page()
    assert not driver.exception
    assert "Without a score (diverged, or too long for the model): full fine-tuning." in texts(driver)
    assert driver.dataframe[0].value["score"].isna().tolist() == [False] * 5 + [True]
    (sentence,) = [warning.value.replace("\\", "") for warning in driver.warning]
    assert "broken.csv" in sentence and "remove it" in sentence


# ---- the trade


@pytest.mark.slow
def test_the_trade_offers_the_runs_that_differ_in_nothing_but_the_pull(page):
    driver = page(methods="What readability costs")
    assert not driver.exception
    runs = driver.multiselect(key="trade-runs-plural")
    assert runs.value == ["plural-random-3", *(f"plural-readable-{pull}" for pull in (0.3, 1, 3, 10))]
    assert {"plural-words-1", "plural-words-2"} <= set(runs.options)


@pytest.mark.slow
def test_the_trade_of_ones_own_runs_is_measured_when_it_is_asked_for(page, toy_config, own_cache):
    language_model = load_model(toy_config.model, device="cpu")
    for name, readable in (("endless", float("inf")), ("plain", 0.0), ("other-seed", 0.0)):
        config = replace(toy_config, readable=readable, seed=int(name == "other-seed"))
        recording = trained(config, language_model)
        store.save(recording, name, evaluate_run(recording, language_model=language_model))
    driver = page(trade=f"toy on {toy_config.model}", trade_against="tokens beyond chance", trade_examples="10")
    assert not driver.exception and not driver.warning
    assert driver.multiselect(key=f"trade-runs-toy on {toy_config.model}").value == ["plain", "endless"]
    assert driver.session_state["trade-against"] == "near"
    assert "words in their place" not in texts(driver)
    driver.button(key="measure-trade").click()
    settled(driver)
    assert not driver.exception and not driver.error
    assert "the words in their place" in texts(driver)
    table = next(frame.value for frame in driver.dataframe if "words_score" in frame.value)
    assert table["prompt"].tolist() == ["plain", "endless"] and table["readable"].tolist() == ["0", "∞"]
    scored = store.list_runs().set_index("name")["score"]
    assert table["score"].tolist() == scored[["plain", "endless"]].tolist()
    assert table.loc[1, "words_score"] == table.loc[1, "score"]  # of nothing but words, the words are the prompt
    driver.selectbox(key="trade").set_value("plural").run()
    assert not driver.exception and not driver.warning
    assert driver.multiselect(key="trade-runs-plural").value[0] == "plural-random-3"


@pytest.mark.slow
def test_a_link_to_a_trade_that_is_not_here_says_so(page):
    driver = page(trade="nosuchtask", trade_runs_plural=["plural-readable-1", "nosuchrun"])
    assert not driver.exception
    said = " ".join(warning.value for warning in driver.warning)
    assert "nosuchtask" in said and "nosuchrun" in said
