"""A prompt’s page below *Behaviour* and *Try it*, through Streamlit's own test driver, on the tiny model; its charts' figures are those of the table."""

import threading
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.behaviour import of_task as asking
from soft_prompt_explorer.analysis.behaviour.changes import WHOLE
from soft_prompt_explorer.analysis.behaviour.inside import attention, logit_lens
from soft_prompt_explorer.analysis.behaviour.of_task import behave, examples_of, judged, side_by_side
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.app.charts import behaviour as behaviour_charts
from soft_prompt_explorer.trained_prompts.experiments import kept_behaviour
from soft_prompt_explorer.trained_prompts.runs import store
from soft_prompt_explorer.trained_prompts.runs.scores import evaluate_run
from tests.support.driving import driver_of, settled
from tests.support.rows import seen
from tests.support.training import trained
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def run(toy_config, own_runs):
    from soft_prompt_explorer.analysis.models.weights import load_model

    model = load_model(toy_config.model, device="cpu")
    recording = trained(toy_config, model)
    return store.save(recording, "mine", evaluate_run(recording, language_model=model))


@pytest.fixture
def tiny(toy_config):
    from soft_prompt_explorer.analysis.models.weights import load_model

    return load_model(toy_config.model, device="cpu")


@pytest.fixture
def page(run):
    def open_page(**query) -> AppTest:
        return settled(driver_of("prompt", **{"tab": "Behaviour", "prompt": "mine", "examples": "10"} | query))

    return open_page


def expected(run, tiny, toy_config):
    prompt, vocabulary = load_soft_prompt(run), load_vocabulary(toy_config.model)
    table = behave(prompt, vocabulary, examples_of(TASKS["toy"], tiny, limit=10), TASKS["toy"])
    return table, judged(prompt, vocabulary, TASKS["toy"], table).verdict


def test_a_prompt_is_tested_when_it_is_asked_for_and_what_came_of_it_is_kept(page, run, tiny, toy_config):
    driver = page()
    assert not driver.exception
    assert "has not been tested on 4 examples of toy" in driver.info[0].value
    driver.button(key="ask").click()
    settled(driver)
    assert not driver.exception
    assert not driver.error
    table, verdict = expected(run, tiny, toy_config)
    assert any(verdict.label.capitalize() in text.value for text in driver.markdown)
    shown = next(frame.value for frame in driver.dataframe if "intervention" in frame.value)
    np.testing.assert_allclose(shown["loss_change"], table["loss_change"], atol=1e-5)
    assert driver.metric[0].value == f"{table['score'].iloc[0]:.3f}"
    assert (kept_behaviour.kept("mine")["n"] == 4).all()
    assert any(button.key == "report" for button in driver.get("download_button"))

    again = page()
    assert not again.info
    assert any(verdict.label.capitalize() in text.value for text in again.markdown)


def test_one_token_shows_all_that_is_known_of_it(page, run):
    kept_behaviour.test(["mine"], limit=10)
    driver = page(view="One token", token="2")
    assert not driver.exception
    assert not driver.error
    headings = " ".join(text.value for text in driver.markdown)
    for said in ("Nearest words", "Its reading", "What changing it does", "would say next", "attends to it"):
        assert said in headings
    assert len(driver.get("plotly_chart")) == 1
    near, changed = (seen(each.proto.body) for each in driver.get("html") if 'class="rows"' in each.proto.body)
    assert near.alt.startswith("The words nearest to virtual token 2") and len(near.rows) == 8
    rows = kept_behaviour.kept("mine").query("position == 2")
    np.testing.assert_allclose([mark.value for row in changed.rows for mark in row.marks], rows["loss_change"], atol=1e-3)


@pytest.mark.parametrize(("query", "charts"), [({"view": "Inside"}, 3), ({"tab": "Try it"}, 0)])
def test_the_other_views_open_by_link(page, query, charts):
    driver = page(**query)
    assert not driver.exception
    assert not driver.error
    assert len(driver.get("plotly_chart")) == charts


