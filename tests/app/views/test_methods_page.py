"""The page Methods and its charts, on comparisons that are made up here."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from soft_prompt_explorer.analysis.models.size import total_parameters
from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.app.charts.methods import (
    METHOD_MARKS,
    _counted,
    method_scores,
    published_scores,
    score_by_size,
    score_by_trainable,
)
from soft_prompt_explorer.trained_prompts.experiments.comparison import (
    COLUMNS,
    SHIPPED,
    ComparisonConfig,
    beside_zero_shot,
    best_of_each_method,
    published,
    told_apart,
)
from soft_prompt_explorer.trained_prompts.runs import store
from soft_prompt_explorer.trained_prompts.runs.scores import evaluate_run
from tests.support.driving import driver_of, settled
from tests.support.training import trained

ROWS = [  # method, what, score, low, high, trainable, seed
    ("zero-shot", "{input}\nAnswer:", 0.50, 0.45, 0.55, 0, None),
    ("prompt engineering", "<b>{input}</b> is", 0.40, 0.35, 0.44, 0, None),
    ("prompt engineering", "4 examples, then <b>{input}</b> is", 0.58, 0.53, 0.63, 0, None),
    ("prompt tuning", "10 virtual tokens, 150 steps at 0.05", 0.54, 0.49, 0.59, 5_760, 3),
    ("LoRA", "rank 8, 150 steps at 0.001", 0.66, 0.61, 0.71, 460_800, 3),
    ("full fine-tuning", "all weights, 150 steps at 2e-05", 0.70, 0.65, 0.75, 134_515_008, 3),
]


def made_up(task: str = "sentiment", model: str = "smollm2-135m", better: float = 0.0) -> pd.DataFrame:
    table = pd.DataFrame(ROWS, columns=["method", "what", "score", "low", "high", "trainable", "seed"])
    table[["score", "low", "high"]] += better
    return table.assign(
        task=task, model=model, measure="accuracy", n=400, loss=0.7, seconds_training=12.0, seconds_scoring=3.0, peak_memory=1_500_000_000
    )[COLUMNS]


# ---- what the figures are made of


def test_a_row_is_beyond_zero_shot_only_where_the_intervals_have_nothing_in_common():
    assert beside_zero_shot(made_up()).tolist() == ["within", "below", "within", "within", "above", "above"]


def diverged(table: pd.DataFrame, method: str = "full fine-tuning") -> pd.DataFrame:
    """The same as it is where one method's loss became no number."""
    of_it = table["method"] == method
    table.loc[of_it, ["score", "low", "high", "loss"]] = np.nan
    return table.assign(n=table["n"].where(~of_it, 0), what=table["what"].where(~of_it, table["what"] + ", diverged"))


def test_what_diverged_is_neither_told_apart_nor_not():
    assert beside_zero_shot(diverged(made_up())).tolist() == ["within", "below", "within", "within", "above", "no score"]
    best = best_of_each_method(diverged(made_up()))
    assert best["method"].tolist() == ["zero-shot", "prompt engineering", "prompt tuning", "LoRA", "full fine-tuning"]
    assert best["score"].isna().tolist() == [False] * 4 + [True]


def test_comparisons_are_told_apart_though_they_are_of_one_task_and_model():
    table = told_apart(pd.concat([made_up(), made_up(), made_up("capitals").head(1)], ignore_index=True))
    assert table["comparison"].tolist() == [1] * 6 + [2] * 6 + [3]


def test_of_prompt_engineering_the_best_prompt_is_kept():
    best = best_of_each_method(made_up())
    assert best["method"].tolist() == ["zero-shot", "prompt engineering", "prompt tuning", "LoRA", "full fine-tuning"]
    assert best["score"].tolist()[:2] == [0.50, 0.58]


def test_parameters_are_counted_without_loading_and_tied_ones_once(llama_folder, sharded_llama_folder, tiny_llama):
    assert total_parameters(str(llama_folder)) == total_parameters(str(sharded_llama_folder)) == tiny_llama.num_parameters()
    assert total_parameters("/no/such/model") is None
    assert total_parameters("nobody/such-a-model") is None


@pytest.mark.slow
def test_the_size_of_the_embedded_model_is_that_of_its_weights(embedded_model):
    assert total_parameters("smollm2-135m") == embedded_model[0].num_parameters()


def test_every_published_figure_names_its_paper_and_table_and_has_a_mark():
    table = published()
    assert table.drop(columns="plus_minus").notna().all(axis=None)
    assert table["table"].str.fullmatch(r"Table \d+").all()
    assert set(table["method"]) <= set(METHOD_MARKS)
    assert (table["trainable"] <= table["total"]).all()
    assert (
        table.loc[table["method"] == "full fine-tuning", "trainable"] == table.loc[table["method"] == "full fine-tuning", "total"]
    ).all()


@pytest.mark.parametrize(
    ("model", "layers", "width", "rank"), [("RoBERTa base", 12, 768, 8), ("RoBERTa large", 24, 1024, 8), ("DeBERTa XXL", 48, 1536, 16)]
)
def test_the_published_sizes_of_loras_are_those_of_the_papers_own_formula(model, layers, width, rank):
    rows = published().query("model == @model and method == 'LoRA'")
    assert (
        rows["trainable"] == round(2 * (2 * layers) * width * rank, -5)
    ).all()  # |Θ| = 2 · L · d · r, q and v in each layer; printed to 0.1 M