def test_what_the_model_writes_of_a_prompt_is_told_with_its_chance(page):
    driver = page(view="In words")
    driver.button(key="write").click()
    settled(driver)
    assert not driver.exception
    assert not driver.error
    assert any("with those of 10 other tasks" in text.value.replace("\\", "") for text in driver.markdown)


def test_the_page_opens_with_the_verdict_of_a_tested_prompt(page, run):
    kept_behaviour.test(["mine"], limit=10)
    driver = settled(driver_of("prompt", prompt="mine"))
    assert not driver.exception
    label = kept_behaviour.summary(["mine"])["verdict"].iloc[0]
    assert any(text.value.startswith(f"**{label[0].upper()}{label[1:]}:**") for text in driver.markdown)


def test_a_link_to_a_prompt_that_is_not_here_says_so(page):
    driver = page(prompt="nosuchprompt")
    assert not driver.exception
    assert "nosuchprompt" in driver.warning[0].value.replace("\\", "")


@pytest.fixture
def held(monkeypatch):
    """The model answers eight changed prompts, and then waits until it is let go on; the list is of what it was asked."""
    st.cache_resource.clear()  # another test may have asked the same
    asked, go_on, plain = [], threading.Event(), asking.predictions

    def predictions(*arguments, **options):
        asked.append(threading.get_ident())
        if len(asked) > 8:
            assert go_on.wait(PATIENCE)
        return plain(*arguments, **options)

    monkeypatch.setattr(asking, "predictions", predictions)
    yield asked, go_on
    go_on.set()


def waiting(driver: AppTest, asked: list) -> None:
    """The page while the model waits."""
    wait_until(lambda: len(asked) >= 9)
    driver.run()
    assert driver.get("progress")


def test_two_people_who_ask_the_same_share_one_computation_and_see_its_rows(page, held):
    asked, go_on = held
    first, second = page(), page()
    for driver in (first, second):
        driver.button(key="ask").click()
        driver.run()
    waiting(first, asked)
    for driver in (first, second):
        driver.run()
        assert any("The whole prompt: accuracy" in text.value for text in driver.markdown)
    go_on.set()
    tables = [next(frame.value for frame in settled(driver).dataframe if "intervention" in frame.value) for driver in (first, second)]
    pd.testing.assert_frame_equal(*tables)
    assert len(set(asked)) == 1
    times = len(asked)
    assert settled(page()).markdown and len(asked) == times


def test_what_was_answered_before_a_stop_is_not_asked_again(page, held, run, tiny, toy_config):
    asked, go_on = held
    driver = page()
    driver.button(key="ask").click()
    driver.run()
    waiting(driver, asked)
    next(button for button in driver.button if button.label == "Stop").click()
    driver.run()
    go_on.set()
    settled(driver)
    before = len(asked)
    assert before == 9
    next(button for button in driver.button if button.label == "Start again").click()
    settled(driver)
    assert not driver.exception
    shown = next(frame.value for frame in driver.dataframe if "intervention" in frame.value)
    in_all = len(asked)
    table, _ = expected(run, tiny, toy_config)
    np.testing.assert_allclose(shown["loss_change"], table["loss_change"], atol=1e-5)
    assert in_all - (len(asked) - in_all) <= 1  # the answer that was under way when it was stopped may be lost, and no other


@pytest.fixture
def theirs(own_runs, run):
    """The page with a stranger's file, whose model is a path that is not followed."""

    def open_file(**other) -> AppTest:
        opened = {"file-theirs": replace(load_soft_prompt(run), name="theirs", **other)}
        return settled(driver_of("prompt", state={"opened": opened}, prompt="file-theirs", tab="Behaviour"))

    return open_file


def test_a_file_is_asked_once_its_model_and_its_task_are_named(theirs, toy_config):
    driver = theirs()
    assert "is not followed" in driver.error[0].value and "the field “Model”" in driver.error[0].value
    driver.text_input(key="model-of-file-theirs").set_value("/no/such/model")
    settled(driver)
    assert "/no/such/model" in driver.error[0].value
    driver.button(key="another-model-file-theirs").click()
    settled(driver)
    driver.text_input(key="model-of-file-theirs").set_value(toy_config.model)
    settled(driver)
    assert not driver.error
    assert "Pick the task" in driver.info[0].value
    driver.selectbox(key="task-of-file-theirs").select("toy")
    settled(driver)
    driver.button(key="ask").click()
    settled(driver)
    assert not driver.exception and not driver.error
    assert any("intervention" in frame.value for frame in driver.dataframe)
    driver.switch_page("views/atlas.py")
    driver.query_params["prompts"] = "theirs (your file)"
    settled(driver)
    assert any("as the model of theirs" in caption.value for caption in driver.caption)


def test_a_file_that_cannot_be_asked_says_why(theirs, toy_config):
    driver = theirs(embeddings=np.ones((3, 24), np.float32), initial=None)
    driver.text_input(key="model-of-file-theirs").set_value(toy_config.model)
    settled(driver)
    assert "24 wide" in driver.error[0].value


def test_of_a_file_of_two_prompts_one_is_asked(theirs, toy_config):
    driver = theirs(parts=(("first", 1), ("second", 2)))
    driver.text_input(key="model-of-file-theirs").set_value(toy_config.model)
    settled(driver)
    options = [option.replace("\\", "") for option in driver.button_group(key="part-file-theirs").options]
    assert options == ["theirs (first)", "theirs (second)"]
    driver.selectbox(key="task-of-file-theirs").select("toy")
    settled(driver)
    driver.button(key="ask").click()
    settled(driver)
    assert not driver.exception and not driver.error
    assert next(frame.value for frame in driver.dataframe if "intervention" in frame.value)["position"].max() == 0


@pytest.mark.parametrize("what", ["score", "loss"])
def test_the_chart_of_changes_draws_every_row_with_its_interval(run, tiny, toy_config, what):
    table, _ = expected(run, tiny, toy_config)
    chart = seen(behaviour_charts.changes(table, what, alt="x"))
    rows = table[table["intervention"] != WHOLE]
    wanted = rows[[f"{what}_change", f"{what}_change_low", f"{what}_change_high"]].to_numpy()
    (marks,) = zip(*(row.marks for row in chart.rows), strict=True)
    found = np.array([(mark.value, *mark.interval) for mark in marks])
    np.testing.assert_allclose(found, wanted, atol=4e-4 * np.ptp([*wanted.ravel(), 0.0]))  # a hundredth of a percent of the line's length
    assert len({row.label for row in chart.rows}) == len(rows)
    looks = set(chart.legend.values())
    assert len(looks) == len(chart.legend) and {(mark.shape, mark.colour) for mark in marks} == looks


def test_lens_and_attention_are_drawn_as_they_stand_in_the_tables(run, tiny, toy_config):
    prompt, vocabulary = load_soft_prompt(run), load_vocabulary(toy_config.model)
    lens = logit_lens(prompt.embeddings, tiny, vocabulary)
    heat = behaviour_charts.lens(lens).data[0]
    cell = lens[(lens["position"] == 1) & (lens["layer"] == 2) & (lens["rank"] == 0)].iloc[0]
    assert heat.z[2][1] == pytest.approx(cell["probability"], rel=1e-5)
    norms = behaviour_charts.stream_norms(lens).data[0]
    assert norms.z[1][2] == pytest.approx(np.log10(cell["norm"]), rel=1e-5)
    paid = attention(prompt.embeddings, tiny, ["the cat", "the mat sat"])
    by_layer = behaviour_charts.attention_by_layer(paid).data[0]
    assert list(by_layer.y) == ["0", "1", "2", "the input"]
    mean = paid[paid["position"].isna() & (paid["layer"] == 2)]["attention"].mean()
    assert by_layer.z[3][1] == pytest.approx(mean, rel=1e-5)
    by_head = behaviour_charts.attention_by_head(paid, 2).data[0]
    row = paid[(paid["position"] == 2) & (paid["layer"] == 1) & (paid["head"] == 1)].iloc[0]
    assert by_head.z[1][0] == pytest.approx(row["attention"], rel=1e-5)