def test_what_ships_is_nothing_but_whole_comparisons():
    for path in SHIPPED.glob("*.csv"):
        table = pd.read_csv(path)
        assert table.columns.tolist() == COLUMNS, path
        assert table["method"].iloc[0] == "zero-shot", path
        assert (table["method"] == "zero-shot").sum() == 1, path


# ---- charts


def test_the_rows_stand_in_the_order_of_the_table_over_the_band_of_zero_shot():
    figure = method_scores(made_up())
    assert list(figure.layout.yaxis.ticktext) == [
        "zero-shot",
        "&lt;b&gt;{input}&lt;/b&gt; is",
        "4 examples, then &lt;b&gt;{input}&lt;/b&gt; is",
        "prompt tuning",
        "LoRA",
        "full fine-tuning",
    ]
    top, bottom = figure.layout.yaxis.range[1], figure.layout.yaxis.range[0]
    assert top < 0 < bottom  # the first row on top
    band = figure.layout.shapes[0]
    assert (band.x0, band.x1) == (0.45, 0.55)
    lora = next(trace for trace in figure.data if trace.name == "LoRA")
    assert (lora.x[0], lora.y[0]) == (0.66, 4)
    np.testing.assert_allclose([lora.error_x.array[0], lora.error_x.arrayminus[0]], [0.05, 0.05])


def test_methods_differ_in_shape_as_well_as_colour():
    traces = method_scores(made_up()).data
    assert len({trace.marker.symbol for trace in traces}) == len({trace.marker.color for trace in traces}) == len(traces) == 5


def test_what_trains_nothing_stands_at_none_left_of_every_size():
    figure = score_by_trainable(made_up())
    by_name = {trace.name: trace for trace in figure.data}
    untrained = [*by_name["zero-shot"].x, *by_name["prompt engineering"].x]
    assert figure.layout.xaxis.ticktext[0] == "none"
    assert max(untrained) < 1_000 < by_name["prompt tuning"].x[0] == 5_760
    assert len(set(untrained)) == 3  # side by side


def test_a_comparison_that_has_only_begun_can_be_drawn():
    figure = score_by_trainable(made_up().head(1))
    assert figure.layout.xaxis.ticktext[0] == "none"
    assert len(method_scores(made_up().head(1)).data) == 1


def test_models_stand_in_the_order_of_their_size():
    table = pd.concat([made_up(model="/models/large/", better=0.1), made_up()], ignore_index=True)
    table = table.assign(total=np.where(table["model"] == "smollm2-135m", 134_515_008, 2_000_000_000))
    figure = score_by_size(table[table["method"] == "LoRA"])
    assert list(figure.layout.xaxis.ticktext) == ["134.5 M<br>smollm2-135m", "2 G<br>large"]
    np.testing.assert_allclose(figure.data[0].y, [0.66, 0.76])


def test_a_method_that_diverged_keeps_its_row_without_a_mark():
    table = diverged(made_up())
    for figure in (method_scores(table), score_by_trainable(table), score_by_size(table.assign(total=134_515_008))):
        full = figure.data[-1]
        assert full.name == "full fine-tuning"
        assert np.isnan(np.array([*full.x, *full.y], dtype=float)).sum() == 1
    assert method_scores(table).layout.yaxis.ticktext[-1] == "full fine-tuning"


@pytest.mark.parametrize("against", ["trainable", "total"])
def test_published_figures_have_open_marks_and_only_the_spreads_that_were_printed(against):
    table = published()
    rows = table[table["metric"] == "E2E NLG Challenge, BLEU"]
    marked = [trace for trace in published_scores(rows, against).data if trace.name]
    assert all(trace.marker.symbol.endswith("-open") for trace in marked)
    assert sum(len(trace.y) for trace in marked) == len(rows) == 12
    lora = next(trace for trace in marked if trace.name == "LoRA")
    full = next(trace for trace in marked if trace.name == "full fine-tuning")
    assert list(lora.error_y.array) == [0.1, 0.1]
    assert np.isnan(full.error_y.array).all()


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0"), (576, "576"), (5_760, "5.76 k"), (134_515_008, "134.5 M"), (175_255_800_000, "175.3 G")]
)
def test_counts_are_shown_short(number, shown):
    assert _counted(number) == shown


# ---- the page


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
        return driver_of("methods", **{key.replace("_", "-"): value for key, value in query.items()}).run()

    return open_page


def texts(driver: AppTest) -> str:
    return "\n".join(element.value for kind in (driver.markdown, driver.caption, driver.info) for element in kind)


@pytest.mark.slow
def test_without_a_comparison_the_page_says_how_to_get_one_and_still_shows_what_papers_published(page):
    driver = page()
    assert not driver.exception
    assert "run one below" in driver.info[0].value
    assert "Hu et al. 2022" in texts(driver)
    assert any(button.label == "Run" for button in driver.button)


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
    assert driver.selectbox(key="task").value == "toy"
    table = driver.dataframe[0].value
    assert table["method"].tolist() == ["zero-shot", "prompt tuning", "p-tuning", "prefix tuning", "LoRA", "full fine-tuning"]
    assert any("This comparison is kept" in success.value for success in driver.success)


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
    driver = page()
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