def test_answers_side_by_side_are_those_of_each_way_alone(run, tiny, toy_config):
    prompt, vocabulary = load_soft_prompt(run), load_vocabulary(toy_config.model)
    table = side_by_side(prompt, vocabulary, TASKS["toy"], "the mat", tiny, top_k=3)
    assert table.groupby("way", sort=False).size().tolist() == [3, 3, 3]
    import torch

    model, tokenizer = tiny
    ids = torch.tensor([tokenizer("the mat\nAnswer:").input_ids])
    for way, rows in (("no prompt", None), ("mine", prompt.embeddings)):
        inputs = model.get_input_embeddings()(ids)
        if rows is not None:
            inputs = torch.cat([torch.from_numpy(np.array(rows))[None], inputs], dim=1)
        with torch.no_grad():
            chances = model(inputs_embeds=inputs).logits[0, -1].softmax(-1)
        found = table[table["way"] == way]
        np.testing.assert_allclose(found["probability"], chances.topk(3).values, atol=1e-5)
        assert found["token"].tolist() == [vocabulary.tokens[i] for i in chances.topk(3).indices]


def test_a_prompt_whose_template_is_unknown_is_said_to_be_asked_so_above_its_verdict(run, toy_config, monkeypatch, prompt_file):
    """The same rows from a file: nobody knows how they were trained, until the person types it."""
    monkeypatch.setattr("soft_prompt_explorer.app.parts.naming.model_for", lambda *of, **other: toy_config.model)
    opened = load_soft_prompt(prompt_file(load_soft_prompt(run).embeddings, "foreign"))
    driver = driver_of("prompt", state={"opened": {"file-foreign": opened}}, prompt="file-foreign", tab="Behaviour", examples="10")
    settled(driver)
    driver.selectbox(key="task-of-file-foreign").select("toy")
    settled(driver)
    assert not driver.exception
    example = "asked: ‘the cat sat⏎Answer:’ → ‘ the cat’"
    assert any(example in caption.value.replace("\\", "") for caption in driver.caption)
    driver.button(key="ask").click()
    settled(driver)
    assert not driver.exception
    said = [warning.value.replace("\\", "") for warning in driver.warning]
    assert any("foreign was not trained here" in text and "type its own above" in text for text in said)
    template = next(area for area in driver.text_area if area.label == "Template")
    template.set_value("Thing: {input}\nColour:")
    settled(driver)
    assert any("asked: ‘Thing: the cat sat⏎Colour:’" in caption.value.replace("\\", "") for caption in driver.caption)
    driver.button(key="ask").click()
    settled(driver)
    assert not any("was not trained here" in warning.value for warning in driver.warning)
    template = next(area for area in driver.text_area if area.label == "Template")
    template.set_value("no place for it")
    settled(driver)
    assert not driver.exception and "nowhere" in driver.error[0].value


def test_a_run_trained_with_a_template_is_asked_with_it_on_its_page(toy_config, own_runs, tiny):
    config = replace(toy_config, template="Thing: {input}\nColour:")
    store.save(trained(config, tiny), "coloured", evaluate_run(trained(config, tiny), language_model=tiny))
    kept_behaviour.test(["coloured"], limit=10)
    driver = driver_of("prompt", tab="Behaviour", prompt="coloured", examples="10")
    settled(driver)
    assert not driver.exception and not driver.info and not driver.warning
    assert any("asked: ‘Thing: the cat sat⏎Colour:’" in caption.value.replace("\\", "") for caption in driver.caption)
    assert driver.metric[0].value == f"{kept_behaviour.kept('coloured')['score'].iloc[0]:.3f}"
